"""What can go wrong while preparing, as one tree below shards_manifest.SpectralError.

SpectralError
├── PlanError               options that do not fit together, or do not fit the data
├── SourceError             a source that holds no usable data set
└── DestinationError        a destination that holds something else, or is in use
RejectedImage               one input left out, with the reason; never ends a run
"""

from __future__ import annotations

from shards_manifest import SpectralError


class PlanError(SpectralError):
    """Options that do not fit together, or do not fit the data."""


class SourceError(SpectralError):
    """A source folder that is missing, empty, or laid out in no known way."""


class DestinationError(SpectralError):
    """A destination that holds another split, or is being written by another process."""


class RejectedImage(Exception):  # noqa: N818 - a verdict on one input, caught where rows are written
    """One image cannot be used; the text is the reason that goes into rejects.jsonl."""
