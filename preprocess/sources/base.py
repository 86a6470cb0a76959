"""What every source is: the protocol, how the user names one, and what all forms have in common."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from shards_manifest.console import human_bytes
from shards_manifest.tables import escape

from ..errors import RejectedImage, SourceError
from ..listing import Entries, EntriesBuilder, Listing

LARGEST_IMAGE = 256 * 2**20  # bytes of an encoded image; more is no photograph
LARGEST_LABEL = 1 << 20  # numbers of classes beyond it are taken for damage, not for a million classes
NO_IMAGES = "class without images"

Reject = tuple[str, str]


class Source(Protocol):
    """The three things a source can do, and two for a run that goes on where it stopped.

    Instances are small and picklable: workers get a copy.
    """

    def scan(self) -> Listing:
        """List every sample. Raises SourceError, OSError."""
        ...

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """The encoded bytes of sample i. Raises OSError, RejectedImage."""
        ...

    def describe(self) -> dict[str, str]:
        """What stands in the manifest: the kind and the data set's name; no paths of this machine."""
        ...

    def files(self) -> Iterable[Path]:
        """The files and folders that show by name, size or time that another scan is due."""
        ...

    def stage(self) -> None:
        """Make ready for reading what can only be streamed; nothing to do for most. Raises SourceError."""
        ...


@dataclass(frozen=True)
class SourceOptions:
    """What the user says of a source.

    kind: one of KINDS, empty to look.  val_labels: the list of labels, or the devkit, of a validation tar.
    scratch: folder for what has to be expanded, shared by all workers; None for a temporary one.
    """

    kind: str = ""
    val_labels: str | os.PathLike[str] | None = None
    scratch: str | os.PathLike[str] | None = None


def fingerprint(source: Source) -> str:
    """SHA-256 over the kind of a source and the names, sizes and times of change of its files.

    It misses what leaves all of these as they were: bytes rewritten in place with the time put back.
    """
    total = hashlib.sha256(repr(sorted(source.describe().items())).encode())
    for path in source.files():
        found = path.stat()
        size = 0 if path.is_dir() else found.st_size  # a folder's size is the file system's affair
        total.update(os.fsencode(path.name) + f"\0{size} {found.st_mtime_ns}\n".encode())
    return total.hexdigest()


def read_range(path: str | bytes | Path, offset: int, size: int) -> bytes:
    """`size` bytes of a file from `offset`. Raises OSError, also where it ends before."""
    descriptor = os.open(path, os.O_RDONLY)  # 20 us: nothing beside decoding
    try:
        data = os.pread(descriptor, size, offset)
        while 0 < len(data) < size:
            more = os.pread(descriptor, size - len(data), offset + len(data))
            if not more:
                break
            data += more
    finally:
        os.close(descriptor)
    if len(data) != size:
        raise OSError(f"{os.fsdecode(path)} is cut short")
    return data


def check_size(size: int) -> None:
    """Raises RejectedImage for a file that is too large for an image."""
    if size > LARGEST_IMAGE:
        raise RejectedImage(too_large(size))


def too_large(size: int) -> str:
    """The reason to leave out an image of so many bytes."""
    return f"{human_bytes(size)} are too much for an image (at most {human_bytes(LARGEST_IMAGE)})"


def hidden(name: bytes) -> bool:
    """True for files of the system's or an editor's: a piece of the path starts with a dot."""
    return any(piece.startswith(b".") and piece not in (b".", b"..") for piece in name.split(b"/"))


def text(name: bytes) -> str:
    """A file name as text that names the same file."""
    return name.decode("utf-8", "surrogateescape")


def made_listing(
    classes: Iterable[str], entries: Entries, rejects: list[Reject], where: object, numbered: bool = False
) -> Listing:
    """The listing of one part, classes without images named among the rejects. Raises SourceError if all are."""
    classes = tuple(classes)
    if not len(entries):
        first = f"; the first reject is {rejects[0][0]}: {rejects[0][1]}" if rejects else ""
        raise SourceError(f"{where} has {len(classes)} classes but no images{first}")
    counts = np.bincount(entries.label, minlength=len(classes))
    rejects = rejects + [(f"{classes[label]}/", NO_IMAGES) for label in np.flatnonzero(counts == 0)]
    escaped = tuple(sorted((escape(source), reason) for source, reason in rejects))
    return Listing(classes, {"train": entries}, escaped, numbered)


def numbered_classes(count: int) -> tuple[str, ...]:
    """Names for classes known by number only, padded so that they sort as numbers."""
    width = len(str(max(count - 1, 0)))
    return tuple(f"{number:0{width}d}" for number in range(count))


def built(builder: EntriesBuilder, stems: list[str]) -> Entries:
    """The samples in order of class and name; `stems` name their containers.

    Where containers repeat each other's names, all names get their container's before them: a data set may
    number its samples from 0 in every shard.
    """
    entries = builder.build()
    order, repeats = entries.by_class()
    if repeats:
        del order
        entries = entries.prefixed([os.fsencode(stem) + b"/" for stem in stems])
        order, _ = entries.by_class()
    return entries.take(order)
