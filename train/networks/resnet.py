"""torchvision's ResNets, with stems for small planes, and in other widths."""

from __future__ import annotations

from typing import Any, cast

from torch import nn
from torchvision import models
from torchvision.models.resnet import BasicBlock, Bottleneck

from . import InputShape, NetworkOptions

SMALL = 64  # up to this side, a plane keeps its resolution in the stem
STAGES = (64, 128, 256, 512)  # channels of the four stages, before a bottleneck's expansion

Block = type[BasicBlock] | type[Bottleneck]


def resnet18(shape: InputShape, options: NetworkOptions) -> nn.Module:
    """Build ResNet-18 for planes of any side."""
    return _resnet(BasicBlock, (2, 2, 2, 2), shape, options)


def resnet34(shape: InputShape, options: NetworkOptions) -> nn.Module:
    """Build ResNet-34 for planes of any side."""
    return _resnet(BasicBlock, (3, 4, 6, 3), shape, options)


def resnet50(shape: InputShape, options: NetworkOptions) -> nn.Module:
    """Build ResNet-50 for planes of any side."""
    return _resnet(Bottleneck, (3, 4, 6, 3), shape, options)


def _resnet(block: Block, counts: tuple[int, ...], shape: InputShape, options: NetworkOptions) -> nn.Module:
    """Build a ResNet: torchvision's, but for its first layers and its width."""
    network: Any = models.ResNet(block, list(counts), num_classes=shape.classes)
    widths = [max(round(options.width * width), 1) for width in STAGES]
    if options.width != 1:
        _rescale(network, block, counts, widths, shape.classes)
    _fit_stem(network, shape, options, widths[0])
    return cast("nn.Module", network)


def _fit_stem(network: Any, shape: InputShape, options: NetworkOptions, width: int) -> None:
    """Give a network the stem for its planes.

    Stride 1, the published stem for small planes, is a 3x3 convolution; stride 2 is the same in steps of two pixels;
    stride 4 has torchvision's max-pool after that. On large planes stride 4 is torchvision's own stem, 7x7.
    """
    stride = options.stem_stride or (1 if shape.plane <= SMALL else 4)
    large = shape.plane > SMALL and stride == 4
    kernel, step = (7, 2) if large else (3, min(stride, 2))
    if stride < 4:
        network.maxpool = nn.Identity()
    if large and shape.channels == network.conv1.in_channels and width == network.conv1.out_channels:
        return
    network.conv1 = nn.Conv2d(shape.channels, width, kernel, step, padding=kernel // 2, bias=False)
    _initialise(network.conv1)


def _rescale(network: Any, block: Block, counts: tuple[int, ...], widths: list[int], classes: int) -> None:
    """Replace all layers behind the first convolution by wider or narrower ones, initialised as torchvision's are."""
    channels = widths[0]
    network.bn1 = nn.BatchNorm2d(channels)
    for stage, (width, count) in enumerate(zip(widths, counts, strict=True)):
        blocks = []
        for number in range(count):
            stride, outputs = (2 if stage and not number else 1), width * block.expansion
            shortcut = None
            if stride != 1 or channels != outputs:
                shortcut = nn.Sequential(nn.Conv2d(channels, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            blocks.append(block(channels, width, stride, shortcut))
            channels = outputs
        layer = nn.Sequential(*blocks)
        layer.apply(_initialise)
        setattr(network, f"layer{stage + 1}", layer)
    network.fc = nn.Linear(channels, classes)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
