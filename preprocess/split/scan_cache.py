"""The saved scan of a source, beside the rows: a rerun of the same command does not scan again.

One file, rows/scan.bin: a headline with the stamp that it was made under, a line of JSON, and the columns of
each part, compressed one by one. Whoever finds another stamp, or damage, scans again.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...shards_manifest.storage.base import Store
from ..config import SplitPlan
from ..listing import Entries, Listing
from ..sources import Source, fingerprint

NAME = "rows/scan.bin"
_MAGIC = b"spectral-shards scan 3 "
_COLUMNS = (("lengths", "<i4"), ("offset", "<i8"), ("size", "<i8"), ("file", "<i4"))


def stamp(source: Source, plan: SplitPlan) -> str:
    """What a saved scan must have been made under: the source's fingerprint, and the choice of its classes.

    Empty where the source has no fingerprint: its scan is not saved.
    """
    found = fingerprint(source)
    if not found:
        return ""
    chosen = json.dumps([plan.min_class_images, plan.classes])
    return hashlib.sha256(f"{found}\n{chosen}".encode()).hexdigest()


def load(store: Store, stamp: str) -> Listing | None:
    """The listing that was saved under this stamp, or None."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error, zlib.error):
        if stamp and _is_saved(store, stamp):
            return unpack(store.read(NAME)[len(_MAGIC) + len(stamp) + 1 :])
    return None


def save(store: Store, listing: Listing, stamp: str) -> None:
    """Save a listing under its stamp, if it has one; not where a folder below a class could change unseen."""
    deep = any(len(e) and e.offset[0] < 0 and b"/" in e.names for e in listing.parts.values())
    if stamp and not deep and not _is_saved(store, stamp):
        store.write(NAME, b"%s%s\n" % (_MAGIC, stamp.encode()) + pack(listing))


def _is_saved(store: Store, stamp: str) -> bool:
    try:
        return store.range(NAME, 0, len(_MAGIC) + len(stamp)) == _MAGIC + stamp.encode()
    except FileNotFoundError:
        return False


def pack(listing: Listing) -> bytes:
    """A listing as bytes, equal for equal listings."""
    head: dict[str, Any] = {
        "classes": listing.classes,
        "rejects": listing.rejects,
        "numbered": listing.numbered,
        "named_by_labels": listing.named_by_labels,
        "spelled": listing.spelled,
        "notes": listing.notes,
        "parts": sorted(listing.parts),
    }
    pieces = [json.dumps(head).encode() + b"\n"]
    for part in head["parts"]:
        for column in _columns(listing.parts[part]):
            packed = zlib.compress(column, 1)
            pieces += [struct.pack("<Q", len(packed)), packed]
    return b"".join(pieces)


def unpack(data: bytes) -> Listing:
    """The listing of `pack`. Raises ValueError, KeyError, TypeError, struct.error or zlib.error at damage."""
    start = data.index(b"\n") + 1
    head = json.loads(data[:start])
    place = start

    def column(kind: str) -> NDArray[Any]:
        nonlocal place
        (size,) = struct.unpack_from("<Q", data, place)
        packed = memoryview(data)[place + 8 : place + 8 + size]
        place += 8 + size
        return np.frombuffer(zlib.decompress(packed), kind)

    parts = {}
    for part in head["parts"]:
        names = column("u1").tobytes()
        label = column("<i4").astype(np.int32)
        lengths, offset, size, file = (column(kind) for _, kind in _COLUMNS)
        if len({len(label), len(lengths), len(offset), len(size), len(file)}) > 1 or lengths.sum() != len(names):
            raise ValueError("columns of different lengths")
        parts[part] = Entries(label, names, np.cumsum(lengths, dtype=np.int64), offset, size, file)
    rejects = tuple((source, reason) for source, reason in head["rejects"])
    return Listing(
        tuple(head["classes"]),
        parts,
        rejects,
        bool(head["numbered"]),
        bool(head["named_by_labels"]),
        {part: tuple(names) for part, names in head["spelled"].items()},
        tuple(head["notes"]),
    )


def _columns(entries: Entries) -> Iterator[bytes]:
    yield entries.names
    yield entries.label.astype("<i4").tobytes()
    columns = {"lengths": np.diff(entries.ends, prepend=0), **{n: getattr(entries, n) for n, _ in _COLUMNS[1:]}}
    for name, kind in _COLUMNS:
        yield columns[name].astype(kind).tobytes()
