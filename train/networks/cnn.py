"""A small plain network for small planes and quick runs: six convolutions, 1.1 M parameters."""

from __future__ import annotations

from torch import nn

from . import InputShape, NetworkOptions

WIDTHS = (64, 128, 256)


def cnn(shape: InputShape, options: NetworkOptions) -> nn.Module:
    """Build it: three stages of two 3x3 convolutions, of 64, 128 and 256 channels; the plane is halved in between."""
    layers: list[nn.Module] = []
    channels, plane = shape.channels, shape.plane
    stride = options.stem_stride or 1
    for stage, wide in enumerate(WIDTHS):
        width = max(round(options.width * wide), 1)
        if stage and plane >= 2:
            layers.append(nn.MaxPool2d(2))
            plane //= 2
        for number in range(2):
            step = 1 if stage or number else stride
            layers += [
                nn.Conv2d(channels, width, 3, step, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            channels, plane = width, -(-plane // step)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, shape.classes))
