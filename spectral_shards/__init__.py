"""Image classifiers as ensembles of small spectral sub-networks, from Python.

Everything here is loaded when it is first used: `import spectral_shards` needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers: what _MODULES loads
    from .preprocess.inspection.reconstruct import reconstruct_images
    from .shards_manifest.dataset import Band, Bands, Split, open_band, open_bands, open_split
    from .shards_manifest.errors import SpectralError
    from .shards_manifest.manifest import BandManifest, SplitManifest
    from .train.augment.planes import BandAugmentation
    from .train.data.loader import BandLoader, LoaderOptions
    from .train.ensemble.scoring import EnsembleReport, fuse_runs
    from .train.networks import build_network
    from .train.runs.checkpoint import Checkpoint, load_checkpoint, load_network

__all__ = [
    "Band",
    "BandAugmentation",
    "BandLoader",
    "BandManifest",
    "Bands",
    "Checkpoint",
    "EnsembleReport",
    "LoaderOptions",
    "SpectralError",
    "Split",
    "SplitManifest",
    "build_network",
    "fuse_runs",
    "load_checkpoint",
    "load_network",
    "open_band",
    "open_bands",
    "open_split",
    "reconstruct_images",
]

_MODULES = {
    "preprocess.inspection.reconstruct": ("reconstruct_images",),
    "shards_manifest.dataset": ("Band", "Bands", "Split", "open_band", "open_bands", "open_split"),
    "shards_manifest.errors": ("SpectralError",),
    "shards_manifest.manifest": ("BandManifest", "SplitManifest"),
    "train.augment.planes": ("BandAugmentation",),
    "train.data.loader": ("BandLoader", "LoaderOptions"),
    "train.ensemble.scoring": ("EnsembleReport", "fuse_runs"),
    "train.networks": ("build_network",),
    "train.runs.checkpoint": ("Checkpoint", "load_checkpoint", "load_network"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value  # the next time without a detour
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
