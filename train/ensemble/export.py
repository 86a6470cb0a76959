"""An ensemble as one model, from the RGB image to the fused prediction: phases, DCT, sub-networks, fusing."""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from ...shards_manifest.manifest import Geometry
from ...shards_manifest.spectral.color import phase_weights, pixel_weights
from ...shards_manifest.spectral.transform import band_matrix
from ...shards_manifest.storage.local import LocalStore
from ..errors import EnsembleError
from ..runs import checkpoint
from ..runs.run_folder import CHECKPOINT

FORMATS = (".pt2", ".onnx")
LARGEST = 8192  # pixels of a side of the images that an exported model takes
META = "spectral.json"  # in a .pt2 file; the same under that name in an .onnx file's metadata


class Split(nn.Module):
    """Images to the coefficients of some bands, as a split stores them: the same integers for the same pixels.

    steps: (bands, 3), of each band and channel.  Products are exact in float32 (docs/decisions/0001), so a device that
    multiplies in less, as GPUs do if they are let, would make others.
    """

    color: torch.Tensor
    weights: torch.Tensor

    def __init__(self, geometry: Geometry, bands: Sequence[int], steps: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.side, self.grid = geometry.size + geometry.margin, geometry.grid
        self.fit, self.whole = geometry.fit, geometry.dtype == "int8"
        matrix = band_matrix(geometry.transform, geometry.factor)[list(bands)]
        self.register_buffer("color", torch.from_numpy(pixel_weights(geometry.color)))
        self.register_buffer("weights", torch.from_numpy(phase_weights(matrix, np.array(steps))))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 (bands, N, 3, P, P), in steps, of uint8 images (N, 3, H, W) in RGB of any size."""
        pixels = self._resized(images.float())
        count, plane = pixels.shape[0], self.side // self.grid
        grey = torch.full_like(pixels[:, :1], 128)
        channels = torch.einsum("ci,nihw->cnhw", self.color, torch.cat([pixels, grey], 1)).round()
        phases = channels.reshape(3, count, plane, self.grid, plane, self.grid).permute(0, 3, 5, 1, 2, 4)
        columns = phases.reshape(3, self.grid**2, count * plane * plane)
        bands = torch.bmm(self.weights, columns).reshape(3, self.weights.shape[1], count, plane, plane)
        bands = bands.permute(1, 2, 0, 3, 4)
        return bands.round().clamp(-128, 127) if self.whole else bands.half().float()

    def _resized(self, pixels: torch.Tensor) -> torch.Tensor:
        """To the side of a split, by the filter that it uses; whole numbers. What has that size stays as it is."""
        if self.fit == "crop":
            height, width = pixels.shape[2:]
            span = torch.arange(torch.sym_min(height, width), device=pixels.device)  # slices would fix which is less
            pixels = pixels.index_select(2, span + (height - span.shape[0]) // 2)
            pixels = pixels.index_select(3, span + (width - span.shape[0]) // 2)
        size = (self.side, self.side)
        resized = nn.functional.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
        return resized.round().clamp(0, 255)


class EnsembleModel(nn.Module):
    """All of an ensemble. shares: a weight for each band; space: what they weight, as in fuse.py."""

    scale: torch.Tensor
    mean: torch.Tensor
    shares: torch.Tensor

    def __init__(
        self, bands: Sequence[dict[str, Any]], networks: Sequence[nn.Module], shares: Sequence[float], space: str
    ):
        super().__init__()
        geometry = Geometry(**bands[0]["geometry"])
        steps = [band["step"] for band in bands]
        self.split = Split(geometry, [band["band"] for band in bands], steps)
        self.networks = nn.ModuleList(networks)
        self.space, self.crop = space, geometry.crop
        scale, mean, std = (
            torch.tensor(values).view(-1, 1, 3, 1, 1)
            for values in (steps, [band["mean"] for band in bands], [band["std"] for band in bands])
        )
        self.register_buffer("scale", scale / std)
        self.register_buffer("mean", mean / std)
        self.register_buffer("shares", torch.tensor(shares))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Log-probabilities float32 (N, classes) of uint8 images (N, 3, H, W) in RGB of any size."""
        stored = self.split(images)
        corner = (stored.shape[-1] - self.crop) // 2
        planes = stored[..., corner : corner + self.crop, corner : corner + self.crop] * self.scale - self.mean
        outputs = [network(planes[number]).log_softmax(1) for number, network in enumerate(self.networks)]
        together = torch.stack(outputs, -1)
        if self.space == "log":
            return (together @ self.shares).log_softmax(1)
        return (together.exp() @ (self.shares / self.shares.sum())).log()


def whole(runs: Sequence[Path], shares: Sequence[float], space: str) -> tuple[EnsembleModel, dict[str, Any]]:
    """The ensemble of some runs, in evaluation mode, with what its user needs to know. Raises TrainError."""
    found = [checkpoint.load(run / CHECKPOINT) for run in runs]
    bands = [asdict(each.band) for each in found]
    networks = [each.network() for each in found]
    about = {
        "dataset": bands[0]["dataset"],
        "classes": list(bands[0]["classes"]),
        "bands": [band["band"] for band in bands],
        "weights": list(shares),
        "of": "log-probabilities" if space == "log" else "probabilities",
        "input": "uint8 (N, 3, H, W), RGB, sides up to 8192",
        "output": "float32 (N, classes), log-probabilities",
    }
    return EnsembleModel(bands, networks, shares, space).eval(), about


def export(model: EnsembleModel, about: dict[str, Any], path: Path) -> int:
    """Write a model as PyTorch's exported program (.pt2) or as ONNX (.onnx); its bytes. Raises EnsembleError.

    Both take any number of images, with sides of 2 to LARGEST, and need nothing of this package.
    """
    check_target(path)
    store = LocalStore(path.parent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations within the exporters
        program = _program(model)
        text = json.dumps(about)
        if path.suffix == ".onnx":
            try:
                _write_onnx(program, text, store.path(path.name))
            except OSError as error:
                raise store.refused(error, path.name) from error
        else:
            buffer = io.BytesIO()  # of what a file raises, torch makes a RuntimeError without its reason
            torch.export.save(program, buffer, extra_files={META: text})
            with store.writing([path.name]) as (file,):
                file.write(buffer.getbuffer())
    return sum(file.stat().st_size for file in (path, _beside(path)) if file.exists())


def check_target(path: Path) -> None:
    """Raise EnsembleError for what cannot be written."""
    if path.suffix not in FORMATS:
        raise EnsembleError(f"--export {path}: write a name that ends with {' or '.join(FORMATS)}")
    if path.suffix == ".onnx":
        try:
            import onnxscript  # noqa: F401
        except ImportError:
            raise EnsembleError(
                "--export to .onnx needs the packages onnx and onnxscript: pip install onnx onnxscript"
            ) from None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnsembleError(f"--export {path} cannot be written: {error.strerror}") from None


def _program(model: EnsembleModel) -> torch.export.ExportedProgram:
    side = model.split.side
    images = torch.zeros(2, 3, side + 2, side + 1, dtype=torch.uint8)  # sizes of their own, or they count as one
    sides = {axis: torch.export.Dim(name, min=2, max=LARGEST) for axis, name in ((2, "height"), (3, "width"))}
    with torch.inference_mode(False), torch.no_grad():
        return torch.export.export(
            model, (images,), dynamic_shapes={"images": {0: torch.export.Dim("images"), **sides}}
        )


def _write_onnx(program: torch.export.ExportedProgram, about: str, path: Path) -> None:
    made = torch.onnx.export(program, dynamo=True, verbose=False)
    assert made is not None
    made.model.metadata_props[META] = about
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:  # whole or not at all
        made.save(str(Path(folder, path.name)))
        path.unlink(missing_ok=True)  # before its weights
        _beside(path).unlink(missing_ok=True)
        for written in sorted(Path(folder).iterdir(), reverse=True):  # the model last
            os.replace(written, path.with_name(written.name))


def _beside(path: Path) -> Path:
    """The file with the weights of an .onnx file that would be larger than 2 GB."""
    return path.with_name(f"{path.name}.data")
