"""An ImageFolder: one folder per class."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..listing import Entries, EntriesBuilder, Listing
from .base import Reject, check_size, hidden, made_listing, text


@dataclass(frozen=True)
class ClassFolders:
    """An ImageFolder: one folder per class, images at any depth below it."""

    name: str
    root: Path

    def scan(self) -> Listing:
        """List the files below every class folder, sorted."""
        classes = subfolders(self.root)
        rejects: list[Reject] = [(entry, "not in a class") for entry in files_in(self.root)]
        builder = EntriesBuilder()
        for label, class_name in enumerate(classes):
            found = []
            for name in _files_below(os.fsencode(self.root / class_name)):
                if hidden(name):
                    rejects.append((f"{class_name}/{text(name)}", "hidden file"))
                else:
                    found.append((name, -1, -1))
            builder.add(label, found)
        return made_listing(classes, builder.build(), rejects, self.root)

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """The file's bytes."""
        path = os.path.join(os.fsencode(self.root), os.fsencode(class_name), entries.name(i))
        with open(path, "rb", buffering=0) as file:
            check_size(os.fstat(file.fileno()).st_size)
            return file.readall()

    def describe(self) -> dict[str, str]:
        """Kind and name."""
        return {"kind": "class-folders", "name": self.name}

    def files(self) -> Iterable[Path]:
        """The class folders: their times change with the names in them, though not with those deeper down."""
        yield self.root
        for name in subfolders(self.root):
            yield self.root / name

    def stage(self) -> None:
        """Nothing to do."""


def subfolders(root: Path) -> list[str]:
    """Sorted names of the folders in `root` that are not hidden."""
    return sorted(e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith("."))


def files_in(root: Path, *endings: str) -> list[str]:
    """Sorted names of the files in `root`; with `endings`, of those that end so and are not hidden."""
    return sorted(
        e.name
        for e in os.scandir(root)
        if e.is_file() and (not endings or (e.name.endswith(endings) and not e.name.startswith(".")))
    )


def _files_below(folder: bytes) -> Iterator[bytes]:
    """Files below a class folder, relative to it; links to folders are followed, as torchvision does."""
    seen = set()

    def stop(error: OSError) -> None:
        raise error

    for base, folders, files in os.walk(folder, onerror=stop, followlinks=True):
        place = os.stat(base)
        if (place.st_dev, place.st_ino) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        below = os.path.relpath(base, folder)
        for name in files:
            yield name if below == b"." else os.path.join(below, name)
