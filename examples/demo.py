"""The main job end to end in a few minutes: split, verify, preview, train four networks, fuse them, look at them.

Without --data it cuts labelled crops out of photographs that come with scikit-image and scikit-learn, one class a
photograph. A quarter of the tiles of each is for val, the others are for train, so that they share no pixel.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

PHOTOS = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "immunohistochemistry", "retina", "rocket")
TILE = 64  # pixels on a side
CROPS = {"train": 50, "val": 100}  # of a photograph
SIDES = (32, 64)
WHOLE = ("--random-shift", "2", "--holdout-samples", "0")  # a shift of two pixels is that of one of a plane


def photographs() -> dict[str, NDArray[np.uint8]]:
    """Photographs inside installed packages, by name: uint8 (H, W, 3)."""
    import skimage.data
    from sklearn.datasets import load_sample_image

    found = {name: np.asarray(getattr(skimage.data, name)()) for name in PHOTOS}
    found["motorcycle"] = np.asarray(skimage.data.stereo_motorcycle()[0])
    for name in ("china.jpg", "flower.jpg"):
        found[name[:-4]] = np.asarray(load_sample_image(name))
    return found


def tiles(height: int, width: int) -> dict[str, list[tuple[int, int]]]:
    """Return the corners (top, left) of the tiles of an image for each part; those for val lie scattered."""
    found: dict[str, list[tuple[int, int]]] = {"train": [], "val": []}
    for row in range(height // TILE):
        for column in range(width // TILE):
            found["val" if (row + 2 * column) % 4 == 1 else "train"].append((row * TILE, column * TILE))
    return found


def write_crops(folder: Path) -> None:
    """Cut every photograph into JPEGs below folder/train/NAME and folder/val/NAME."""
    random = np.random.default_rng(0)
    for name, pixels in photographs().items():
        for part, corners in tiles(*pixels.shape[:2]).items():
            target = folder / part / name
            target.mkdir(parents=True)
            for number in range(CROPS[part]):
                side = int(random.integers(SIDES[0], SIDES[1] + 1))
                top, left = corners[int(random.integers(len(corners)))]
                top += int(random.integers(0, TILE - side + 1))
                left += int(random.integers(0, TILE - side + 1))
                crop = Image.fromarray(np.ascontiguousarray(pixels[top : top + side, left : left + side]))
                crop.save(target / f"{number:04d}.jpg", quality=95)


def run(*command: str) -> None:
    """Run one of the installed programs, showing the command."""
    click.secho(f"\n$ {' '.join(command)}", bold=True)
    program = Path(sys.executable).with_name(command[0])
    if subprocess.run([str(program), *command[1:]], check=False).returncode:
        raise SystemExit(f"{command[0]} failed: see above")


def verdict(report: Path) -> str:
    """Return in a sentence how good the ensemble is, beside its best member and one network on whole images."""
    found = json.loads(report.read_text())
    chosen, best, baseline = (found["costs"][name]["top1"] for name in ("chosen", "best", "baseline"))
    return (
        f"ensemble {chosen:.1%}, its best member {best:.1%}, one network on whole images for the same "
        f"multiply-adds {baseline:.1%}"
    )


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@click.command()
@click.option("--data", help="Your own images: a folder of class folders or class tars.")
@click.option("--out", type=click.Path(path_type=Path), default="demo", show_default=True)
@click.option("--factor", default=4, show_default=True)
@click.option("--size", default=32, show_default=True)
@click.option("--epochs", default=20, show_default=True)
@click.option("--limit", default=2500, show_default=True, help="Images of each part taken from --data.")
def main(data: str | None, out: Path, factor: int, size: int, epochs: int, limit: int) -> None:
    """Run the main job into the folder OUT, which is made again."""
    started = time.perf_counter()
    if out.exists() and not (out / "made-by-demo").exists():
        raise SystemExit(f"{out} exists and was not made by this demo: choose another --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "made-by-demo").touch()
    if data is None:
        write_crops(out / "photos")
    source, split, runs = data or f"{out}/photos", f"{out}/sub{factor}", f"{out}/runs"
    size_options = ["--factor", str(factor), "--size", str(size), "--transform", "dct2"]
    limits = ["--limit", str(limit)] if data else []
    run("spectral", "split", *size_options, *limits, source, "--out", split)
    if not json.loads(Path(split, "manifest.json").read_text())["parts"].get("val", {}).get("samples"):
        raise SystemExit(f"{data} has too few images a class (10) to hold some out: the ensemble could not be scored")
    run("spectral", "verify", split)
    run("spectral", "preview", split, "--out", f"{out}/preview.png")
    recipe = ["--network", "cnn", "--recipe", "quick", "--epochs", str(epochs), "--batch-size", "32", "--lr", "0.05"]
    run("spectral", "train", "--shards", split, "--out", runs, *recipe, *(["--jobs", "2"] if cores() > 1 else []))
    whole, one = f"{out}/whole", f"{out}/one-network"  # for the same multiply-adds: a network on the images themselves
    run("spectral", "split", *limits, "--factor", "1", "--size", str(size), source, "--out", whole, "--quiet")
    run("spectral", "train", "--shards", f"{whole}/00", "--out", one, *recipe, *WHOLE)
    run("spectral", "ensemble", runs, "--baseline", one, "--quiet")
    run("spectral", "report", split, runs, "--baseline", one, "--out", f"{out}/report.html", "--quiet")
    click.echo(f"\n{verdict(Path(runs, 'ensemble.json'))}")
    click.echo("now with your images: source .venv/bin/activate, and docs/guide/start.md")
    click.echo(f"{time.perf_counter() - started:.0f} s in all; all of it on one page, in a browser:")
    click.echo(f"{out}/report.html")


if __name__ == "__main__":
    main()
