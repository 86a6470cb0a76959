"""How far a JPEG that is decoded at a half or a quarter of its sides is from a full decode, once both are resized.

    python benchmarks/scaled.py ../shared/data/imagenet-sample

Every photograph is resized to the largest square for which the decoder takes that scale: the worst case.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import simplejpeg
from PIL import Image

from spectral_shards.preprocess.pipeline.decode import SPARE, Decoder


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--images", default=250, show_default=True)
def main(source: Path, images: int) -> None:
    """Print the PSNR of the mean squared error, and of the worst image, for both scales."""
    paths = sorted(source.glob("*/*"))[:images]
    for scale in (2, 4):
        errors = []
        for data in (path.read_bytes() for path in paths):
            height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
            side = int(min(height, width) / (scale * SPARE))
            if colors in ("CMYK", "YCCK"):
                continue
            full = Image.fromarray(simplejpeg.decode_jpeg(data)).resize((side, side), Image.Resampling.BILINEAR)
            scaled = Decoder(side, "squash", 1)(data)[..., :3]
            errors.append(np.mean((np.asarray(full, np.float64) - scaled) ** 2))
        mean, worst = (10 * np.log10(255**2 / error) for error in (np.mean(errors), np.max(errors)))
        click.echo(f"1/{scale}: {mean:.1f} dB, the worst of {len(errors)} images {worst:.1f} dB")


if __name__ == "__main__":
    main()
