"""The networks by name. A new one is a file of its own in this folder and one line in NETWORKS.

This module loads no torch by itself, so that the command line can show its choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, cast

from ..errors import TrainError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class NetworkEntry:
    """A network that --network names.

    Attributes:
        name: as the user writes it, and of the function that builds it: name(plane, classes) -> nn.Module.
        module: the module of this package that has the function.
        help: a few words for the command line.
    """

    name: str
    module: str
    help: str

    def build(self, plane: int, classes: int) -> nn.Module:
        """Return the network for inputs float32 (N, 3, plane, plane) and outputs float32 (N, classes)."""
        function = getattr(import_module(f".{self.module}", __package__), self.name)
        return cast("nn.Module", function(plane, classes))


NETWORKS = {
    entry.name: entry
    for entry in (
        NetworkEntry("alexnet", "alexnet_vgg", "AlexNet, fitted to small planes"),
        NetworkEntry("cnn", "cnn", "six convolutions, for quick runs"),
        NetworkEntry("resnet18", "resnet", "ResNet-18"),
        NetworkEntry("resnet34", "resnet", "ResNet-34"),
        NetworkEntry("resnet50", "resnet", "ResNet-50"),
        NetworkEntry("vgg16", "alexnet_vgg", "VGG-16, fitted to small planes"),
    )
}
DEFAULT = "resnet34"


def build_network(name: str, plane: int, classes: int) -> nn.Module:
    """Build a network by its name, with random weights.

    Args:
        name: one of NETWORKS.
        plane: side of the input planes, in pixels.
        classes: number of outputs.

    Raises:
        TrainError: if there is no network of this name.
    """
    if name not in NETWORKS:
        raise TrainError(f"--network {name}: choose {', '.join(NETWORKS)}")
    return NETWORKS[name].build(plane, classes)


def trains_on_one(name: str, plane: int) -> bool:
    """Return whether a step may see a single sample: batch norm needs two values a channel or more, of all pixels."""
    import torch

    with torch.device("meta"):
        try:
            build_network(name, plane, 2)(torch.empty(1, 3, plane, plane))
        except ValueError:
            return False
    return True


def parameter_bytes(network: nn.Module) -> int:
    """Return the bytes of the float32 parameters, without buffers."""
    return sum(p.numel() * p.element_size() for p in network.parameters())
