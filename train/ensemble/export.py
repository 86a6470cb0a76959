"""An ensemble as one model, from the RGB image to the fused prediction: phases, DCT, sub-networks, fusing."""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from ...shards_manifest.manifest import BandManifest, Geometry
from ...shards_manifest.spectral.color import phase_weights, pixel_weights
from ...shards_manifest.spectral.transform import band_matrix
from ...shards_manifest.storage.local import LocalStore
from ..augment.planes import BandAugmentation
from ..errors import EnsembleError
from ..runs import checkpoint
from ..runs.run_folder import CHECKPOINT
from .members import FinishedRun
from .rules import LOG, Space

FORMATS = (".pt2", ".onnx")
LARGEST = 8192  # side of the largest image that an exported model takes, in pixels
META = "spectral.json"  # name of the model's ModelInfo in a .pt2 file, and in the metadata of an .onnx file


@dataclass(frozen=True)
class EnsembleMember:
    """A network of an ensemble with what it needs of its bands.

    Attributes:
        network: logits float32 (N, classes) of what `BandAugmentation` makes of its bands.
        bands: manifests of the bands that it reads, in its order, with the steps, means and deviations that it was
            trained with.
        weight: of the network in the ensemble.
        inputs: a name in INPUTS: what it sees of its bands.
    """

    network: nn.Module
    bands: tuple[BandManifest, ...]
    weight: float
    inputs: str = "planes"


@dataclass(frozen=True)
class MemberInfo:
    """A member of an exported model.

    Attributes:
        name: of the run.
        bands: numbers of the bands that it reads.
        weight: in the ensemble.
    """

    name: str
    bands: list[int]
    weight: float


@dataclass(frozen=True)
class ModelInfo:
    """What a user of an exported model has to know; written into its file as JSON.

    Attributes:
        dataset: name of the data set.
        classes: names, in the order of the outputs.
        members: those that are in the file.
        of: what the weights multiply: log-probabilities or probabilities.
        says_members: whether the model also returns what each member says.
        input: of the model, in words.
        output: of the model, in words.
    """

    dataset: str
    classes: list[str]
    members: list[MemberInfo]
    of: str
    says_members: bool = False
    input: str = f"uint8 (N, 3, H, W), RGB, sides up to {LARGEST}"
    output: str = "float32 (N, classes), log-probabilities"


