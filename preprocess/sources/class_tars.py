"""Class tars, read in place: in a folder, or within one large tar."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from ...shards_manifest.tables import escape
from ..errors import SourceError
from ..listing import Entries, EntriesBuilder, Listing
from .base import OnProgress, Reject, Source, made_listing, no_progress, text
from .file_names import Candidates, system_folders
from .label_files import LIST_NAMES
from .path import Place, each
from .tar_reader import Image, images, member_name, tar_members, why_not, window


@dataclass(frozen=True)
class ClassTars(Source):
    """A folder with one plain tar per class: members by offset and size.

    nested: the only tar may hold several folders of images.
    """

    name: str
    root: Place
    nested: bool = False

    def scan(self, found: OnProgress = no_progress) -> Listing:
        """Index the members of every tar, sorted by name. Raises SourceError where the only one holds class folders."""
        tars = self._tars()
        classes = sorted(name[: -len(".tar")] for name in tars)
        rejects: list[Reject] = [(entry, "not in a class") for entry in self.root.files() if entry not in set(tars)]
        rejects += system_folders(self.root)
        builder = EntriesBuilder(found)
        scanned = each(lambda name: _indexed(self.root / f"{name}.tar"), classes, self.threads)
        for label, (members, refused) in enumerate(scanned):
            if len(classes) == 1 and not self.nested:
                _check_depth(classes[0], {os.path.dirname(path) for path, _, _ in members})
            builder.add(label, members)
            rejects += refused
        return made_listing(classes, builder.build(), rejects, self.root)

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """The member's bytes, without reading what lies before it."""
        return (self.root / f"{class_name}.tar").range(int(entries.offset[i]), int(entries.size[i]))

    def describe(self) -> dict[str, str]:
        """Kind and name."""
        return {"kind": "class-tars", "name": self.name}

    def files(self) -> Iterable[Place]:
        """The tars."""
        return [self.root / name for name in self._tars()]

    @property
    def threads(self) -> int:
        """Those of the store."""
        return self.root.store.threads

    def _tars(self) -> list[str]:
        return [name for name in self.root.files(".tar") if name not in LIST_NAMES]


def _check_depth(tar: str, folders: set[bytes]) -> None:
    """Raises SourceError where all images of the only tar lie in several folders."""
    if len(folders) > 1 and b"" not in folders:
        first, second = (escape(text(folder)) for folder in sorted(folders)[:2])
        raise SourceError(
            f"the only tar, {escape(tar)}, would be one class, but its images lie in several folders, as {first} and "
            f"{second}: unpack it and name the folder of the class folders, or take it for a class with --source tars, "
            "or tars-gz where it is compressed"
        )


def _indexed(tar: Place) -> tuple[list[Image], list[Reject]]:
    """The images of a class tar, and what is none."""
    rejects: list[Reject] = []
    with window(tar) as file:
        return images(file, str(tar), f"{tar.stem}/", rejects), rejects


@dataclass(frozen=True)
class TarOfTars(Source):
    """One tar of class tars, as ILSVRC2012_img_train.tar and fall11_whole.tar: members by their place in it."""

    name: str
    path: Place

    def scan(self, found: OnProgress = no_progress) -> Listing:
        """Index the members of every class tar, sorted by name."""
        rejects: list[Reject] = []
        inner: dict[str, slice] = {}
        candidates = Candidates("")
        with window(self.path) as outer:
            for member in tar_members(outer, str(self.path)):
                name = member_name(member)
                if candidates.in_system_folder(os.fsencode(name)):
                    continue
                reason = why_not(member)
                if reason is None and not name.endswith(".tar"):
                    reason = "not in a class"
                if reason:
                    rejects.append((name, reason))
                    continue
                class_name = PurePosixPath(name).stem
                if class_name in inner:
                    raise SourceError(f"{self.path} holds two tars of the class {class_name}: keep one")
                inner[class_name] = slice(member.offset_data, member.offset_data + member.size)
        rejects += candidates.rejects()
        classes = sorted(inner)
        builder = EntriesBuilder(found)
        scanned = each(lambda name: self._class(name, inner[name]), classes, self.threads)
        for label, (members, refused) in enumerate(scanned):
            builder.add(label, members)
            rejects += refused
        return made_listing(classes, builder.build(), rejects, self.path)

    def _class(self, name: str, part: slice) -> tuple[list[Image], list[Reject]]:
        """The images of the class tar in `part` of the whole, and what is none."""
        rejects: list[Reject] = []
        with window(self.path, part) as file:
            return images(file, f"{name}.tar in {self.path}", f"{name}/", rejects), rejects

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """The member's bytes, by its offset in the outer tar."""
        return self.path.range(int(entries.offset[i]), int(entries.size[i]))

    def describe(self) -> dict[str, str]:
        """Kind and name."""
        return {"kind": "tar-of-tars", "name": self.name}

    def files(self) -> Iterable[Place]:
        """The one tar."""
        return [self.path]

    @property
    def threads(self) -> int:
        """Those of the store."""
        return self.path.store.threads
