"""An ImageFolder: one folder per class."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from ..listing import Entries, EntriesBuilder, Listing
from .base import LARGEST_IMAGE, Found, Reject, Source, check_size, hidden, made_listing, nobody, text
from .place import Place, each


@dataclass(frozen=True)
class ClassFolders(Source):
    """An ImageFolder: one folder per class, images at any depth below it."""

    name: str
    root: Place

    def scan(self, found: Found = nobody) -> Listing:
        """List the files below every class folder, sorted."""
        classes = self.root.folders()
        rejects: list[Reject] = [(entry, "not in a class") for entry in self.root.files()]
        builder = EntriesBuilder(found)
        below = each(lambda name: list((self.root / name).walk()), classes, self.threads)
        for label, (class_name, files) in enumerate(zip(classes, below, strict=True)):
            images = []
            for name, size in files:
                if hidden(os.fsencode(name)):
                    rejects.append((f"{class_name}/{name}", "hidden file"))
                else:
                    images.append((os.fsencode(name), -1, size))
            builder.add(label, images)
        return made_listing(classes, builder.build(), rejects, self.root)

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """The file's bytes."""
        place = self.root / f"{class_name}/{text(entries.name(i))}"
        size = int(entries.size[i])  # not known on a disk: then what is too large is seen when it is read
        check_size(size)
        data = place.store.range(place.key, 0, size if size >= 0 else LARGEST_IMAGE + 1)
        if len(data) > LARGEST_IMAGE:
            check_size(place.size())
        return data

    def describe(self) -> dict[str, str]:
        """Kind and name."""
        return {"kind": "class-folders", "name": self.name}

    def files(self) -> Iterable[Place]:
        """The class folders: their times change with the names in them, though not with those deeper down."""
        yield self.root
        for name in self.root.folders():
            yield self.root / name

    @property
    def threads(self) -> int:
        """Those of the store."""
        return self.root.store.threads
