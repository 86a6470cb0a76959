"""Errors while preparing, as one tree below shards_manifest.SpectralError.

SpectralError
├── ConfigError             options that do not fit together, or do not fit the data
├── SourceError             a source that holds no usable data set
│   └── UnlabelledError     a part of a source whose images have no labels
└── DestinationError        a destination that holds something else, or is in use
RejectedImage               one image that is left out, with the reason; never ends a run
└── UnlabelledImage         one image without a label
"""

from __future__ import annotations

from ..shards_manifest.errors import SpectralError


class ConfigError(SpectralError):
    """Options do not fit together, or do not fit the data."""


class SourceError(SpectralError):
    """A source is missing, empty, or laid out in no known way."""


class UnlabelledError(SourceError):
    """No image of a part has a label.

    Args:
        where: The part.
        images: Number of its images.
        reason: Why there is no label, for the first image or for all.
    """

    def __init__(self, where: object, images: int, reason: str) -> None:
        super().__init__(f"none of the {images} images of {where} has a label ({reason})")
        self.images = images


class DestinationError(SpectralError):
    """A destination holds another split, or another process writes to it."""


class RejectedImage(Exception):  # noqa: N818 - concerns one image and is caught where rows are written
    """One image cannot be used; the text is the reason that goes into rejects.jsonl."""


class UnlabelledImage(RejectedImage):
    """One image has no label, as in the test parts of contests."""
