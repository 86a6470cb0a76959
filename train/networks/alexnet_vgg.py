"""AlexNet and VGG-16 after torchvision's, fitted to small planes: convolutions, then fully connected layers.

For planes of 224 pixels they are torchvision's own, with the same initial convolutions as the smaller ones. For
smaller planes the convolutions are the same where that is possible, and the fully connected layers, which hold most of
the parameters, are sized for the last feature map (docs/decisions/0013).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torchvision import models
from torchvision.models.vgg import make_layers

from . import CHANNELS, InputShape, NetworkOptions

VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
VGG16_WIDTHS = ((112, 4096), (48, 2048), (0, 512))  # least side of planes: neurons of a hidden layer
ALEXNET_STEMS = ((112, 11, 4), (48, 5, 2), (0, 3, 1))  # least side of planes; kernel and stride of the first layer
ALEXNET_WIDTH = 640


def vgg16(shape: InputShape, options: NetworkOptions) -> nn.Module:
    """Build VGG-16; below 224 with batch norm, and without the last poolings if they would leave a single pixel.

    At 112 it is the published network of a sub-band, whose last feature map is 3x3.
    """
    plane, classes = shape.plane, shape.classes
    if plane == 224:
        return _initialise(_with_channels(models.vgg16(num_classes=classes), shape.channels))
    layers, side = list(VGG16), plane >> VGG16.count("M")
    while side < 2 and "M" in layers:
        del layers[len(layers) - 1 - layers[::-1].index("M")]
        side = plane >> layers.count("M")
    width = next(width for least, width in VGG16_WIDTHS if plane >= least)
    return _network(_with_channels(make_layers(layers, batch_norm=True), shape.channels), 512 * side**2, width, classes)


def alexnet(shape: InputShape, options: NetworkOptions) -> nn.Module:
    """Build AlexNet; below 224 its last feature map is 6x6, as at 224, or smaller if the plane is too small."""
    plane, classes = shape.plane, shape.classes
    if plane == 224:
        return _initialise(_with_channels(models.alexnet(num_classes=classes), shape.channels))
    kernel, stride = next(stem for least, *stem in ALEXNET_STEMS if plane >= least)
    padding = kernel // 2 if stride < 4 else 2
    side = (plane + 2 * padding - kernel) // stride + 1
    layers: list[nn.Module] = [nn.Conv2d(shape.channels, 64, kernel, stride, padding), nn.ReLU(inplace=True)]
    for channels, width, size in ((64, 192, 5), (192, 384, 3), (384, 256, 3), (256, 256, 3)):
        if channels < 256 and side >= 6:  # before the second and the third
            layers.append(nn.MaxPool2d(3, 2))
            side = (side - 3) // 2 + 1
        layers += [nn.Conv2d(channels, width, size, padding=size // 2), nn.ReLU(inplace=True)]
    if side >= 13:
        layers.append(nn.MaxPool2d(3, 2))
        side = (side - 3) // 2 + 1
    return _network(layers, 256 * side**2, ALEXNET_WIDTH, classes)


def _network(convolutions: Iterable[nn.Module], features: int, width: int, classes: int) -> nn.Module:
    """Add torchvision's classifier: two hidden layers, with half of their inputs dropped in training."""
    hidden = [
        layer
        for inputs in (features, width)
        for layer in (nn.Dropout(0.5), nn.Linear(inputs, width), nn.ReLU(inplace=True))
    ]
    return _initialise(nn.Sequential(*convolutions, nn.Flatten(), *hidden, nn.Linear(width, classes)))


def _with_channels(network: Any, channels: int) -> Any:
    """Give a network of torchvision, or its convolutions, a first one for other inputs than R, G, B."""
    if channels != CHANNELS:
        layers = getattr(network, "features", network)
        first = layers[0]
        layers[0] = nn.Conv2d(channels, first.out_channels, first.kernel_size, first.stride, first.padding)
    return network


def _initialise(network: nn.Module) -> nn.Module:
    """Initialise convolutions so that they keep variances (He et al. 2015).

    With torchvision's initial values and no batch norm, outputs hardly depend on inputs at first.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            module.bias = nn.Parameter(torch.zeros(module.out_channels))
    return network
