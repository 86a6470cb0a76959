"""An ImageFolder: one folder per class."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from ...shards_manifest.tables import escape
from ..errors import SourceError
from ..listing import Entries, EntriesBuilder, Listing
from .base import LARGEST_IMAGE, OnProgress, Reject, Source, check_size, hidden, made_listing, no_progress, text
from .file_names import Candidates, is_system_folder, system_folders
from .path import Place, each
from .tar_reader import Image


@dataclass(frozen=True)
class ClassFolders(Source):
    """An ImageFolder: one folder per class, images at any depth below it.

    nested: images may all lie deeper, below folders within the classes.
    """

    name: str
    root: Place
    nested: bool = False

    def scan(self, found: OnProgress = no_progress) -> Listing:
        """List the files below every class folder, sorted.

        Raises SourceError where the folders look like folders of classes, not like classes.
        """
        rejects: list[Reject] = [(entry, "not in a class") for entry in self.root.files()]
        rejects += system_folders(self.root)
        classes = self._classes()
        builder = EntriesBuilder(found)
        inner: dict[str, set[bytes]] = {}
        below = each(lambda name: list((self.root / name).walk()), classes, self.threads)
        for label, (class_name, files) in enumerate(zip(classes, below, strict=True)):
            images: list[Image] = []
            candidates = Candidates(f"{class_name}/")
            for name, size in files:
                path = os.fsencode(name)
                if candidates.in_system_folder(path):
                    continue
                if hidden(path):
                    rejects.append((f"{class_name}/{name}", "hidden file"))
                elif candidates.takes(path):
                    images.append((path, -1, size))
            rejects += candidates.rejects()
            builder.add(label, images)
            if images:
                inner[class_name] = {path.partition(b"/")[0] if b"/" in path else b"" for path, _, _ in images}
        if not self.nested:
            self._check_depth(inner)
        return made_listing(classes, builder.build(), rejects, self.root)

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """The file's bytes."""
        return read_file(self.root / f"{class_name}/{text(entries.name(i))}", int(entries.size[i]))

    def describe(self) -> dict[str, str]:
        """Kind and name."""
        return {"kind": "class-folders", "name": self.name}

    def files(self) -> Iterable[Place]:
        """The class folders: their times change with the names in them, though not with those deeper down."""
        yield self.root
        for name in self._classes():
            yield self.root / name

    @property
    def threads(self) -> int:
        """Those of the store."""
        return self.root.store.threads

    def _classes(self) -> list[str]:
        return [name for name in self.root.folders() if not is_system_folder(name)]

    def _check_depth(self, inner: dict[str, set[bytes]]) -> None:
        """Raises SourceError where no class has an image of its own.

        inner: for each class with images the folders in it that they lie in, empty for the class folder itself.
        Several classes that each have one folder of one name, as images/ in Tiny-ImageNet, are classes.
        """
        if not inner or any(b"" in folders for folders in inner.values()):
            return
        first, folders = min(inner.items())
        if len(inner) > 1 and len(folders) == 1 and all(others == folders for others in inner.values()):
            return
        example = escape(f"{first}/{text(min(folders))}")
        raise SourceError(
            f"{self.root} has no class folders with images in them, only folders of folders, as {example}: name the "
            f"folder of the class folders, {self.root}/{escape(first)} for one, or take its folders for classes with "
            "--source folders"
        )


def read_file(place: Place, size: int) -> bytes:
    """A file's bytes. size: as listed, -1 where that is not known: then what is too large is seen when it is read.

    Raises OSError, RejectedImage.
    """
    check_size(size)
    data = place.store.range(place.key, 0, size if size >= 0 else LARGEST_IMAGE + 1)
    if len(data) > LARGEST_IMAGE:
        check_size(place.size())
    return data
