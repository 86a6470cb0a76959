"""From a path to the source that lies there, by looking."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from braceexpand import braceexpand

from shards_manifest import is_url, shown
from shards_manifest.tables import escape

from ..errors import PlanError, SourceError
from ..kinds import KINDS, kinds_sentence
from .archive import member_name, tar_members, window
from .base import Source, SourceOptions
from .folders import ClassFolders
from .imagenet_val import LabelledTar, find_labels
from .parquet import Parquet
from .parts import Parts
from .place import Place
from .scratch import GZIPPED, Gunzipped, temporary_folder
from .tars import ClassTars, TarOfTars
from .webdataset import WebDataset, looks_like, read_classes

VAL_NAMES = ("val", "validation", "test")
TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
FILES = (".tar", *GZIPPED, ".parquet")
_LOOK = 16  # members at the start of a tar that tell what it is


_LOOKING = SourceOptions()


def find_source(path: str | os.PathLike[str], options: SourceOptions = _LOOKING) -> Source:
    """Recognise a source by looking at it, or take it for what `options` say.

    A folder or a file in one of the forms of KINDS, or a folder with one in train/ and, if it has a part to
    validate on, one in val/, validation/ or test/; or files named with braces, `train-{000..146}.tar`. On a disk, or
    by URL. Raises SourceError, saying what was found instead, PlanError, StoreError, OSError.
    """
    if options.kind and options.kind not in KINDS:
        raise PlanError(f"--source {options.kind}: choose {', '.join(KINDS)}")
    text = os.fspath(path)
    root = Place.of(text)
    name = root.name if is_url(text) else Path(text).resolve().name
    web = root.store.web  # lists no folders, and may have a page where one is
    if root.is_dir():
        return _Finder(escape(name), options).folder(root)
    if root.is_pattern and (web or not root.is_file()):
        return _Finder(escape(root.parent.name), options).several(root)
    if (not web or name.endswith(FILES)) and root.is_file():
        return _Finder(escape(name.partition(".")[0]), options)._part(root)
    if not web or name.endswith(FILES):
        raise SourceError(f"{shown(text)} does not exist")
    if any((root / tar).is_file() for tar in (TRAIN_TAR, VAL_TAR)):
        return _Finder(escape(name), options)._imagenet(root)
    raise SourceError(
        f"{shown(text)} is no {' or '.join(FILES)} file, and web servers list no folders: name one file, or "
        "several with braces as in train-{000..146}.tar"
    )


@dataclass(frozen=True)
class _Found:
    """What one folder holds that images can come from; or the files that were named, without a folder."""

    folder: Place | None
    files: tuple[Place, ...]
    folders: tuple[str, ...] = ()

    @staticmethod
    def of(place: Place) -> _Found:
        if not place.is_dir():
            return _Found(None, (place,))
        files = tuple(place / name for name in place.files())
        return _Found(place, files, tuple(place.folders()))

    def named(self, *endings: str) -> tuple[Place, ...]:
        """The files that end so; in a folder, without hidden ones."""
        hidden = "." if self.folder else "/"
        return tuple(f for f in self.files if f.name.endswith(endings) and not f.name.startswith(hidden))

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
        """Parquet files."""
        return self.named(".parquet")

    def kind(self, place: Place) -> str:
        """The form of what is there. Raises SourceError where it is none, or several."""
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
        if self.packed:
            return "tars-gz" if self.folder and not _is_whole(self.packed) else "tar-of-tars"
        first = _first_members(self.tars[0])
        if len(self.tars) == 1 and any(name.endswith(".tar") for name in first):
            return "tar-of-tars"
        if looks_like(first):
            return "webdataset"
        if not self.folder:
            raise SourceError(
                f"{place} is a file that holds neither class tars nor key.jpg with key.cls, but "
                f"{escape(first[0]) if first else 'nothing'}: name the folder of the class tars, or unpack it"
            )
        return "tars"


@dataclass(frozen=True)
class _Finder:
    """Makes sources: name, of the data set."""

    name: str
    options: SourceOptions

    def folder(self, root: Place) -> Source:
        """The source in a folder, with all its parts."""
        kind = self.options.kind
        if kind == "imagenet" or (not kind and any((root / tar).is_file() for tar in (TRAIN_TAR, VAL_TAR))):
            return self._imagenet(root)
        if (root / "train").is_dir():
            held_out = next((root / name for name in VAL_NAMES if (root / name).is_dir()), None)
            return self._parts(self._part(root / "train"), held_out, self._part(held_out) if held_out else None)
        found = _Found.of(root)
        data = root / "data"  # where data hubs keep their Parquet files
        if not found.parquet and data.is_dir() and data.files(".parquet") and kind in ("", "parquet"):
            root, found = data, _Found.of(data)
        return self._together(root, found)

    def several(self, pattern: Place) -> Source:
        """The source in the files that a pattern with braces names."""
        try:
            files = tuple(Place(pattern.store, key) for key in braceexpand(pattern.key))
        except ValueError:
            raise SourceError(f"{pattern} does not exist, and is no pattern: braces are written in pairs") from None
        missing = next((file for file in files if not file.is_file()), None)
        if missing:
            raise SourceError(f"{missing}, one of the {len(files)} files of {pattern}, does not exist")
        return self._together(pattern, _Found(None, files))

    def _together(self, root: Place, found: _Found) -> Source:
        """Shards or Parquet files of both parts in one place; or the one part that is there."""
        kind = self.options.kind or found.kind(root)
        files = {"webdataset": found.tars, "parquet": found.parquet}.get(kind)
        if not files:
            return self.one(root, found)
        train, held_out = _by_name(files)
        val = self._of_files(kind, held_out) if held_out else None
        return self._parts(self._of_files(kind, train), held_out[0] if held_out else None, val)

    def one(self, place: Place, found: _Found) -> Source:
        """The source of one part: a folder, or a file."""
        kind = self.options.kind or found.kind(place)
        make: dict[str, tuple[Sequence[object], Callable[[], Source]]] = {
            "folders": (found.folders, lambda: ClassFolders(self.name, place)),
            "tars": (found.tars if found.folder else (), lambda: ClassTars(self.name, place)),
            "tars-gz": (found.packed if found.folder else (), lambda: self._class_tars(place, found.packed)),
            "tar-of-tars": (found.tars or found.packed, lambda: self._whole(place, found)),
            "webdataset": (found.tars, lambda: self._of_files(kind, found.tars)),
            "parquet": (found.parquet, lambda: self._of_files(kind, found.parquet)),
        }
        there, maker = make.get(kind, ((), None))
        if not there or maker is None:
            raise SourceError(f"{place} is not what --source {kind} says ({KINDS[kind]}): leave it out to look")
        return maker()

    def _part(self, place: Place) -> Source:
        return self.one(place, _Found.of(place))

    def _parts(self, train: Source, held_out: Place | None, val: Source | None) -> Source:
        return Parts(self.name, train, val, str(held_out)) if val else train

    def _imagenet(self, root: Place) -> Source:
        """The tars of ILSVRC2012 as they are fetched; either part may be unpacked, in train/ or val/."""
        finder = _Finder(self.name, SourceOptions("", self.options.val_labels, self.options.scratch))
        if (root / TRAIN_TAR).is_file():
            train: Source = TarOfTars(self.name, root / TRAIN_TAR)
        elif (root / "train").is_dir():
            train = finder._part(root / "train")
        else:
            raise SourceError(f"{root} has neither {TRAIN_TAR} nor train/: both parts have to be there")
        tar, unpacked = root / VAL_TAR, root / "val"
        if tar.is_file():
            labels = find_labels(root, self.options.val_labels, tar)
            return self._parts(train, tar, LabelledTar(self.name, tar, labels))
        return self._parts(train, unpacked, finder._part(unpacked) if unpacked.is_dir() else None)

    def _whole(self, place: Place, found: _Found) -> Source:
        files = found.tars or found.packed
        if len(files) > 1:
            raise SourceError(f"{place} holds {len(files)} tars: name the one tar of class tars")
        if found.tars:
            return TarOfTars(self.name, files[0])
        plain = self._scratch(files) / f"{_stem(files[0])}.tar"
        return Gunzipped("tar-of-tars-gz", ((files[0], plain),), TarOfTars(self.name, Place.of(plain)))

    def _class_tars(self, place: Place, packed: tuple[Place, ...]) -> Source:
        folder = self._scratch(packed)
        pairs = {path: folder / f"{_stem(path)}.tar" for path in packed}
        if len(set(pairs.values())) < len(pairs):
            raise SourceError(f"{place} holds a class both as .tar.gz and as .tgz: keep one")
        return Gunzipped("class-tars-gz", tuple(pairs.items()), ClassTars(self.name, Place.of(folder)))

    def _of_files(self, kind: str, files: tuple[Place, ...]) -> Source:
        if kind == "webdataset":
            folder = files[0].parent
            return WebDataset(self.name, files, read_classes((folder, folder.parent)))
        home = self._scratch(files)
        return Parquet(self.name, tuple((path, home / f"{path.stem}.images") for path in files))

    def _scratch(self, files: Sequence[Place]) -> Path:
        """A folder in scratch for what comes of these files; another one when they have changed."""
        if self.options.scratch == "":
            raise SourceError(
                f"{files[0].parent} has to be expanded to where all workers of the cluster can read it: "
                "name a folder that they share with --scratch"
            )
        home = Path(self.options.scratch).absolute() if self.options.scratch else temporary_folder()
        found = [(path.name, path.stamp()) for path in files]
        return home / hashlib.sha256(os.fsencode(repr((str(files[0].parent), found)))).hexdigest()[:16]


def _by_name(files: tuple[Place, ...]) -> tuple[tuple[Place, ...], tuple[Place, ...]]:
    """The files of train, and of the first part to validate on that there is, by a word of their names."""
    words = {path: set(re.split(r"[-_.]", path.name.lower())) for path in files}
    parts = {name: tuple(p for p in files if name in words[p]) for name in ("train", *VAL_NAMES)}
    held_out = next((parts[name] for name in VAL_NAMES if parts[name]), ())
    train = parts["train"] or tuple(p for p in files if not words[p] & set(VAL_NAMES))
    return (train, held_out) if train else (held_out, ())


def _some(names: list[str]) -> str:
    """A few words on what files there are."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return escape(names[0]) + more if names else "nothing"


def _is_whole(packed: tuple[Place, ...]) -> bool:
    """True for one compressed tar that holds class tars, not images."""
    if len(packed) > 1:
        return False
    try:
        with packed[0].open() as file, tarfile.open(fileobj=file, mode="r|gz") as tar:
            return any(member.name.endswith(".tar") for member in islice(tar, _LOOK))
    except (tarfile.TarError, EOFError, OSError, ValueError):
        return False  # the expansion will say what is wrong


def _first_members(path: Place) -> list[str]:
    """The names of the first members of a tar, as far as it can be read."""
    names: list[str] = []
    try:
        with window(path) as file:
            for member in islice(tar_members(file, str(path)), _LOOK):
                names.append(member_name(member))
    except SourceError:
        pass  # the scan will say what is wrong
    return names


def _stem(path: Place) -> str:
    return next(path.name[: -len(ending)] for ending in GZIPPED if path.name.endswith(ending))
