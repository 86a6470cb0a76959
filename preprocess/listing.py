"""What a source holds, in columns: about 60 bytes a sample, so that many millions fit in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..shards_manifest.tables import escape

CHUNK = 1 << 16  # names under way as Python objects


@dataclass(frozen=True)
class Entries:
    """Samples in one order.

    label: int32 (n,), the class.  names: the file names, one after another, as the system's bytes.
    ends: int64 (n,), where each name ends.  offset, size: int64 (n,), the bytes within a tar or another
    container, -1 for files.  file: int32 (n,), which of the source's containers; 0 where that is clear.
    """

    label: NDArray[np.int32]
    names: bytes
    ends: NDArray[np.int64]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    file: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.label)

    def name(self, i: int) -> bytes:
        """The file name of sample i, relative to its class."""
        return self.names[int(self.ends[i - 1]) if i else 0 : int(self.ends[i])]

    def names_at(self, indices: NDArray[np.int64]) -> list[bytes]:
        """The file names at `indices`."""
        ends = self.ends[indices].tolist()
        starts = np.where(indices > 0, self.ends[indices - 1], 0).tolist()
        return [self.names[start:end] for start, end in zip(starts, ends, strict=True)]

    def take(self, indices: NDArray[np.int64]) -> Entries:
        """The samples at `indices`, in that order."""
        pieces, ends = [], np.empty(len(indices), np.int64)
        for start in range(0, len(indices), CHUNK):
            names = self.names_at(indices[start : start + CHUNK])
            ends[start : start + CHUNK] = [len(name) for name in names]
            pieces.append(b"".join(names))
        np.cumsum(ends, out=ends)
        columns = (self.offset[indices], self.size[indices], self.file[indices])
        return Entries(self.label[indices], b"".join(pieces), ends, *columns)

    def prefixed(self, prefixes: Sequence[bytes]) -> Entries:
        """The same samples, the name of each behind the prefix of its container."""
        pieces = []
        for start in range(0, len(self), CHUNK):
            some = np.arange(start, min(start + CHUNK, len(self)))
            names = zip(self.names_at(some), self.file[some].tolist(), strict=True)
            pieces.append(b"".join(prefixes[file] + name for name, file in names))
        longer = np.array([len(prefix) for prefix in prefixes], np.int64)[self.file]
        return replace(self, names=b"".join(pieces), ends=self.ends + np.cumsum(longer))

    def by_class(self) -> tuple[NDArray[np.int64], int]:
        """The order int64 (n,) by class, then name, ties as they are; and how many names a class repeats."""
        order = np.argsort(self.label, kind="stable").astype(np.int64)
        edges = np.flatnonzero(np.diff(self.label[order])) + 1
        repeats, start = 0, 0
        for end in [*edges.tolist(), len(order)]:
            names = self.names_at(order[start:end])
            repeats += len(names) - len(set(names))
            order[start:end] = order[start:end][sorted(range(len(names)), key=names.__getitem__)]
            start = end
        return order, repeats


class EntriesBuilder:
    """Collects samples class by class, or container by container."""

    def __init__(self, found: Callable[[int], object] = lambda count: None) -> None:
        self._found = found  # told of how many were added
        self._names: list[bytes] = []
        self._columns: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []
        self._labels: list[NDArray[np.int32]] = []
        self._files: list[int] = []

    def add(self, label: int, found: Iterable[tuple[bytes, int, int]]) -> None:
        """Append the (name, offset, size) of one class, sorted by name."""
        self.add_rows((label, *row) for row in sorted(found))

    def add_rows(self, found: Iterable[tuple[int, bytes, int, int]], file: int = 0) -> None:
        """Append the (label, name, offset, size) of one container, as they come."""
        rows = list(found)
        self._names.append(b"".join(row[1] for row in rows))
        lengths, offset, size = (
            np.fromiter(column, np.int64, len(rows))
            for column in ((len(row[1]) for row in rows), (row[2] for row in rows), (row[3] for row in rows))
        )
        self._columns.append((lengths, offset, size))
        self._labels.append(np.fromiter((row[0] for row in rows), np.int32, len(rows)))
        self._files.append(file)
        self._found(len(rows))

    def build(self) -> Entries:
        """All samples added so far. Empties the builder as it goes: at this size nothing is held twice."""
        counts = [len(labels) for labels in self._labels]
        file = np.repeat(np.array(self._files, np.int32), counts)
        label = np.concatenate([np.empty(0, np.int32), *self._labels])
        self._labels.clear()
        lengths, offset, size = (np.empty(len(label), np.int64) for _ in range(3))
        end = len(label)
        while self._columns:
            columns = self._columns.pop()
            start = end - len(columns[0])
            lengths[start:end], offset[start:end], size[start:end] = columns
            end = start
        names = b"".join(self._names)
        self._names.clear()
        self._files.clear()
        return Entries(label, names, np.cumsum(lengths, out=lengths), offset, size, file)


@dataclass(frozen=True)
class Listing:
    """A scanned source: classes in label order, the samples of each part, and what was left out.

    classes: the names as the source has them; where `numbered`, only the numbers that its labels are; where
    `named_by_labels`, the names that its labels are, sorted.
    parts: 'train', and 'val' where the source has one; sorted by class, then by name.
    rejects: (source, reason) of every input that is no candidate.
    spelled: of each part that spells classes in another way, its own names for them, which its source reads by.
    notes: what the user should know of how the source was read, a sentence each.
    """

    classes: tuple[str, ...]
    parts: dict[str, Entries]
    rejects: tuple[tuple[str, str], ...]
    numbered: bool = False
    named_by_labels: bool = False
    spelled: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def key(self, entries: Entries, i: int) -> str:
        """The key of a sample: class/name, on one line."""
        return self.keys(entries, np.array([i]))[0]

    def keys(self, entries: Entries, indices: NDArray[np.int64]) -> list[str]:
        """The keys of the samples at `indices`: class/name, each on one line."""
        names = entries.names_at(indices)
        classes = [self.classes[label] for label in entries.label[indices].tolist()]
        return [
            escape(f"{class_name}/{name.decode('utf-8', 'surrogateescape')}")
            for class_name, name in zip(classes, names, strict=True)
        ]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes as manifests and tables show them: escaped."""
        return tuple(escape(name) for name in self.classes)

    def names_in(self, part: str) -> tuple[str, ...]:
        """The classes as the source of a part spells them."""
        return self.spelled.get(part, self.classes)

    def in_part(self, part: str, key: str) -> str:
        """A key that says its part where the source has several."""
        return f"{part}/{key}" if len(self.parts) > 1 else key

    def relabelled(self, classes: tuple[str, ...], new: NDArray[np.int32]) -> Listing:
        """The same samples under other `classes`: new, int32 (classes before,), has the label of each, -1 to drop."""
        parts = {}
        for part, entries in self.parts.items():
            label = new[entries.label]
            picked = np.flatnonzero(label >= 0)
            if len(picked) < len(label) or (np.diff(label) < 0).any():
                picked = picked[np.argsort(label[picked], kind="stable")]
                parts[part] = replace(entries.take(picked), label=label[picked])
            else:
                parts[part] = replace(entries, label=label)
        spelled = {}
        for part, names in self.spelled.items():
            own = {label: name for label, name in zip(new.tolist(), names, strict=True) if label >= 0}
            spelled[part] = tuple(own.get(label, name) for label, name in enumerate(classes))
        return replace(self, classes=classes, parts=parts, numbered=False, spelled=spelled)

    def digest(self) -> str:
        """SHA-256 over classes, names and labels: changes when the source gains or loses a sample."""
        total = hashlib.sha256("\n".join(self.class_names).encode())
        for part, entries in sorted(self.parts.items()):
            total.update(f"\n{part} {len(entries)}\n".encode())
            total.update(entries.names)
            total.update(entries.ends.astype("<i8").tobytes())
            total.update(entries.label.astype("<i4").tobytes())
        return total.hexdigest()
