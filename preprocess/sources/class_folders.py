"""An ImageFolder: one folder for each class."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from ...shards_manifest.tables import escape
from ..errors import SourceError
from ..listing import Entries, EntriesBuilder, Listing
from .base import (
    HIDDEN,
    LARGEST_IMAGE,
    OnProgress,
    Reject,
    Source,
    check_size,
    is_hidden,
    name_text,
    no_progress,
    part_listing,
)
from .file_filter import FileFilter, is_system_folder, system_folders
from .path import SourcePath, map_in_order
from .tar_reader import ImageSpan


@dataclass(frozen=True)
class ClassFolders(Source):
    """An ImageFolder: one folder for each class, images at any depth below it.

    Attributes:
        name: Name of the data set.
        root: The folder of the class folders.
        nested: Images may all be deeper, in folders within the classes.
    """

    name: str
    root: SourcePath
    nested: bool = False

    def scan(self, progress: OnProgress = no_progress) -> Listing:
        """List the files below every class folder, sorted.

        Raises:
            SourceError: The folders look like folders of classes, not like classes.
        """
        rejects: list[Reject] = [(entry, "not in a class") for entry in self.root.files()]
        rejects += system_folders(self.root)
        classes = self._classes()
        builder = EntriesBuilder(progress)
        inner: dict[str, set[bytes]] = {}
        below = map_in_order(lambda name: list((self.root / name).walk()), classes, self.threads)
        for label, (class_name, files) in enumerate(zip(classes, below, strict=True)):
            images: list[ImageSpan] = []
            file_filter = FileFilter(f"{class_name}/")
            for name, size in files:
                path = os.fsencode(name)
                if file_filter.in_system_folder(path):
                    continue
                if is_hidden(path):
                    rejects.append((f"{class_name}/{name}", HIDDEN))
                elif file_filter.accepts(path):
                    images.append((path, -1, size))
            rejects += file_filter.rejects()
            builder.add(label, images)
            if images:
                inner[class_name] = {path.partition(b"/")[0] if b"/" in path else b"" for path, _, _ in images}
        if not self.nested:
            self._check_depth(inner)
        return part_listing(classes, builder.build(), rejects, self.root)

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """Return the bytes of the file."""
        return read_file(self.root / f"{class_name}/{name_text(entries.name(i))}", int(entries.size[i]))

    def describe(self) -> dict[str, str]:
        """Return the kind and the name."""
        return {"kind": "class-folders", "name": self.name}

    def files(self) -> Iterable[SourcePath]:
        """Return the class folders: their times change with the names in them, but not with those deeper down."""
        yield self.root
        for name in self._classes():
            yield self.root / name

    @property
    def threads(self) -> int:
        """The requests that the store can serve at once."""
        return self.root.store.threads

    def _classes(self) -> list[str]:
        return [name for name in self.root.folders() if not is_system_folder(name)]

    def _check_depth(self, inner: dict[str, set[bytes]]) -> None:
        """Raise SourceError if no class has an image of its own.

        Several classes that each have one folder of one name, as images/ in Tiny-ImageNet, are accepted.

        Args:
            inner: For each class with images the folders in it that they are in; empty for the class folder itself.
        """
        if not inner or any(b"" in folders for folders in inner.values()):
            return
        first, folders = min(inner.items())
        if len(inner) > 1 and len(folders) == 1 and all(others == folders for others in inner.values()):
            return
        example = escape(f"{first}/{name_text(min(folders))}")
        raise SourceError(
            f"{self.root} has no class folders with images in them, only folders of folders, as {example}: name the "
            f"folder of the class folders, {self.root}/{escape(first)} for one, or take its folders for classes with "
            "--source folders"
        )


def read_file(path: SourcePath, size: int) -> bytes:
    """Return the bytes of an image file.

    Args:
        path: The file.
        size: Its bytes as listed; -1 if not known, then a file that is too large is found when it is read.

    Raises:
        RejectedImage: The file is too large for an image.
        OSError
    """
    check_size(size)
    data = path.store.range(path.key, 0, size if size >= 0 else LARGEST_IMAGE + 1)
    if len(data) > LARGEST_IMAGE:
        check_size(path.size())
    return data
