"""What a source is, and what all forms of sources have in common."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np

from ...shards_manifest.runtime.cli_runner import human_bytes
from ...shards_manifest.tables import escape
from ..errors import RejectedImage, SourceError
from ..listing import Entries, EntriesBuilder, Listing
from ..source_kinds import kind_words
from .class_names import check_distinct
from .path import SourcePath, map_in_order

LARGEST_IMAGE = 256 * 2**20  # bytes of an encoded image; no photograph is larger
LARGEST_LABEL = 1 << 20  # larger class numbers are taken for damage
NO_IMAGES = "class without images"
HIDDEN = "hidden file"
HIDDEN_FOLDER = "hidden folder"

Reject = tuple[str, str]  # what is left out, and the reason
OnProgress = Callable[[int], object]  # called with the number of images found since the last call


def no_progress(images: int) -> None:
    """Ignore the progress of a scan."""


class Source(Protocol):
    """A data set of images that can be listed once and then read at random.

    Sources are small and can be pickled: each worker gets a copy. Every method that reads bytes raises StoreError if a
    server refuses or cannot be reached.
    """

    def scan(self, progress: OnProgress = no_progress) -> Listing:
        """List every sample. Raises SourceError, OSError."""
        ...

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """Return the encoded bytes of sample i. Raises OSError, RejectedImage."""
        ...

    def describe(self) -> dict[str, str]:
        """Return what the manifest records: the kind and the data set's name, but no paths of this machine."""
        ...

    def reads(self) -> str:
        """Return what was recognised, for people: class folders in train/ and val/."""
        return kind_words(self.describe()["kind"])

    def unused(self) -> tuple[str, ...]:
        """Return the names of folders and files beside the parts that are not used."""
        return ()

    def files(self) -> Iterable[SourcePath]:
        """Return the files and folders whose names and stamps change when the source has to be scanned again."""
        ...

    def stage(self) -> None:
        """Expand what can only be read as a stream; most sources do nothing. Raises SourceError."""
        return

    @property
    def threads(self) -> int:
        """Calls of `read` that are worth making at once."""
        return 1


def fingerprint(source: Source) -> str:
    """Return a SHA-256 over the kind of a source and the names and stamps of its files.

    It is empty if a file has no stamp. Folders in buckets have none: to list them is to scan them.
    """
    total = hashlib.sha256(repr(sorted(source.describe().items())).encode())
    files = list(source.files())
    threads = files[0].store.threads if files else 1
    if unused := source.unused():
        total.update(repr(unused).encode())
    for path, stamp in zip(files, map_in_order(SourcePath.stamp, files, threads), strict=True):
        if not stamp:
            return ""
        total.update(os.fsencode(path.name) + f"\0{stamp}\n".encode())
    return total.hexdigest()


def check_size(size: int) -> None:
    """Raise RejectedImage if a file of so many bytes is too large for an image."""
    if size > LARGEST_IMAGE:
        raise RejectedImage(too_large(size))


def too_large(size: int) -> str:
    """Return the reason to reject an image of so many bytes."""
    return f"{human_bytes(size)} are too much for an image (at most {human_bytes(LARGEST_IMAGE)})"


def is_hidden(name: bytes) -> bool:
    """Return whether a piece of a path starts with a dot, as files of systems and editors do."""
    return any(piece.startswith(b".") and piece not in (b".", b"..") for piece in name.split(b"/"))


def name_text(name: bytes) -> str:
    """Return a file name as text that names the same file."""
    return name.decode("utf-8", "surrogateescape")


def numbered_classes(count: int) -> tuple[str, ...]:
    """Return names for classes that are known by number only, padded so that they sort as numbers."""
    width = len(str(max(count - 1, 0)))
    return tuple(f"{number:0{width}d}" for number in range(count))


def build_entries(builder: EntriesBuilder, stems: list[str]) -> Entries:
    """Return the samples in order of class and name.

    A data set may number its samples from 0 in every shard. If containers repeat names, all names get the name of
    their container before them.

    Args:
        builder: The samples.
        stems: Names of the containers, by Entries.file.
    """
    entries = builder.build()
    order, repeats = entries.by_class()
    if repeats:
        del order
        entries = entries.prefixed([os.fsencode(stem) + b"/" for stem in stems])
        order, _ = entries.by_class()
    return entries.take(order)


def part_listing(
    classes: Iterable[str], entries: Entries, rejects: list[Reject], where: object, numbered: bool = False
) -> Listing:
    """Return the listing of one part. Classes without images are added to the rejects.

    Args:
        classes: Names of the classes, by label.
        entries: The samples.
        rejects: What is left out.
        where: The part, for messages.
        numbered: The classes are known by number only.

    Raises:
        SourceError: There are no images, or the names of two classes print alike.
    """
    classes = tuple(classes)
    check_distinct(classes, where)
    if not len(entries):
        first = f"; the first reject is {rejects[0][0]}: {rejects[0][1]}" if rejects else ""
        content = f"{len(classes)} classes but no images" if classes else "no images"
        raise SourceError(f"{where} has {content}{first}")
    notes = _note_many_rejects(len(entries), rejects)
    counts = np.bincount(entries.label, minlength=len(classes))
    rejects = rejects + [(f"{classes[label]}/", NO_IMAGES) for label in np.flatnonzero(counts == 0)]
    escaped = tuple(sorted((escape(source), reason) for source, reason in rejects))
    return Listing(classes, {"train": entries}, escaped, numbered, notes=notes)


def _note_many_rejects(taken: int, rejects: list[Reject]) -> tuple[str, ...]:
    """Return a sentence if half of the inputs or more are rejected, not counting hidden files."""
    reasons = Counter(reason for _, reason in rejects if reason not in (HIDDEN, HIDDEN_FOLDER))
    if reasons.total() < taken:
        return ()
    (reason, most), *_ = reasons.most_common(1)
    return (f"{reasons.total()} of {taken + reasons.total()} inputs are left out, most often ({most}) for: {reason}",)
