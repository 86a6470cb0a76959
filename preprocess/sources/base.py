"""What every source is: the protocol, how the user names one, and what all forms have in common."""

from __future__ import annotations

import codecs
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ...shards_manifest.runtime.cli_runner import human_bytes
from ...shards_manifest.tables import escape
from ..errors import RejectedImage, SourceError
from ..listing import Entries, EntriesBuilder, Listing
from ..source_kinds import kind_words
from .class_names import check_distinct
from .path import Place, each

LARGEST_IMAGE = 256 * 2**20  # bytes of an encoded image; more is no photograph
LARGEST_LABEL = 1 << 20  # numbers of classes beyond it are taken for damage, not for a million classes
NO_IMAGES = "class without images"
HIDDEN = "hidden file"
HIDDEN_FOLDER = "hidden folder"

Reject = tuple[str, str]
OnProgress = Callable[[int], object]  # is told of so many more images, as they are found


def no_progress(images: int) -> None:
    """Told of what a scan finds where no one waits for it."""


class Source(Protocol):
    """The three things a source can do, and what runs need to go on where they stopped and to read ahead.

    Instances are small and picklable: workers get a copy. Wherever bytes are read, StoreError is raised for a server
    that refuses or is away.
    """

    def scan(self, found: OnProgress = no_progress) -> Listing:
        """List every sample. Raises SourceError, OSError."""
        ...

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """The encoded bytes of sample i. Raises OSError, RejectedImage."""
        ...

    def describe(self) -> dict[str, str]:
        """What stands in the manifest: the kind and the data set's name; no paths of this machine."""
        ...

    def reads(self) -> str:
        """What was recognised, for people: class folders in train/ and val/."""
        return kind_words(self.describe()["kind"])

    def unused(self) -> tuple[str, ...]:
        """Names of folders and files beside the parts that are left out; none for most."""
        return ()

    def files(self) -> Iterable[Place]:
        """The files and folders that show by name and stamp that another scan is due."""
        ...

    def stage(self) -> None:
        """Make ready for reading what can only be streamed; nothing to do for most. Raises SourceError."""
        return

    @property
    def threads(self) -> int:
        """Calls of `read` that are worth having under way at once."""
        return 1


@dataclass(frozen=True)
class SourceOptions:
    """What the user says of a source.

    kind: one of KINDS, empty to look.  val_labels: the list of labels, or the devkit, of flat validation images.
    scratch: folder for what has to be expanded, shared by all workers; None for a temporary one, empty where there
    is none that they share.  image_column, label_column: of Parquet files, empty to choose.
    """

    kind: str = ""
    val_labels: str | os.PathLike[str] | None = None
    scratch: str | os.PathLike[str] | None = None
    image_column: str = ""
    label_column: str = ""


def fingerprint(source: Source) -> str:
    """SHA-256 over the kind of a source and the names and stamps of its files; empty where one has no stamp.

    Folders of buckets have none: their list is all that there is, and it is the scan.
    """
    total = hashlib.sha256(repr(sorted(source.describe().items())).encode())
    files = list(source.files())
    threads = files[0].store.threads if files else 1
    if unused := source.unused():
        total.update(repr(unused).encode())
    for place, stamp in zip(files, each(Place.stamp, files, threads), strict=True):
        if not stamp:
            return ""
        total.update(os.fsencode(place.name) + f"\0{stamp}\n".encode())
    return total.hexdigest()


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


def decoded(data: bytes) -> str:
    """The text of a small file: UTF-8, or UTF-16 where a byte-order mark says so, as Windows writes it.

    The mark is left out; a byte that is not UTF-8 stays, as in file names. Raises ValueError for what is no text.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        found = data.decode("utf-16")
    else:
        found = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    if _CONTROL.search(found):
        raise ValueError("control characters")
    return found


def text_lines(data: bytes, where: object) -> list[str]:
    """The lines of a text file (see `decoded`), without what ends them. Raises SourceError, naming `where`."""
    try:
        lines = re.split("\r*\n|\r", decoded(data))
    except ValueError:
        raise SourceError(f"{where} is no text: save it as UTF-8, one entry a line") from None
    return lines if lines[-1] else lines[:-1]


_CONTROL = re.compile("[\0-\x08\x0e-\x1f]")  # but for white space: text has none, and nearly all else does


def made_listing(
    classes: Iterable[str], entries: Entries, rejects: list[Reject], where: object, numbered: bool = False
) -> Listing:
    """The listing of one part, classes without images named among the rejects.

    Raises SourceError if all are, or where the names of two classes print alike.
    """
    classes = tuple(classes)
    check_distinct(classes, where)
    if not len(entries):
        first = f"; the first reject is {rejects[0][0]}: {rejects[0][1]}" if rejects else ""
        held = f"{len(classes)} classes but no images" if classes else "no images"
        raise SourceError(f"{where} has {held}{first}")
    notes = _much_left_out(len(entries), rejects)
    counts = np.bincount(entries.label, minlength=len(classes))
    rejects = rejects + [(f"{classes[label]}/", NO_IMAGES) for label in np.flatnonzero(counts == 0)]
    escaped = tuple(sorted((escape(source), reason) for source, reason in rejects))
    return Listing(classes, {"train": entries}, escaped, numbered, notes=notes)


def _much_left_out(taken: int, rejects: list[Reject]) -> tuple[str, ...]:
    """A sentence where half of the inputs or more are rejects; hidden files aside, which are there by the hundred."""
    reasons = Counter(reason for _, reason in rejects if reason not in (HIDDEN, HIDDEN_FOLDER))
    if reasons.total() < taken:
        return ()
    (reason, most), *_ = reasons.most_common(1)
    return (f"{reasons.total()} of {taken + reasons.total()} inputs are left out, most often ({most}) for: {reason}",)


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
