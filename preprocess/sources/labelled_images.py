"""Validation images without class folders, in a tar or a folder; their labels are elsewhere (val_labels.py)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import SourceError
from ..listing import Entries, EntriesBuilder, Listing
from .base import (
    HIDDEN,
    LARGEST_LABEL,
    OnProgress,
    Reject,
    Source,
    is_hidden,
    name_text,
    no_progress,
    numbered_classes,
    part_listing,
)
from .class_folders import read_file
from .file_filter import FileFilter
from .path import SourcePath
from .tar_reader import ImageSpan, list_images, open_range
from .val_labels import META, TRUTH, data_folder, file_stem, read_labels


@dataclass(frozen=True)
class LabelledTar(Source):
    """One tar of images, as ILSVRC2012_img_val.tar, and where their labels are.

    Attributes:
        name: Name of the data set.
        path: The tar.
        labels: The list of labels, or the devkit.
    """

    name: str
    path: SourcePath
    labels: SourcePath

    def scan(self, progress: OnProgress = no_progress) -> Listing:
        """List the members and look up their classes: names, or numbers if the list has numbers."""
        rejects: list[Reject] = []
        with open_range(self.path) as file:
            members = list_images(file, str(self.path), "", rejects)
        named = ((path, (os.path.basename(path), offset, size)) for path, offset, size in members)
        return _labelled(self.labels, named, rejects, self.path, progress)

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """Return the bytes of the member, by its offset."""
        return self.path.range(int(entries.offset[i]), int(entries.size[i]))

    def describe(self) -> dict[str, str]:
        """Return the kind and the name."""
        return {"kind": "labelled-tar", "name": self.name}

    def files(self) -> Iterable[SourcePath]:
        """Return the tar and the labels."""
        return [self.path, *_label_files(self.labels)]

    @property
    def threads(self) -> int:
        """The requests that the store can serve at once."""
        return self.path.store.threads


@dataclass(frozen=True)
class LabelledFolder(Source):
    """One folder of images, and where their labels are.

    Attributes:
        name: Name of the data set.
        root: The folder.
        labels: The list of labels, or the devkit.
    """

    name: str
    root: SourcePath
    labels: SourcePath

    def scan(self, progress: OnProgress = no_progress) -> Listing:
        """List the files and look up their classes: names, or numbers if the list has numbers."""
        rejects: list[Reject] = []
        file_filter = FileFilter("")
        named: list[tuple[bytes, ImageSpan]] = []
        for name, size in self.root.walk():
            path = os.fsencode(name)
            if file_filter.in_system_folder(path):
                continue
            if is_hidden(path):
                rejects.append((name, HIDDEN))
            elif (self.root / name).key != self.labels.key and file_filter.accepts(path):
                named.append((path, (path, -1, size)))
        rejects += file_filter.rejects()
        return _labelled(self.labels, sorted(named), rejects, self.root, progress)

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """Return the bytes of the file."""
        return read_file(self.root / name_text(entries.name(i)), int(entries.size[i]))

    def describe(self) -> dict[str, str]:
        """Return the kind and the name."""
        return {"kind": "labelled-folder", "name": self.name}

    def files(self) -> Iterable[SourcePath]:
        """Return the folder and the labels."""
        return [self.root, *_label_files(self.labels)]

    @property
    def threads(self) -> int:
        """The requests that the store can serve at once."""
        return self.root.store.threads


def _labelled(
    labels: SourcePath,
    named: Iterable[tuple[bytes, ImageSpan]],
    rejects: list[Reject],
    where: SourcePath,
    progress: OnProgress,
) -> Listing:
    """Return the listing of images under the classes of a list.

    Args:
        labels: The list of labels, or the devkit.
        named: Each image with the path that the rejects show.
        rejects: What is left out for other reasons than its label.
        where: The images, for messages.
        progress: Called with the number of images.
    """
    wanted = read_labels(labels)
    numbered = all(label.isdecimal() for label in wanted.values())
    if numbered:
        largest = max(map(int, wanted.values()))
        if largest >= LARGEST_LABEL:
            raise SourceError(f"{labels} has the label {largest}, which is no index of a class")
        classes = numbered_classes(largest + 1)
        index = {label: int(label) for label in set(wanted.values())}
    else:
        classes = tuple(sorted(set(wanted.values())))
        index = {label: number for number, label in enumerate(classes)}
    rows: dict[bytes, tuple[int, bytes, int, int]] = {}
    seen: set[str] = set()
    for path, image in named:
        stem = file_stem(name_text(image[0]))
        label = wanted.get(stem)
        if label is None or image[0] in rows:
            reason = "a second image of this name" if label else f"no label in {labels.name}"
            rejects.append((name_text(path), reason))
        else:
            seen.add(stem)
            rows[image[0]] = (index[label], *image)
    if seen and len(seen) < len(wanted):
        first = min(wanted.keys() - seen)
        rejects.append((labels.name, f"{len(wanted) - len(seen)} of its {len(wanted)} images are missing, as {first}"))
    builder = EntriesBuilder(progress)
    builder.add_rows(rows.values())
    entries = builder.build()
    return part_listing(classes, entries.take(entries.by_class()[0]), rejects, where, numbered)


def _label_files(labels: SourcePath) -> tuple[SourcePath, ...]:
    """Return the files that labels are read from."""
    data = data_folder(labels)
    return (data / TRUTH, data / META) if data else (labels,)
