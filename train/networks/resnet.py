"""torchvision's ResNets, with the published stem for small planes."""

from __future__ import annotations

from torch import nn
from torchvision import models

SMALL = 64  # up to this side, a plane keeps its resolution in the stem


def _fit_stem(network: nn.Module, plane: int) -> nn.Module:
    """Give a network for small planes a 3x3 stride-1 convolution in place of 7x7 stride-2, and no max-pool."""
    if plane <= SMALL:
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()
    return network


def resnet18(plane: int, classes: int) -> nn.Module:
    """Build ResNet-18 for planes of any side."""
    return _fit_stem(models.resnet18(num_classes=classes), plane)


def resnet34(plane: int, classes: int) -> nn.Module:
    """Build ResNet-34 for planes of any side."""
    return _fit_stem(models.resnet34(num_classes=classes), plane)


def resnet50(plane: int, classes: int) -> nn.Module:
    """Build ResNet-50 for planes of any side."""
    return _fit_stem(models.resnet50(num_classes=classes), plane)
