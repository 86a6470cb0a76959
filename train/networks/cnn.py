"""A small plain network for small planes and quick runs: six convolutions, 1.1 M parameters."""

from __future__ import annotations

from torch import nn

WIDTHS = (64, 128, 256)


def cnn(plane: int, classes: int) -> nn.Module:
    """Build it: three stages of two 3x3 convolutions, of 64, 128 and 256 channels; the plane is halved in between."""
    layers: list[nn.Module] = []
    channels = 3
    for stage, width in enumerate(WIDTHS):
        if stage and plane >= 2:
            layers.append(nn.MaxPool2d(2))
            plane //= 2
        for _ in range(2):
            layers += [
                nn.Conv2d(channels, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
