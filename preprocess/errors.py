"""What can go wrong while preparing, as one tree below shards_manifest.SpectralError.

SpectralError
├── PlanError               options that do not fit together, or do not fit the data
├── SourceError             a source that holds no usable data set
│   └── UnlabelledError     a part of one whose images have no labels
└── DestinationError        a destination that holds something else, or is in use
RejectedImage               one input left out, with the reason; never ends a run
└── UnlabelledImage         one that has no label
"""

from __future__ import annotations

from ..shards_manifest.errors import SpectralError


class PlanError(SpectralError):
    """Options that do not fit together, or do not fit the data."""


class SourceError(SpectralError):
    """A source folder that is missing, empty, or laid out in no known way."""


class UnlabelledError(SourceError):
    """A part none of whose `images` has a label. reason: why, of the first or of all."""

    def __init__(self, where: object, images: int, reason: str) -> None:
        super().__init__(f"none of the {images} images of {where} has a label ({reason})")
        self.images = images


class DestinationError(SpectralError):
    """A destination that holds another split, or is being written by another process."""


class RejectedImage(Exception):  # noqa: N818 - a verdict on one input, caught where rows are written
    """One image cannot be used; the text is the reason that goes into rejects.jsonl."""


class UnlabelledImage(RejectedImage):
    """One image has no label, as in the test parts of contests."""
