"""What can go wrong while training, as one tree below shards_manifest.SpectralError.

SpectralError
├── TrainError              options, a band or a run folder that training cannot use
└── EnsembleError           runs that cannot be fused
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..shards_manifest.errors import SpectralError

TRAIN_EXTRA = ("torch", "torchvision", "matplotlib", "plotly", "tomli")  # what `pip install .` alone does not install


class TrainError(SpectralError):
    """Options, a band or a run folder that training cannot use."""


class EnsembleError(SpectralError):
    """Runs that cannot be fused."""


@contextmanager
def needs_train_extra() -> Iterator[None]:
    """Run a block that imports packages of the extra `train`.

    Raises:
        TrainError: if one of them is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in TRAIN_EXTRA:
            raise
        raise TrainError(f"the package {package} is not installed: pip install 'spectral-shards[train]'") from None
