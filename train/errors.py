"""What can go wrong while training, as one tree below shards_manifest.SpectralError.

SpectralError
├── TrainError              options, a band or a run folder that training cannot use
└── EnsembleError           runs that cannot be fused
"""

from __future__ import annotations

from ..shards_manifest.errors import SpectralError


class TrainError(SpectralError):
    """Options, a band or a run folder that training cannot use."""


class EnsembleError(SpectralError):
    """Runs that cannot be fused."""
