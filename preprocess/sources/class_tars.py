"""Class tars, read without unpacking: in a folder, or within one large tar."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from ...shards_manifest.tables import escape
from ..errors import SourceError
from ..listing import Entries, EntriesBuilder, Listing
from .base import OnProgress, Reject, Source, name_text, no_progress, part_listing
from .file_filter import FileFilter, system_folders
from .path import SourcePath, map_in_order
from .tar_reader import ImageSpan, list_images, member_name, open_range, reject_reason, tar_members
from .val_labels import LIST_NAMES


@dataclass(frozen=True)
class ClassTars(Source):
    """A folder with one plain tar for each class.

    Attributes:
        name: Name of the data set.
        root: The folder.
        nested: A single tar may contain several folders of images.
    """

    name: str
    root: SourcePath
    nested: bool = False

    def scan(self, progress: OnProgress = no_progress) -> Listing:
        """List the members of every tar, sorted by name.

        Raises:
            SourceError: There is one tar only, and it contains class folders.
        """
        tars = self._tars()
        classes = sorted(name[: -len(".tar")] for name in tars)
        rejects: list[Reject] = [(entry, "not in a class") for entry in self.root.files() if entry not in set(tars)]
        rejects += system_folders(self.root)
        builder = EntriesBuilder(progress)
        scanned = map_in_order(lambda name: _list_tar(self.root / f"{name}.tar"), classes, self.threads)
        for label, (members, refused) in enumerate(scanned):
            if len(classes) == 1 and not self.nested:
                _check_depth(classes[0], {os.path.dirname(path) for path, _, _ in members})
            builder.add(label, members)
            rejects += refused
        return part_listing(classes, builder.build(), rejects, self.root)

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """Return the bytes of the member, without reading what is before it."""
        return (self.root / f"{class_name}.tar").range(int(entries.offset[i]), int(entries.size[i]))

    def describe(self) -> dict[str, str]:
        """Return the kind and the name."""
        return {"kind": "class-tars", "name": self.name}

    def files(self) -> Iterable[SourcePath]:
        """Return the tars."""
        return [self.root / name for name in self._tars()]

    @property
    def threads(self) -> int:
        """The requests that the store can serve at once."""
        return self.root.store.threads

    def _tars(self) -> list[str]:
        return [name for name in self.root.files(".tar") if name not in LIST_NAMES]


def _check_depth(tar: str, folders: set[bytes]) -> None:
    """Raise SourceError if the images of the only tar are in several folders."""
    if len(folders) > 1 and b"" not in folders:
        first, second = (escape(name_text(folder)) for folder in sorted(folders)[:2])
        raise SourceError(
            f"the only tar, {escape(tar)}, would be one class, but its images lie in several folders, as {first} and "
            f"{second}: unpack it and name the folder of the class folders, or take it for a class with --source tars, "
            "or tars-gz where it is compressed"
        )


def _list_tar(tar: SourcePath) -> tuple[list[ImageSpan], list[Reject]]:
    """Return the images of a class tar, and the rejects."""
    rejects: list[Reject] = []
    with open_range(tar) as file:
        return list_images(file, str(tar), f"{tar.stem}/", rejects), rejects


@dataclass(frozen=True)
class TarOfTars(Source):
    """One tar of class tars, as ILSVRC2012_img_train.tar and fall11_whole.tar.

    Attributes:
        name: Name of the data set.
        path: The tar.
    """

    name: str
    path: SourcePath

    def scan(self, progress: OnProgress = no_progress) -> Listing:
        """List the members of every class tar, sorted by name."""
        rejects: list[Reject] = []
        inner: dict[str, slice] = {}
        file_filter = FileFilter("")
        with open_range(self.path) as outer:
            for member in tar_members(outer, str(self.path)):
                name = member_name(member)
                if file_filter.in_system_folder(os.fsencode(name)):
                    continue
                reason = reject_reason(member)
                if reason is None and not name.endswith(".tar"):
                    reason = "not in a class"
                if reason:
                    rejects.append((name, reason))
                    continue
                class_name = PurePosixPath(name).stem
                if class_name in inner:
                    raise SourceError(f"{self.path} holds two tars of the class {class_name}: keep one")
                inner[class_name] = slice(member.offset_data, member.offset_data + member.size)
        rejects += file_filter.rejects()
        classes = sorted(inner)
        builder = EntriesBuilder(progress)
        scanned = map_in_order(lambda name: self._list_inner(name, inner[name]), classes, self.threads)
        for label, (members, refused) in enumerate(scanned):
            builder.add(label, members)
            rejects += refused
        return part_listing(classes, builder.build(), rejects, self.path)

    def _list_inner(self, name: str, part: slice) -> tuple[list[ImageSpan], list[Reject]]:
        """Return the images of the class tar in `part` of the outer tar, and the rejects."""
        rejects: list[Reject] = []
        with open_range(self.path, part) as file:
            return list_images(file, f"{name}.tar in {self.path}", f"{name}/", rejects), rejects

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """Return the bytes of the member, by its offset in the outer tar."""
        return self.path.range(int(entries.offset[i]), int(entries.size[i]))

    def describe(self) -> dict[str, str]:
        """Return the kind and the name."""
        return {"kind": "tar-of-tars", "name": self.name}

    def files(self) -> Iterable[SourcePath]:
        """Return the tar."""
        return [self.path]

    @property
    def threads(self) -> int:
        """The requests that the store can serve at once."""
        return self.path.store.threads
