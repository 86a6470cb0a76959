"""Class tars, read in place: in a folder, or within one large tar."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import SourceError
from ..listing import Entries, EntriesBuilder, Listing
from .archive import images, member_name, tar_members, why_not, window
from .base import Reject, made_listing, read_range
from .folders import files_in


@dataclass(frozen=True)
class ClassTars:
    """A folder with one plain tar per class: members by offset and size."""

    name: str
    root: Path

    def scan(self) -> Listing:
        """Index the members of every tar, sorted by name."""
        tars = files_in(self.root, ".tar")
        classes = sorted(name[: -len(".tar")] for name in tars)
        rejects: list[Reject] = [(entry, "not in a class") for entry in files_in(self.root) if entry not in set(tars)]
        builder = EntriesBuilder()
        for label, class_name in enumerate(classes):
            path = self.root / f"{class_name}.tar"
            with window(path) as file:
                builder.add(label, images(file, str(path), f"{class_name}/", rejects))
        return made_listing(classes, builder.build(), rejects, self.root)

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """The member's bytes, without reading what lies before it."""
        return read_range(self.root / f"{class_name}.tar", int(entries.offset[i]), int(entries.size[i]))

    def describe(self) -> dict[str, str]:
        """Kind and name."""
        return {"kind": "class-tars", "name": self.name}

    def files(self) -> Iterable[Path]:
        """The tars."""
        return [self.root / name for name in files_in(self.root, ".tar")]

    def stage(self) -> None:
        """Nothing to do."""


@dataclass(frozen=True)
class TarOfTars:
    """One tar of class tars, as ILSVRC2012_img_train.tar and fall11_whole.tar: members by their place in it."""

    name: str
    path: Path

    def scan(self) -> Listing:
        """Index the members of every class tar, sorted by name."""
        rejects: list[Reject] = []
        found = {}
        builder = EntriesBuilder()
        with window(self.path) as outer:
            for member in tar_members(outer, str(self.path)):
                name = member_name(member)
                reason = why_not(member)
                if reason is None and not name.endswith(".tar"):
                    reason = "not in a class"
                if reason:
                    rejects.append((name, reason))
                    continue
                class_name = PurePosixPath(name).stem
                if class_name in found:
                    raise SourceError(f"{self.path} holds two tars of the class {class_name}: keep one")
                found[class_name] = outer.within(member.offset_data, member.size)
            classes = sorted(found)
            for label, class_name in enumerate(classes):
                where = f"{class_name}.tar in {self.path}"
                builder.add(label, images(found[class_name], where, f"{class_name}/", rejects))
        return made_listing(classes, builder.build(), rejects, self.path)

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """The member's bytes, by its offset in the outer tar."""
        return read_range(self.path, int(entries.offset[i]), int(entries.size[i]))

    def describe(self) -> dict[str, str]:
        """Kind and name."""
        return {"kind": "tar-of-tars", "name": self.name}

    def files(self) -> Iterable[Path]:
        """The one tar."""
        return [self.path]

    def stage(self) -> None:
        """Nothing to do."""
