"""The encoded images of a row, read in order, and ahead of use where the source is far away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...shards_manifest.storage.prefetch import ahead
from ..errors import RejectedImage, SourceError
from ..listing import Entries
from ..sources import Source


@dataclass(frozen=True)
class EncodedImages:
    """Some samples of one part of a source, as they are encoded.

    Attributes:
        source: The source.
        part: The part, as in the listing of the source.
        classes: Names of the classes, as the source spells them in this part.
        entries: The samples.
    """

    source: Source
    part: str
    classes: tuple[str, ...]
    entries: Entries

    def __len__(self) -> int:
        return len(self.entries)

    def read(self, i: int) -> bytes:
        """Read the encoded bytes of image i.

        Raises:
            SourceError: The image cannot be read; the sentence names it.
            RejectedImage, StoreError
        """
        class_name = self.classes[int(self.entries.label[i])]
        try:
            return self.source.read(self.part, class_name, self.entries, i)
        except OSError as error:  # not a reject: a disk that went away must not cost images
            key = f"{class_name}/{self.entries.name(i).decode('utf-8', 'backslashreplace')}"
            raise SourceError(
                f"cannot read {key} of the source ({error.strerror or error}): mend it and run again"
            ) from None

    def __iter__(self) -> Iterator[bytes | RejectedImage]:
        """Yield each image, or why it cannot be used. Raises StoreError, SourceError."""
        sizes = self.entries.size.clip(min=0).tolist()
        return ahead(self._read_or_reject, zip(range(len(self)), sizes, strict=True), self.source.threads)

    def _read_or_reject(self, i: int) -> bytes | RejectedImage:
        try:
            return self.read(i)
        except RejectedImage as reason:
            return reason
