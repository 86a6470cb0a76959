"""The sub-networks, sized for their planes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ..errors import TrainError
from .alexnet_vgg import alexnet, vgg16
from .cnn import cnn
from .resnet import resnet18, resnet34, resnet50

NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {
    "alexnet": alexnet,
    "cnn": cnn,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "vgg16": vgg16,
}


def check(name: str) -> None:
    """Raise TrainError if there is no network of this name."""
    if name not in NETWORKS:
        raise TrainError(f"--network {name}: choose {', '.join(sorted(NETWORKS))}")


def build(name: str, plane: int, classes: int) -> nn.Module:
    """A network for inputs (N, 3, plane, plane) with `classes` outputs. Raises TrainError."""
    check(name)
    return NETWORKS[name](plane, classes)


def trains_on_one(name: str, plane: int) -> bool:
    """Whether a step may see a single sample: batch norm wants more than one value a channel, of all pixels."""
    with torch.device("meta"):
        try:
            build(name, plane, 2)(torch.empty(1, 3, plane, plane))
        except ValueError:
            return False
    return True


def parameter_bytes(network: nn.Module) -> int:
    """Bytes of the float32 parameters, without buffers."""
    return sum(p.numel() * p.element_size() for p in network.parameters())
