"""What a source holds, in columns: about 50 bytes a sample, so that millions fit in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards_manifest.tables import escape


@dataclass(frozen=True)
class Entries:
    """Samples in one order.

    label: int32 (n,), the class.  names: the file names, one after another, as the system's bytes.
    ends: int64 (n,), where each name ends.  offset, size: int64 (n,), the bytes within the class's tar;
    -1 for files.
    """

    label: NDArray[np.int32]
    names: bytes
    ends: NDArray[np.int64]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.label)

    def name(self, i: int) -> bytes:
        """The file name of sample i, relative to its class."""
        return self.names[int(self.ends[i - 1]) if i else 0 : int(self.ends[i])]

    def take(self, indices: NDArray[np.int64]) -> Entries:
        """The samples at `indices`, in that order."""
        names = [self.name(int(i)) for i in indices]
        ends = np.cumsum([len(name) for name in names], dtype=np.int64)
        return Entries(self.label[indices], b"".join(names), ends, self.offset[indices], self.size[indices])


class EntriesBuilder:
    """Collects samples class by class."""

    def __init__(self) -> None:
        self._labels: list[int] = []
        self._names: list[bytes] = []
        self._columns: list[NDArray[np.int64]] = []

    def add(self, label: int, found: Iterable[tuple[bytes, int, int]]) -> None:
        """Append the (name, offset, size) of one class, sorted by name."""
        ordered = sorted(found)
        self._labels.append(label)
        self._names.append(b"".join(name for name, _, _ in ordered))
        rows = [(len(name), offset, size) for name, offset, size in ordered]
        self._columns.append(np.array(rows, np.int64).reshape(-1, 3))

    def build(self) -> Entries:
        """All samples added so far."""
        lengths, offset, size = np.concatenate([np.empty((0, 3), np.int64), *self._columns]).T
        label = np.repeat(np.array(self._labels, np.int32), [len(column) for column in self._columns])
        return Entries(label, b"".join(self._names), np.cumsum(lengths), offset.copy(), size.copy())


@dataclass(frozen=True)
class Listing:
    """A scanned source: classes in label order, the samples of each part, and what was left out.

    classes: the names as the source has them.
    parts: 'train', and 'val' where the source has one; sorted by class, then by name.
    rejects: (source, reason) of every input that is no candidate.
    """

    classes: tuple[str, ...]
    parts: dict[str, Entries]
    rejects: tuple[tuple[str, str], ...]

    def key(self, entries: Entries, i: int) -> str:
        """The key of a sample: class/name, on one line."""
        name = entries.name(i).decode("utf-8", "surrogateescape")
        return escape(f"{self.classes[int(entries.label[i])]}/{name}")

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes as manifests and tables show them: escaped."""
        return tuple(escape(name) for name in self.classes)

    def in_part(self, part: str, key: str) -> str:
        """A key that says its part where the source has several."""
        return f"{part}/{key}" if len(self.parts) > 1 else key

    def digest(self) -> str:
        """SHA-256 over classes, names and labels: changes when the source gains or loses a sample."""
        total = hashlib.sha256("\n".join(self.class_names).encode())
        for part, entries in sorted(self.parts.items()):
            total.update(f"\n{part} {len(entries)}\n".encode())
            total.update(entries.names)
            total.update(entries.ends.astype("<i8").tobytes())
            total.update(entries.label.astype("<i4").tobytes())
        return total.hexdigest()
