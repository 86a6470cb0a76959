"""Images that lie flat, without classes, in a tar or a folder; their labels lie elsewhere (label_lists.py)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import SourceError
from ..listing import Entries, EntriesBuilder, Listing
from .base import LARGEST_LABEL, OnProgress, Reject, Source, hidden, made_listing, no_progress, numbered_classes, text
from .class_folders import read_file
from .file_names import Candidates
from .label_files import META, TRUTH, data_folder, file_stem, read_labels
from .path import Place
from .tar_reader import Image, images, window


@dataclass(frozen=True)
class LabelledTar(Source):
    """One flat tar of images, as ILSVRC2012_img_val.tar, and where their labels are."""

    name: str
    path: Place
    labels: Place

    def scan(self, found: OnProgress = no_progress) -> Listing:
        """Index the members and look up their classes: names, or numbers where the list has numbers."""
        rejects: list[Reject] = []
        with window(self.path) as file:
            members = images(file, str(self.path), "", rejects)
        named = ((path, (os.path.basename(path), offset, size)) for path, offset, size in members)
        return _labelled(self.labels, named, rejects, self.path, found)

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """The member's bytes, by its offset."""
        return self.path.range(int(entries.offset[i]), int(entries.size[i]))

    def describe(self) -> dict[str, str]:
        """Kind and name."""
        return {"kind": "labelled-tar", "name": self.name}

    def files(self) -> Iterable[Place]:
        """The tar, and the labels."""
        return [self.path, *_label_files(self.labels)]

    @property
    def threads(self) -> int:
        """Those of the store."""
        return self.path.store.threads


@dataclass(frozen=True)
class LabelledFolder(Source):
    """One folder of images, and where their labels are."""

    name: str
    root: Place
    labels: Place

    def scan(self, found: OnProgress = no_progress) -> Listing:
        """List the files and look up their classes: names, or numbers where the list has numbers."""
        rejects: list[Reject] = []
        candidates = Candidates("")
        named: list[tuple[bytes, Image]] = []
        for name, size in self.root.walk():
            path = os.fsencode(name)
            if candidates.in_system_folder(path):
                continue
            if hidden(path):
                rejects.append((name, "hidden file"))
            elif (self.root / name).key != self.labels.key and candidates.takes(path):
                named.append((path, (path, -1, size)))
        rejects += candidates.rejects()
        return _labelled(self.labels, sorted(named), rejects, self.root, found)

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """The file's bytes."""
        return read_file(self.root / text(entries.name(i)), int(entries.size[i]))

    def describe(self) -> dict[str, str]:
        """Kind and name."""
        return {"kind": "labelled-folder", "name": self.name}

    def files(self) -> Iterable[Place]:
        """The folder, and the labels."""
        return [self.root, *_label_files(self.labels)]

    @property
    def threads(self) -> int:
        """Those of the store."""
        return self.root.store.threads


def _labelled(
    labels: Place, named: Iterable[tuple[bytes, Image]], rejects: list[Reject], where: Place, found: OnProgress
) -> Listing:
    """The listing of images, each with the path that the rejects show, under the classes of the list."""
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
        stem = file_stem(text(image[0]))
        label = wanted.get(stem)
        if label is None or image[0] in rows:
            reason = "a second image of this name" if label else f"no label in {labels.name}"
            rejects.append((text(path), reason))
        else:
            seen.add(stem)
            rows[image[0]] = (index[label], *image)
    if seen and len(seen) < len(wanted):
        first = min(wanted.keys() - seen)
        rejects.append((labels.name, f"{len(wanted) - len(seen)} of its {len(wanted)} images are missing, as {first}"))
    builder = EntriesBuilder(found)
    builder.add_rows(rows.values())
    entries = builder.build()
    return made_listing(classes, entries.take(entries.by_class()[0]), rejects, where, numbered)


def _label_files(labels: Place) -> tuple[Place, ...]:
    data = data_folder(labels)
    return (data / TRUTH, data / META) if data else (labels,)
