"""What one folder holds that images can come from, and which form that is."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from ...shards_manifest.tables import escape
from ..errors import SourceError
from ..source_kinds import kinds_sentence
from .base import hidden
from .file_names import has_image_ending, is_system_folder, system_folder
from .label_files import LIST_NAMES
from .part_names import TRAIN, PartName, folder_part
from .path import Place
from .scratch import GZIPPED
from .tar_reader import member_name, tar_members, window
from .webdataset import LARGEST_TEXT, looks_like

ARCHIVES = (".tar", *GZIPPED, ".parquet")
_ARCHIVE = re.compile(
    r"\.(tar|parquet|tgz|tbz2?|txz|zip|7z|rar|arrow)(\.(gz|xz|zst|bz2|lz4|lzma|z|part|partial|crdownload|download|tmp))?$",
    re.IGNORECASE,
)
_LOOK = 16  # members at the start of a tar that tell what it is
_SHARD = re.compile(r"([-_.]of[-_.]\d+|[-_.]\d+)+$")
_NUMBERED = re.compile(r"(^|[-_.])\d+$")  # shard-000 and 00012, not n01440764


@dataclass(frozen=True)
class Content:
    """What one folder holds; or the files that were named, without a folder."""

    folder: Place | None
    files: tuple[Place, ...]
    folders: tuple[str, ...] = ()

    @staticmethod
    def of(place: Place) -> Content:
        """What lies at a place, a folder or a file, without the folders of systems and tools."""
        if not place.is_dir():
            return Content(None, (place,))
        folders = tuple(name for name in place.folders() if not is_system_folder(name))
        return Content(place, tuple(place / name for name in place.files()), folders)

    def named(self, *endings: str) -> tuple[Place, ...]:
        """The files that end so; in a folder, without hidden ones and lists of labels."""
        left_out = LIST_NAMES if self.folder else ()
        return tuple(
            f for f in self.files if f.name.endswith(endings) and not f.name.startswith(".") and f.name not in left_out
        )

    @property
    def tars(self) -> tuple[Place, ...]:
        """Plain tars."""
        return self.named(".tar")

    @property
    def packed(self) -> tuple[Place, ...]:
        """Compressed tars."""
        return self.named(*GZIPPED)

    @property
    def parquet(self) -> tuple[Place, ...]:
        """Parquet files; not 00000.parquet beside 00000.tar, where img2dataset keeps what it knows of the images."""
        numbers = {tar.stem for tar in self.tars if tar.stem.isdecimal()}
        return tuple(file for file in self.named(".parquet") if file.stem not in numbers)

    @property
    def archives(self) -> tuple[Place, ...]:
        """Tars and Parquet files."""
        return self.named(*ARCHIVES)

    def strays(self, used: Iterable[Place]) -> list[str]:
        """Names of the archives that are not among `used`, of any form, half fetched ones too."""
        taken = set(used)
        files = (file for file in self.files if file not in taken and file.name not in LIST_NAMES)
        return [file.name for file in files if _ARCHIVE.search(file.name) and not file.name.startswith(".")]

    @property
    def images(self) -> list[str]:
        """Names of the images that lie directly here."""
        return [file.name for file in self.files if has_image_ending(file.name)]

    def flat(self) -> Place | None:
        """The folder of images without classes that this is: itself, or the one folder images/ in it."""
        if self.folder and not self.folders and not self.archives and self.images:
            return self.folder
        if self.folder and [name.lower() for name in self.folders] == ["images"] and not self.images:
            inner = Content.of(self.folder / self.folders[0])
            return inner.folder if inner.images and not inner.folders else None
        return None

    def flat_tar(self) -> Place | None:
        """The one tar of images without classes that this is."""
        one = self.folder is None and len(self.files) == 1 and self.tars
        return self.files[0] if one and tar_kind(self.files) == "tars" else None

    def kind(self, place: Place) -> str:
        """The form of what is there. Raises SourceError where it is none, or several, or parts as classes."""
        there: dict[str, Sequence[str]] = {
            "class folders": self.folders[:1],
            "tars": [path.name for path in self.tars[:1]],
            "compressed tars": [path.name for path in self.packed[:1]],
            "Parquet files": [path.name for path in self.parquet[:1]],
        }
        there = {name: some for name, some in there.items() if some}
        if len(there) > 1:
            names = ", ".join(some[0] for some in there.values())
            raise SourceError(
                f"{place} holds both {' and '.join(there)} ({names}): keep one kind, or choose with --source"
            )
        if not there:
            held = "is a file of no known form"
            if self.folder:
                some = _some([file.name for file in self.files])
                held = f"holds neither class folders nor class tars nor another known form, but {some}"
            raise SourceError(f"{place} {held}; what is known is {kinds_sentence()}")
        if self.folders:
            return "folders"
        if self.parquet:
            return "parquet"
        tars = self.tars or self.packed
        kind = tar_kind(tars)
        if kind == "webdataset" and self.packed:
            raise SourceError(f"{place} holds compressed WebDataset shards, as {tars[0].name}: expand them with gunzip")
        if kind != "tars":
            return kind
        if not self.folder:
            first = first_members(tars[0])
            if self.packed and not first:
                return "tar-of-tars"  # the expansion will say what is wrong
            raise SourceError(
                f"{place} is a file that holds neither class tars nor key.jpg with key.cls, but "
                f"{escape(first[0]) if first else 'nothing'}: name the folder of the class tars, or unpack it"
            )
        option = "tars-gz" if self.packed else "tars"
        if parts := _parts_of_images(tars):
            raise SourceError(
                f"{' and '.join(parts)} of {place} would be one class each, but are named as parts of a data set: "
                f"unpack each into a folder of its name, or take them for classes with --source {option}"
            )
        return option


def tar_kind(tars: Sequence[Place]) -> str:
    """tar-of-tars, webdataset, or else tars, by the first members of one of `tars`: of train's, if there is one.

    Images with a .json beside each are shards where that has a label, or where a tar is numbered as shards are; with
    a .txt, a caption, only where it is numbered.
    """
    shown = next((path for path in tars if archive_part(path.name).role == TRAIN), tars[0])
    first = _first_members(shown)
    if any(name.endswith(".tar") for name in first):
        return "tar-of-tars"
    numbered = any(_NUMBERED.search(_stem(path.name)) for path in tars)
    if not looks_like(first):
        return "webdataset" if numbered and _captioned(first) else "tars"
    labelled = any(name.lower().endswith(".cls") or _has_label(data) for name, data in first.items())
    return "webdataset" if labelled or numbered else "tars"


def first_members(path: Place) -> list[str]:
    """The names of the first members of a tar, as far as it can be read, up to the first that is a tar."""
    return list(_first_members(path))


def _first_members(path: Place) -> dict[str, bytes]:
    """The first members of a tar, and what those hold that end in .json."""
    found: dict[str, bytes] = {}
    try:
        with _members(path) as members:
            for member, read in islice(members, _LOOK):
                name = member_name(member)
                if hidden(os.fsencode(name)) or system_folder(os.fsencode(name)):
                    continue  # macOS puts ._a.tar before a.tar
                small = name.lower().endswith(".json") and member.size <= LARGEST_TEXT
                found[name] = read(member) if small else b""
                if name.endswith(".tar"):
                    break
    except (SourceError, tarfile.TarError, EOFError, OSError, ValueError):
        pass  # the scan will say what is wrong
    return found


@contextmanager
def _members(path: Place) -> Iterator[Iterable[tuple[tarfile.TarInfo, Callable[[tarfile.TarInfo], bytes]]]]:
    """The members of a tar, and how to read one; of a compressed tar only the last that was given can be read."""
    if path.name.endswith(".tar"):
        with window(path) as file:
            yield ((m, lambda member: file.at(member.offset_data, member.size)) for m in tar_members(file, str(path)))
        return
    with path.open() as raw, tarfile.open(fileobj=raw, mode="r|gz") as tar:

        def read(member: tarfile.TarInfo) -> bytes:
            inner = tar.extractfile(member)
            return inner.read() if inner else b""

        yield ((member, read) for member in tar if not member.isdir())


def _captioned(names: Iterable[str]) -> bool:
    """True where an image has a .txt of its own name, as img2dataset writes captions."""
    there = set(names)
    return any(has_image_ending(name) and f"{name.rpartition('.')[0]}.txt" in there for name in there)


def _has_label(data: bytes) -> bool:
    """True for JSON with a label, as WebDataset has it."""
    try:
        found = json.loads(data) if data else None
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "label" in found


def _parts_of_images(tars: Sequence[Place]) -> list[str]:
    """The names of two tars, or of the only one, that are parts of one data set by their names."""
    names = {path.name: archive_part(path.name) for path in tars}
    if not any(first_members(path) for path in tars if names[path.name].role):
        return []  # the scan will say what is wrong
    if len(names) == 1:
        return [name for name, part in names.items() if part.role]
    train = [name for name, part in names.items() if part.role == TRAIN]
    held_out = [name for name, part in names.items() if part.role not in ("", TRAIN)]
    pairs = ([a, b] for a in train for b in held_out if names[a].rest == names[b].rest)
    return next(pairs, [])


def archive_part(name: str) -> PartName:
    """The role of a tar or a Parquet file by its name without the ending and a shard's number, as of a folder's."""
    return folder_part(_SHARD.sub("", _stem(name)))


def _stem(name: str) -> str:
    return name.removesuffix(next((ending for ending in ARCHIVES if name.endswith(ending)), ""))


def _some(names: list[str]) -> str:
    """A few words on what files there are."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return escape(names[0]) + more if names else "nothing"
