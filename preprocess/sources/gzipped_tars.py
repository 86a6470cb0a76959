"""Tars compressed by gzip, which are expanded once and read as plain tars."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from isal import igzip, igzip_lib

from ...shards_manifest.tables import escape
from ..errors import SourceError
from ..listing import Entries, Listing
from .base import OnProgress, Source, no_progress
from .file_filter import system_folders
from .path import SourcePath
from .scratch import expanding, missing

PIECE = 4 * 2**20  # bytes that are expanded at a time
DAMAGED = cast("type[Exception]", igzip_lib.IsalError)


@dataclass(frozen=True)
class GzippedTars(Source):
    """Gzip-compressed tars, and the source that reads them once they are expanded.

    Attributes:
        kind: Kind that the manifest records: class-tars-gz or tar-of-tars-gz.
        pairs: Each .tar.gz, and the plain tar that it is expanded to.
        plain: The source of the plain tars.
    """

    kind: str
    pairs: tuple[tuple[SourcePath, Path], ...]
    plain: Source

    def scan(self, progress: OnProgress = no_progress) -> Listing:
        """Expand the tars that are not expanded yet, then scan the plain tars."""
        self.stage()
        listing = self.plain.scan(progress)
        if self.kind != "class-tars-gz":
            return listing
        known = {packed.name for packed, _ in self.pairs}
        strays = [(escape(name), "not in a class") for name in self.pairs[0][0].parent.files() if name not in known]
        strays += system_folders(self.pairs[0][0].parent)
        return replace(listing, rejects=tuple(sorted([*listing.rejects, *strays])))

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """Return the bytes of the image, from the plain tar."""
        return self.plain.read(part, class_name, entries, i)

    def describe(self) -> dict[str, str]:
        """Return the kind and the name."""
        return {**self.plain.describe(), "kind": self.kind}

    def files(self) -> Iterable[SourcePath]:
        """Return the compressed tars."""
        return [packed for packed, _ in self.pairs]

    def stage(self) -> None:
        """Expand one tar after another.

        Raises:
            SourceError: A tar is damaged, expands too far, or does not fit on the disk.
        """
        for packed, plain in missing(self.pairs):
            with expanding(packed, plain) as write:
                _gunzip(packed, write)


def _gunzip(packed: SourcePath, write: Callable[[bytes], None]) -> None:
    """Expand a .gz in pieces. Raises SourceError if it is damaged."""
    with packed.open() as raw:
        try:
            with igzip.open(raw, "rb") as file:  # type: ignore[no-untyped-call]
                while piece := file.read(PIECE):
                    write(piece)
        except (EOFError, gzip.BadGzipFile, DAMAGED) as error:
            raise SourceError(f"{packed} is not a complete gzip file ({error}): fetch it again") from None
