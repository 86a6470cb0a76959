"""Where images come from. A source scans itself once, then reads any sample at random."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shards_manifest.tables import escape

from .errors import SourceError
from .listing import Entries, EntriesBuilder, Listing

VAL_NAMES = ("val", "validation", "test")


class Source(Protocol):
    """The three things a source can do. Instances are small and picklable: workers get a copy."""

    def scan(self) -> Listing:
        """List every sample. Raises SourceError."""
        ...

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """The encoded bytes of sample i. Raises OSError."""
        ...

    def describe(self) -> dict[str, str]:
        """What stands in the manifest: the kind and the data set's name; no paths of this machine."""
        ...


@dataclass(frozen=True)
class ClassFolders:
    """An ImageFolder: one folder per class, images at any depth below it."""

    name: str
    roots: dict[str, Path]

    def scan(self) -> Listing:
        """List the files below every class folder, sorted."""
        classes, rejects = _classes(self.roots, {part: _subfolders(root) for part, root in self.roots.items()})
        parts = {}
        for part, root in self.roots.items():
            builder = EntriesBuilder()
            for label, class_name in enumerate(classes):
                folder = os.fsencode(root / class_name)
                found = []
                for name in _files_below(folder):
                    if _hidden(name):
                        rejects.append((f"{_prefix(part, self.roots)}{class_name}/{_text(name)}", "hidden file"))
                    else:
                        found.append((name, -1, -1))
                builder.add(label, found)
                if part == "train" and not found:
                    rejects.append((f"{class_name}/", "class without images"))
            parts[part] = builder.build()
        return _listing(classes, parts, rejects, self.roots)

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """The file's bytes."""
        path = os.path.join(os.fsencode(self.roots[part]), os.fsencode(class_name), entries.name(i))
        with open(path, "rb", buffering=0) as file:
            return file.readall()

    def describe(self) -> dict[str, str]:
        """Kind and name."""
        return {"kind": "class-folders", "name": self.name}


@dataclass(frozen=True)
class ClassTars:
    """One plain tar per class, read in place: members by offset and size."""

    name: str
    roots: dict[str, Path]

    def scan(self) -> Listing:
        """Index the members of every tar, sorted by name."""
        classes, rejects = _classes(
            self.roots, {part: [p.stem for p in _tars(root)] for part, root in self.roots.items()}
        )
        parts = {}
        for part, root in self.roots.items():
            builder = EntriesBuilder()
            for label, class_name in enumerate(classes):
                path = root / f"{class_name}.tar"
                found: dict[bytes, tuple[bytes, int, int]] = {}
                for member in _tar_members(path) if path.exists() else ():
                    name = member.name.removeprefix("./")
                    key = os.fsencode(name)
                    reason = "not a regular file" if not member.isreg() else None
                    if _hidden(key):
                        reason = "hidden file"
                    if key in found:
                        reason = "a second member of this name"
                    if reason:
                        rejects.append((f"{_prefix(part, self.roots)}{class_name}/{name}", reason))
                    else:
                        found[key] = (key, member.offset_data, member.size)
                builder.add(label, found.values())
                if part == "train" and not found:
                    rejects.append((f"{class_name}/", "class without images"))
            parts[part] = builder.build()
        return _listing(classes, parts, rejects, self.roots)

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """The member's bytes, without reading what lies before it."""
        path = self.roots[part] / f"{class_name}.tar"
        size = int(entries.size[i])
        with path.open("rb", buffering=0) as file:  # 20 us: nothing beside decoding
            data = os.pread(file.fileno(), size, int(entries.offset[i]))
        if len(data) != size:
            raise OSError(f"{path} is cut short")
        return data

    def describe(self) -> dict[str, str]:
        """Kind and name."""
        return {"kind": "class-tars", "name": self.name}


def find_source(path: str | os.PathLike[str]) -> Source:
    """Recognise a source by looking at it.

    A folder of class folders or of class tars, directly or below train/ with an optional val/,
    validation/ or test/. Raises SourceError, saying what was found instead.
    """
    root = Path(path)
    if not root.exists():
        raise SourceError(f"{root} does not exist")
    if not root.is_dir():
        raise SourceError(f"{root} is a file: name the folder that holds the class folders or class tars")
    roots = {"train": root}
    if (root / "train").is_dir():
        roots = {"train": root / "train"}
        held_out = [root / name for name in VAL_NAMES if (root / name).is_dir()]
        if held_out:
            roots["val"] = held_out[0]
    kinds = {part: _kind(folder) for part, folder in roots.items()}
    if len(set(kinds.values())) > 1:
        raise SourceError(f"{root}: train holds class {kinds['train']}, but {roots['val'].name} class {kinds['val']}")
    name = escape(root.resolve().name)
    return ClassTars(name, roots) if kinds["train"] == "tars" else ClassFolders(name, roots)


def _kind(folder: Path) -> str:
    tars, folders = _tars(folder), _subfolders(folder)
    if tars and folders:
        raise SourceError(f"{folder} holds both class folders and tars ({folders[0]}, {tars[0].name}): keep one kind")
    if not tars and not folders:
        raise SourceError(f"{folder} holds neither class folders nor class tars")
    return "tars" if tars else "folders"


def _classes(roots: dict[str, Path], found: dict[str, list[str]]) -> tuple[list[str], list[tuple[str, str]]]:
    classes = sorted(found["train"])
    unknown = sorted(set(found.get("val", ())) - set(classes))
    if unknown:
        raise SourceError(
            f"{roots['val']} has the class {unknown[0]}, which train does not have "
            f"({len(unknown)} such classes): both need the same classes"
        )
    rejects = [
        (f"{_prefix(part, roots)}{entry}", "not in a class")
        for part, folder in roots.items()
        for entry in _strays(folder)
    ]
    return classes, rejects


def _listing(
    classes: list[str], parts: dict[str, Entries], rejects: list[tuple[str, str]], roots: dict[str, Path]
) -> Listing:
    if not len(parts["train"]):
        raise SourceError(f"{roots['train']} has {len(classes)} classes but no images")
    return Listing(tuple(classes), parts, tuple(sorted((escape(source), reason) for source, reason in rejects)))


def _prefix(part: str, roots: dict[str, Path]) -> str:
    return f"{part}/" if len(roots) > 1 else ""


def _hidden(name: bytes) -> bool:
    return any(piece.startswith(b".") and piece not in (b".", b"..") for piece in name.split(b"/"))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _subfolders(root: Path) -> list[str]:
    return sorted(e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith("."))


def _tars(root: Path) -> list[Path]:
    return sorted(Path(e.path) for e in os.scandir(root) if e.is_file() and _is_tar(e.name))


def _strays(root: Path) -> list[str]:
    return sorted(e.name for e in os.scandir(root) if e.is_file() and not _is_tar(e.name))


def _is_tar(name: str) -> bool:
    return name.endswith(".tar") and not name.startswith(".")


def _files_below(folder: bytes) -> Iterator[bytes]:
    """Files below a class folder, relative to it; links to folders are followed, as torchvision does."""
    if not os.path.isdir(folder):
        return
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


def _tar_members(path: Path) -> Iterator[tarfile.TarInfo]:
    """The members of a plain tar but its folders. Raises SourceError unless it is whole.

    tarfile takes a cut at a member's boundary, or a damaged header, for the end: so the end is checked.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # flat memory over millions of members
                if not member.isdir():
                    yield member
            tar.fileobj.seek(tar.offset)
            if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"cut or damaged at byte {tar.offset}")
    except (tarfile.TarError, EOFError) as error:
        raise SourceError(f"{path} is not a complete plain tar ({error}): fetch it again") from None
