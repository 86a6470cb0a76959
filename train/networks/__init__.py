"""The networks by name. A new one is a file of its own in this folder and one line in NETWORKS.

This module loads no torch by itself, so that the command line can show its choices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from ...shards_manifest.manifest import BandManifest
from ...shards_manifest.spectral.transform import compose_matrix
from ..errors import TrainError

if TYPE_CHECKING:
    from torch import nn

STEM_STRIDES = (1, 2, 4)
PLANES, IMAGE = "planes", "image"
INPUTS: Mapping[str, str] = {
    PLANES: "its bands as channels, three for each",
    IMAGE: "the image that they give together",
}
CHANNELS = 3  # of one band


@dataclass(frozen=True)
class InputShape:
    """What a network is built for.

    Attributes:
        plane: side of the input planes, in pixels.
        classes: number of outputs.
        channels: of the input, three for each band that it reads.
    """

    plane: int
    classes: int
    channels: int = CHANNELS

    def __str__(self) -> str:
        """Return it in words: 3x56x56, 1000 classes."""
        return f"{self.channels}x{self.plane}x{self.plane}, {self.classes} classes"


@dataclass(frozen=True)
class NetworkOptions:
    """A network and its size, as the command line names them.

    Attributes:
        name: one of NETWORKS.
        stem_stride: pixels of its input for one of the first feature map, on a side: one of STEM_STRIDES; 0 for what
            the network does by itself.
        width: the channels of every layer, as a multiple of those that the network has by itself.
        inputs: one of INPUTS: what it sees of its bands.
    """

    name: str
    stem_stride: int = 0
    width: float = 1.0
    inputs: str = PLANES

    def check(self) -> None:
        """Raise TrainError if there is no such network, or none of this size."""
        if self.name not in NETWORKS:
            raise TrainError(f"--network {self.name}: choose {', '.join(NETWORKS)}")
        if self.stem_stride not in (0, *STEM_STRIDES):
            raise TrainError(f"--stem-stride {self.stem_stride}: choose {', '.join(map(str, STEM_STRIDES))}")
        if not (math.isfinite(self.width) and 0.05 <= self.width <= 8):
            raise TrainError(f"--width {self.width:g}: choose 0.05 to 8")
        entry = NETWORKS[self.name]
        if not entry.sized and (self.stem_stride or self.width != 1):
            option = "--stem-stride" if self.stem_stride else "--width"
            sized = ", ".join(name for name, other in NETWORKS.items() if other.sized)
            raise TrainError(f"{option} does not go with --network {self.name}: choose {sized}, or leave it out")

    def build(self, shape: InputShape) -> nn.Module:
        """Build the network, with random weights.

        Args:
            shape: of its inputs, float32 (N, channels, plane, plane), and its outputs, float32 (N, classes).

        Raises:
            TrainError: if there is no such network, or none of this size.
        """
        self.check()
        return NETWORKS[self.name].build(shape, self)

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> NetworkOptions:
        """Read them. Raises KeyError."""
        return NetworkOptions(**{field.name: raw[field.name] for field in fields(NetworkOptions)})

    def __str__(self) -> str:
        """Return the name, and the size where it is not as usual."""
        stem = f", stem stride {self.stem_stride}" if self.stem_stride else ""
        return self.name + stem + (f", width {self.width:g}" if self.width != 1 else "")

    @property
    def size_options(self) -> str:
        """The options of spectral-train that ask for its inputs and its size; empty where they are as usual."""
        inputs = f" --inputs {self.inputs}" if self.inputs != PLANES else ""
        stem = f" --stem-stride {self.stem_stride}" if self.stem_stride else ""
        return (inputs + stem + (f" --width {self.width:g}" if self.width != 1 else "")).lstrip()

    def shape(self, bands: Sequence[BandManifest]) -> InputShape:
        """Return the shape that the network has for the bands that it reads, all of one split. Raises TrainError."""
        check_inputs(self.inputs)
        plane, classes = bands[0].geometry.crop, len(bands[0].classes)
        if self.inputs == PLANES:
            return InputShape(plane, classes, CHANNELS * len(bands))
        return InputShape(plane * composed_grid(bands), classes)


@dataclass(frozen=True)
class NetworkEntry:
    """A network that --network names.

    Attributes:
        name: as the user writes it, and of the function that builds it: name(shape, options) -> nn.Module.
        module: the module of this package that has the function.
        help: a few words for the command line.
        sized: whether it has stems and widths to choose from.
    """

    name: str
    module: str
    help: str
    sized: bool = False

    def build(self, shape: InputShape, options: NetworkOptions) -> nn.Module:
        """Return the network of a shape and a size."""
        function = getattr(import_module(f".{self.module}", __package__), self.name)
        return cast("nn.Module", function(shape, options))


NETWORKS = {
    entry.name: entry
    for entry in (
        NetworkEntry("alexnet", "alexnet_vgg", "AlexNet, fitted to small planes"),
        NetworkEntry("cnn", "cnn", "six convolutions, for quick runs", sized=True),
        NetworkEntry("resnet18", "resnet", "ResNet-18", sized=True),
        NetworkEntry("resnet34", "resnet", "ResNet-34", sized=True),
        NetworkEntry("resnet50", "resnet", "ResNet-50", sized=True),
        NetworkEntry("vgg16", "alexnet_vgg", "VGG-16, fitted to small planes"),
    )
}
DEFAULT = "resnet34"


def build_network(
    name: str, plane: int, classes: int, channels: int = CHANNELS, stem_stride: int = 0, width: float = 1.0
) -> nn.Module:
    """Build a network by its name, with random weights.

    Args:
        name: one of NETWORKS.
        plane: side of the input planes, in pixels.
        classes: number of outputs.
        channels: of the input: three for each band that the network reads.
        stem_stride: 1, 2 or 4: how many times smaller than the plane the first feature map is, on a side; 0 for what
            the network does by itself.
        width: the channels of every layer, as a multiple of those that the network has by itself.

    Returns:
        A module with inputs float32 (N, channels, plane, plane) and outputs float32 (N, classes).

    Raises:
        TrainError: if there is no network of this name, or none of this size.
    """
    return NetworkOptions(name, stem_stride, width).build(InputShape(plane, classes, channels))


def check_inputs(inputs: str) -> None:
    """Raise TrainError unless this is one of INPUTS."""
    if inputs not in INPUTS:
        raise TrainError(f"--inputs {inputs}: choose {', '.join(INPUTS)}")


def gives_image(bands: Sequence[BandManifest]) -> bool:
    """Return whether some bands give an image: any with a DCT, which has frequencies; all where there is none."""
    geometry = bands[0].geometry
    return geometry.transform != "none" or len(bands) == geometry.factor


def composed_grid(bands: Sequence[BandManifest]) -> int:
    """Return how many times larger than a plane the image of some bands is, on a side.

    Raises:
        TrainError: if they do not give one.
    """
    geometry, here = bands[0].geometry, [band.band for band in bands]
    if not gives_image(bands):
        raise TrainError(
            f"--inputs image needs all {geometry.factor} bands where there is no transform, and here are {len(here)}: "
            "name all of them if the split has them, or leave it out"
        )
    return math.isqrt(len(compose_matrix(geometry.transform, geometry.factor, here)))


def trains_on_one(options: NetworkOptions, shape: InputShape) -> bool:
    """Return whether a step may see a single sample: batch norm needs two values a channel or more, of all pixels."""
    import torch

    with torch.device("meta"):
        try:
            options.build(shape)(torch.empty(1, shape.channels, shape.plane, shape.plane))
        except ValueError:
            return False
    return True


def parameter_bytes(network: nn.Module) -> int:
    """Return the bytes of the float32 parameters, without buffers."""
    return sum(p.numel() * p.element_size() for p in network.parameters())