class ImageToBands(nn.Module):
    """Turns images into the coefficients of some bands, to the very integers that a split stores.

    Products are exact in float32 (docs/decisions/0001). A device that multiplies with less precision, as GPUs do if
    they are allowed to, would give others.

    Args:
        geometry: of the split.
        bands: numbers of the bands.
        steps: quantisation step of each band and channel: (bands, 3).
    """

    color: torch.Tensor
    weights: torch.Tensor

    def __init__(self, geometry: Geometry, bands: Sequence[int], steps: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.side, self.grid = geometry.size + geometry.margin, geometry.grid
        self.fit, self.stores_integers = geometry.fit, geometry.dtype == "int8"
        matrix = band_matrix(geometry.transform, geometry.factor)[list(bands)]
        self.register_buffer("color", torch.from_numpy(pixel_weights(geometry.color)))
        self.register_buffer("weights", torch.from_numpy(phase_weights(matrix, np.array(steps))))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Transform images of any size.

        Args:
            images: uint8 (N, 3, H, W), RGB.

        Returns:
            float32 (bands, N, 3, P, P), in quantisation steps.
        """
        pixels = self._resize(images.float())
        count, plane = pixels.shape[0], self.side // self.grid
        grey = torch.full_like(pixels[:, :1], 128)
        channels = torch.einsum("ci,nihw->cnhw", self.color, torch.cat([pixels, grey], 1)).round()
        phases = channels.reshape(3, count, plane, self.grid, plane, self.grid).permute(0, 3, 5, 1, 2, 4)
        columns = phases.reshape(3, self.grid**2, count * plane * plane)
        bands = torch.bmm(self.weights, columns).reshape(3, self.weights.shape[1], count, plane, plane)
        bands = bands.permute(1, 2, 0, 3, 4)
        return bands.round().clamp(-128, 127) if self.stores_integers else bands.half().float()

    def _resize(self, pixels: torch.Tensor) -> torch.Tensor:
        """Resize to the side of a split by its filter, to whole numbers; an image of that size does not change."""
        if self.fit == "crop":
            height, width = pixels.shape[2:]
            span = torch.arange(torch.sym_min(height, width), device=pixels.device)  # slices would fix which is less
            pixels = pixels.index_select(2, span + (height - span.shape[0]) // 2)
            pixels = pixels.index_select(3, span + (width - span.shape[0]) // 2)
        size = (self.side, self.side)
        resized = nn.functional.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
        return resized.round().clamp(0, 255)


class MemberModel(nn.Module):
    """A network behind what makes its inputs, as while it was trained.

    Args:
        member: the network.
        places: of its bands among the planes that it is given.
    """

    def __init__(self, member: EnsembleMember, places: Sequence[int]) -> None:
        super().__init__()
        self.prepare = BandAugmentation(member.bands, inputs=member.inputs)
        self.network, self.places = member.network, tuple(places)

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities: float32 (N, classes).

        Args:
            planes: float32 (planes, N, 3, P, P), in quantising steps.
        """
        stored = torch.stack([planes[place] for place in self.places], 1)
        return torch.log_softmax(self.network(self.prepare(stored)), 1)


class EnsembleModel(nn.Module):
    """An ensemble as one module. What several members read is computed once.

    Args:
        geometry: of the split.
        members: its networks.
        space: what their weights multiply.
        says_members: return what each member says, too.
    """

    weights: torch.Tensor

    def __init__(
        self, geometry: Geometry, members: Sequence[EnsembleMember], space: Space, says_members: bool = False
    ) -> None:
        super().__init__()
        self.says_members = says_members
        read = [[(band.band, band.step) for band in member.bands] for member in members]
        planes = sorted({plane for each in read for plane in each})  # a band twice if members have other steps for it
        self.to_bands = ImageToBands(geometry, [band for band, _ in planes], [step for _, step in planes])
        self.members = nn.ModuleList(
            MemberModel(member, [planes.index(plane) for plane in each])
            for member, each in zip(members, read, strict=True)
        )
        self.in_log = space is LOG
        self.register_buffer("weights", torch.tensor([member.weight for member in members]))

    def forward(self, images: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Classify images of any size.

        Args:
            images: uint8 (N, 3, H, W), RGB.

        Returns:
            Log-probabilities float32 (N, classes); with `says_members` also those of each member, float32
            (N, members, classes).
        """
        planes = self.to_bands(images)
        together = torch.stack([member(planes) for member in self.members], -1)
        if self.in_log:
            fused = (together @ self.weights).log_softmax(1)
        else:
            fused = (together.exp() @ (self.weights / self.weights.sum())).log()
        return (fused, together.transpose(1, 2)) if self.says_members else fused


def load_ensemble(
    runs: Sequence[FinishedRun], weights: Sequence[float], space: Space, says_members: bool = False
) -> tuple[EnsembleModel, ModelInfo]:
    """Load the networks of some runs as one model. Runs of weight 0 are left out.

    Args:
        runs: of one split.
        weights: one a run.
        space: what the weights multiply.
        says_members: the model also returns what each member says.

    Returns:
        The model in evaluation mode, and what its user has to know.

    Raises:
        TrainError: if a checkpoint cannot be read.
    """
    chosen = [(run, weight) for run, weight in zip(runs, weights, strict=True) if weight]
    members = [_load_member(run.path, weight) for run, weight in chosen]
    info = ModelInfo(
        dataset=runs[0].dataset,
        classes=list(runs[0].classes),
        members=[MemberInfo(run.name, list(run.bands), weight) for run, weight in chosen],
        of=space.title,
        says_members=says_members,
    )
    return EnsembleModel(runs[0].geometry, members, space, says_members).eval(), info


def _load_member(run: Path, weight: float) -> EnsembleMember:
    found = checkpoint.load_checkpoint(run / CHECKPOINT)
    return EnsembleMember(found.network(), found.bands, weight, found.identity.options.network.inputs)


def export(model: EnsembleModel, info: ModelInfo, path: Path) -> int:
    """Write a model as PyTorch's exported program (.pt2) or as ONNX (.onnx).

    Both take any number of images, with sides of 2 to LARGEST pixels, and need nothing of this package.

    Returns:
        The bytes that were written.

    Raises:
        EnsembleError: as `check_target` does.
        StoreError: if the disk is full or refuses.
    """
    check_target(path)
    store = LocalStore(path.parent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations within the exporters
        program = _program(model)
        text = json.dumps(asdict(info))
        if path.suffix == ".onnx":
            try:
                _write_onnx(program, text, store.path(path.name))
            except OSError as error:
                raise store.refused(error, path.name) from error
        else:
            buffer = io.BytesIO()  # torch would turn the error of a file into a RuntimeError without its reason
            torch.export.save(program, buffer, extra_files={META: text})
            with store.writing([path.name]) as (file,):
                file.write(buffer.getbuffer())
    return sum(file.stat().st_size for file in (path, _weights_file(path)) if file.exists())


def check_target(path: Path) -> None:
    """Check that a model can be written to a file, and make its folder.

    Raises:
        EnsembleError: if it cannot.
    """
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
    side = model.to_bands.side
    images = torch.zeros(2, 3, side + 2, side + 1, dtype=torch.uint8)  # three sizes, as equal ones count as one
    sides = {axis: torch.export.Dim(name, min=2, max=LARGEST) for axis, name in ((2, "height"), (3, "width"))}
    with torch.inference_mode(False), torch.no_grad():
        return torch.export.export(
            model, (images,), dynamic_shapes={"images": {0: torch.export.Dim("images"), **sides}}
        )


def _write_onnx(program: torch.export.ExportedProgram, info: str, path: Path) -> None:
    made = torch.onnx.export(program, dynamo=True, verbose=False)
    assert made is not None
    made.model.metadata_props[META] = info
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:  # all of it or nothing
        made.save(str(Path(folder, path.name)))
        path.unlink(missing_ok=True)  # before its weights
        _weights_file(path).unlink(missing_ok=True)
        for written in sorted(Path(folder).iterdir(), reverse=True):  # the model last
            os.replace(written, path.with_name(written.name))


def _weights_file(path: Path) -> Path:
    """Return the file with the weights of an .onnx model that is larger than 2 GB."""
    return path.with_name(f"{path.name}.data")
