"""The samples of a scanned source, in columns: about 60 bytes a sample, so that many millions fit in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..shards_manifest.tables import escape

CHUNK = 1 << 16  # names that are Python objects at a time


@dataclass(frozen=True)
class Entries:
    """Samples in one order.

    Attributes:
        label: int32 (n,), number of the class.
        names: The file names as the system's bytes, one after another.
        ends: int64 (n,), where each name ends.
        offset: int64 (n,), first byte within a tar or another container; -1 for files.
        size: int64 (n,), bytes of the image; -1 if not known.
        file: int32 (n,), number of the container in the source; 0 if the class says which.
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
        """Return the file name of sample i, relative to its class."""
        return self.names[int(self.ends[i - 1]) if i else 0 : int(self.ends[i])]

    def names_at(self, indices: NDArray[np.int64]) -> list[bytes]:
        """Return the file names at `indices`."""
        ends = self.ends[indices].tolist()
        starts = np.where(indices > 0, self.ends[indices - 1], 0).tolist()
        return [self.names[start:end] for start, end in zip(starts, ends, strict=True)]

    def take(self, indices: NDArray[np.int64]) -> Entries:
        """Return the samples at `indices`, in that order."""
        pieces, ends = [], np.empty(len(indices), np.int64)
        for start in range(0, len(indices), CHUNK):
            names = self.names_at(indices[start : start + CHUNK])
            ends[start : start + CHUNK] = [len(name) for name in names]
            pieces.append(b"".join(names))
        np.cumsum(ends, out=ends)
        columns = (self.offset[indices], self.size[indices], self.file[indices])
        return Entries(self.label[indices], b"".join(pieces), ends, *columns)

    def prefixed(self, prefixes: Sequence[bytes]) -> Entries:
        """Return the same samples, with the prefix of its container before each name."""
        pieces = []
        for start in range(0, len(self), CHUNK):
            some = np.arange(start, min(start + CHUNK, len(self)))
            names = zip(self.names_at(some), self.file[some].tolist(), strict=True)
            pieces.append(b"".join(prefixes[file] + name for name, file in names))
        longer = np.array([len(prefix) for prefix in prefixes], np.int64)[self.file]
        return replace(self, names=b"".join(pieces), ends=self.ends + np.cumsum(longer))

    def by_class(self) -> tuple[NDArray[np.int64], int]:
        """Return the order int64 (n,) by class, then name, and the number of names that a class repeats."""
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
    """Collects samples class by class, or container by container.

    Args:
        progress: Called with the number of samples that were added.
    """

    def __init__(self, progress: Callable[[int], object] = lambda count: None) -> None:
        self._progress = progress
        self._names: list[bytes] = []
        self._columns: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []
        self._labels: list[NDArray[np.int32]] = []
        self._files: list[int] = []

    def add(self, label: int, images: Iterable[tuple[bytes, int, int]]) -> None:
        """Append the (name, offset, size) of one class, sorted by name."""
        self.add_rows((label, *image) for image in sorted(images))

    def add_rows(self, images: Iterable[tuple[int, bytes, int, int]], file: int = 0) -> None:
        """Append the (label, name, offset, size) of one container, in the order given."""
        rows = list(images)
        self._names.append(b"".join(row[1] for row in rows))
        lengths, offset, size = (
            np.fromiter(column, np.int64, len(rows))
            for column in ((len(row[1]) for row in rows), (row[2] for row in rows), (row[3] for row in rows))
        )
        self._columns.append((lengths, offset, size))
        self._labels.append(np.fromiter((row[0] for row in rows), np.int32, len(rows)))
        self._files.append(file)
        self._progress(len(rows))

    def build(self) -> Entries:
        """Return all samples. It empties the builder meanwhile, so that nothing is in memory twice."""
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
    """A scanned source.

    Attributes:
        classes: Names of the classes, by label, as the source has them.
        parts: The samples of 'train', and of 'val' if the source has one, sorted by class, then by name.
        rejects: (source, reason) of every input that is left out.
        numbered: The classes are known by number only.
        named_by_labels: The classes are the names that the labels are, sorted.
        spelled: For each part that spells classes in another way its own names for them, which its source reads by.
        notes: What the user should know about how the source was read, one sentence each.
    """

    classes: tuple[str, ...]
    parts: dict[str, Entries]
    rejects: tuple[tuple[str, str], ...]
    numbered: bool = False
    named_by_labels: bool = False
    spelled: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def key(self, entries: Entries, i: int) -> str:
        """Return the key of a sample: class/name, on one line."""
        return self.keys(entries, np.array([i]))[0]

    def keys(self, entries: Entries, indices: NDArray[np.int64]) -> list[str]:
        """Return the keys of the samples at `indices`: class/name, each on one line."""
        names = entries.names_at(indices)
        classes = [self.classes[label] for label in entries.label[indices].tolist()]
        return [
            escape(f"{class_name}/{name.decode('utf-8', 'surrogateescape')}")
            for class_name, name in zip(classes, names, strict=True)
        ]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes as manifests and tables have them: escaped."""
        return tuple(escape(name) for name in self.classes)

    def names_in(self, part: str) -> tuple[str, ...]:
        """Return the names of the classes as the source of a part spells them."""
        return self.spelled.get(part, self.classes)

    def in_part(self, part: str, key: str) -> str:
        """Return a key, with its part before it if the source has several parts."""
        return f"{part}/{key}" if len(self.parts) > 1 else key

    def relabelled(self, classes: tuple[str, ...], new: NDArray[np.int32]) -> Listing:
        """Return the same samples under other classes.

        Args:
            classes: Names of the new classes, by label.
            new: int32 (old classes,), the new label of each old class; -1 to drop it.
        """
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
        """Return a SHA-256 over classes, names and labels; it changes when the source gains or loses a sample."""
        total = hashlib.sha256("\n".join(self.class_names).encode())
        for part, entries in sorted(self.parts.items()):
            total.update(f"\n{part} {len(entries)}\n".encode())
            total.update(entries.names)
            total.update(entries.ends.astype("<i8").tobytes())
            total.update(entries.label.astype("<i4").tobytes())
        return total.hexdigest()
