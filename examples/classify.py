"""Classify images with an exported ensemble. It needs torch (or onnxruntime for .onnx) and Pillow, nothing of ours.

spectral-ensemble runs/sub4 --export flowers.pt2
python examples/classify.py flowers.pt2 photo.jpg
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Model = Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]


def load(path: str) -> tuple[Model, dict[str, Any]]:
    """A function from uint8 images (N, 3, H, W) to log-probabilities, and what is known of the model.

    The function returns a list: the ensemble's (N, classes) and, of a model exported with --export-members, those of
    each member (N, members, classes).
    """
    if path.endswith(".onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        about = session.get_modelmeta().custom_metadata_map["spectral.json"]
        return lambda images: session.run(None, {session.get_inputs()[0].name: images}), json.loads(about)
    import torch

    extra = {"spectral.json": ""}
    model = torch.export.load(path, extra_files=extra).module()

    def run(images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        said = model(torch.from_numpy(images))
        return [each.detach().numpy() for each in (said if isinstance(said, tuple) else (said,))]

    return run, json.loads(extra["spectral.json"])


def read(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels as a split has them, uint8 (H, W, 3), of the largest size that the model takes at most."""
    if image.mode.startswith("I"):  # 16-bit grey: the high byte
        image = Image.fromarray((np.array(image) >> 8).clip(0, 255).astype(np.uint8))
    image.thumbnail((8192, 8192))
    return np.array(image.convert("RGB"))


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} MODEL IMAGE ...")
    model, about = load(sys.argv[1])
    for path in sys.argv[2:]:
        with Image.open(path) as image:
            pixels = read(image)
        fused = model(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))[0]
        probabilities = np.exp(fused[0])
        best = probabilities.argsort()[::-1][:5]
        print(path, *(f"{about['classes'][i]} {probabilities[i]:.1%}" for i in best), sep="  ")


if __name__ == "__main__":
    main()
