"""The published table as data: what was printed of every system, and what trains it here."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One printed system.

    factor: bands, 1 for a baseline.  size: pixels of the image's side that the bands are cut from.  classes: of the
    data set it was trained on.  printed_size: of one network, as printed, in MiB.  buffers: whether that counts batch
    norm's.  hours: of training, as printed, all bands; None where nothing is printed.
    """

    name: str
    network: str
    factor: int
    size: int
    classes: int
    recipe: str
    printed_size: float
    hours: float | None
    buffers: bool = False

    @property
    def plane(self) -> int:
        """Pixels of a side that the network sees."""
        return self.size // math.isqrt(self.factor)

    @property
    def split(self) -> str:
        """The folder of its split."""
        return f"sub{self.factor}" + ("-21k" if self.recipe == "imagenet21k" else "")

    @property
    def command(self) -> str:
        """What trains it."""
        where = f"--shards {self.split} --out runs/{self.network}-{self.split}"
        bands = "" if self.factor == 1 else " --bands all"
        return f"spectral-train {where}{bands} --network {self.network} --recipe {self.recipe}"


def _imagenet(name: str, network: str, factor: int, size: float, hours: float | None, buffers: bool = False) -> Row:
    return Row(name, network, factor, 336 if factor == 36 else 224, 1000, "imagenet1k", size, hours, buffers)


def _21k(name: str, network: str, factor: int, size: float, hours: float | None, buffers: bool = False) -> Row:
    return Row(name, network, factor, 336 if factor == 36 else 224, 10450, "imagenet21k", size, hours, buffers)


ROWS = (
    _imagenet("AlexNet", "alexnet", 1, 224, 40.8),
    _imagenet("spectral-AlexNet-sub4", "alexnet", 4, 37.73, 20.2),
    _imagenet("spectral-AlexNet-sub16", "alexnet", 16, 37.73, 9.7),
    _imagenet("VGG-16", "vgg16", 1, 527.79, 81.2),
    _imagenet("spectral-VGG-16-sub4", "vgg16", 4, 207.82, 44.14),
    _imagenet("spectral-VGG-16-sub16", "vgg16", 16, 128.05, 26.84),
    _imagenet("ResNet-34", "resnet34", 1, 83.15, 43.66),
    _imagenet("spectral-ResNet34-sub4", "resnet34", 4, 83.15, 281),
    _imagenet("spectral-ResNet34-sub16", "resnet34", 16, 83.15, 20.02),
    _imagenet("spectral-ResNet34-sub36", "resnet34", 36, 83.15, 20.02),
    _imagenet("ResNet-50", "resnet50", 1, 97.69, 43.8, buffers=True),
    _imagenet("spectral-ResNet50-sub4", "resnet50", 4, 97.69, 62.6, buffers=True),
    _imagenet("spectral-ResNet50-sub16", "resnet50", 16, 97.69, None, buffers=True),
    _21k("ResNet-34, 21K", "resnet34", 1, 122.35, 246),
    _21k("spectral-ResNet-34-sub36, 21K", "resnet34", 36, 122.35, 90),
    _21k("ResNet-50, 21K", "resnet50", 1, 171.56, None, buffers=True),
    _21k("spectral-ResNet-50-sub36, 21K", "resnet50", 36, 122.35, None, buffers=True),
)
