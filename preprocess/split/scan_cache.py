"""The saved scan of a source, beside the rows, so that a rerun of the same command does not scan again.

One file, rows/scan.bin: a first line with the stamp of the scan, a line of JSON, and the columns of each part,
compressed one by one. With another stamp, or damage, the source is scanned again.
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
from ..config import SplitConfig
from ..listing import Entries, Listing
from ..sources import Source, fingerprint

NAME = "rows/scan.bin"
_MAGIC = b"spectral-shards scan 3 "
_COLUMNS = (("lengths", "<i4"), ("offset", "<i8"), ("size", "<i8"), ("file", "<i4"))


def stamp(source: Source, config: SplitConfig) -> str:
    """Return a digest of the source's fingerprint and of the choice of its classes: equal for equal scans.

    It is empty if the source has no fingerprint; such a scan is not saved.
    """
    source_digest = fingerprint(source)
    if not source_digest:
        return ""
    classes = json.dumps([config.min_class_images, config.classes])
    return hashlib.sha256(f"{source_digest}\n{classes}".encode()).hexdigest()


def load(store: Store, stamp: str) -> Listing | None:
    """Return the listing that was saved under this stamp, or None."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error, zlib.error):
        if stamp and _is_saved(store, stamp):
            return unpack(store.read(NAME)[len(_MAGIC) + len(stamp) + 1 :])
    return None


def save(store: Store, listing: Listing, stamp: str) -> None:
    """Save a listing under its stamp, if it has one.

    A listing with files in folders below the class folders is not saved: they can change without a trace in the stamp.
    """
    deep = any(len(e) and e.offset[0] < 0 and b"/" in e.names for e in listing.parts.values())
    if stamp and not deep and not _is_saved(store, stamp):
        store.write(NAME, b"%s%s\n" % (_MAGIC, stamp.encode()) + pack(listing))


def _is_saved(store: Store, stamp: str) -> bool:
    try:
        return store.range(NAME, 0, len(_MAGIC) + len(stamp)) == _MAGIC + stamp.encode()
    except FileNotFoundError:
        return False


def pack(listing: Listing) -> bytes:
    """Return a listing as bytes; equal listings give equal bytes."""
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
    """Return the listing that `pack` was given.

    Raises:
        ValueError, KeyError, TypeError, struct.error, zlib.error: The bytes are damaged.
    """
    start = data.index(b"\n") + 1
    head = json.loads(data[:start])
    position = start

    def column(kind: str) -> NDArray[Any]:
        nonlocal position
        (size,) = struct.unpack_from("<Q", data, position)
        packed = memoryview(data)[position + 8 : position + 8 + size]
        position += 8 + size
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
