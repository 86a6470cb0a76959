"""The encoded images of a row, read in order; ahead of use where their source is far away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...shards_manifest.storage.prefetch import ahead
from ..errors import RejectedImage, SourceError
from ..listing import Entries
from ..sources import Source


@dataclass(frozen=True)
class Images:
    """Some samples of one part of a source. part, classes: as in its listing."""

    source: Source
    part: str
    classes: tuple[str, ...]
    entries: Entries

    def __len__(self) -> int:
        return len(self.entries)

    def read(self, i: int) -> bytes:
        """The encoded bytes of image i. Raises RejectedImage, StoreError, and SourceError, naming it."""
        class_name = self.classes[int(self.entries.label[i])]
        try:
            return self.source.read(self.part, class_name, self.entries, i)
        except OSError as error:  # not a reject: a disk that went away must not cost images
            key = f"{class_name}/{self.entries.name(i).decode('utf-8', 'backslashreplace')}"
            raise SourceError(
                f"cannot read {key} of the source ({error.strerror or error}): mend it and run again"
            ) from None

    def __iter__(self) -> Iterator[bytes | RejectedImage]:
        """Every image, or why it cannot be used. Raises StoreError, SourceError."""
        sizes = self.entries.size.clip(min=0).tolist()
        return ahead(self._outcome, zip(range(len(self)), sizes, strict=True), self.source.threads)

    def _outcome(self, i: int) -> bytes | RejectedImage:
        try:
            return self.read(i)
        except RejectedImage as reason:
            return reason
