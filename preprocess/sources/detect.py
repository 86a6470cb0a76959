"""From a path to the source that lies there, by looking."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from braceexpand import braceexpand

from ...shards_manifest.storage.address import is_url, shown
from ...shards_manifest.tables import escape
from ..errors import PlanError, SourceError
from ..source_kinds import KINDS
from .base import Reject, Source, SourceOptions
from .class_folders import ClassFolders
from .class_tars import ClassTars, TarOfTars
from .detect_form import ARCHIVES, Content, archive_part
from .detect_parts import LEFT_OVER, NO_LABELS, NOT_READ, OTHER_TEST, Chosen, Look, choose_files, choose_folders
from .file_names import system_folders
from .imagenet_val import LabelledFolder, LabelledTar
from .label_files import LIST_NAMES, find_labels, no_labels
from .parquet import Parquet, check_column_options, flat_name
from .part_names import TEST, TRAIN, VAL, folder_part
from .path import Place
from .scratch import GZIPPED, Gunzipped, temporary_folder
from .train_val import Parts, uses_labels
from .webdataset import WebDataset, read_classes

TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
MOST_CONFIGS = 16  # folders that are looked into for Parquet files, as data hubs lay out their configurations


_LOOKING = SourceOptions()


def find_source(path: str | os.PathLike[str], options: SourceOptions = _LOOKING) -> Source:
    """Recognise a source by looking at it, or take it for what `options` say.

    A folder or a file in one of the forms of KINDS, or a folder with one in train/ and, if it has a part to
    validate on, one in val/ or test/, by whatever words (part_names.py); or files named with braces,
    `train-{000..146}.tar`. On a disk, or by URL. Raises SourceError, saying what was found instead, PlanError,
    StoreError, OSError.
    """
    found = _find(path, options)
    if options.val_labels is not None and not uses_labels(found):
        raise SourceError(
            f"--val-labels {shown(options.val_labels)} does not apply: {shown(path)} has no validation images that lie "
            "flat in one folder or one tar, beside a train part: leave it out"
        )
    check_column_options(options, found.sources() if isinstance(found, Parts) else (found,), path)
    return found


def _find(path: str | os.PathLike[str], options: SourceOptions) -> Source:
    if options.kind and options.kind not in KINDS:
        raise PlanError(f"--source {options.kind}: choose {', '.join(KINDS)}")
    text = os.fspath(path)
    root = Place.of(text)
    name = root.name if is_url(text) else Path(text).resolve().name
    web = root.store.web  # lists no folders, and may have a page where one is
    if root.is_dir():
        return _Finder(escape(name), options).folder(root)
    if root.is_pattern and (web or not root.is_file()):
        named = Place(root.store, root.key.partition("{")[0].rpartition("/")[0])
        return _Finder(escape(named.name), options).several(root)
    if (not web or name.endswith(ARCHIVES)) and root.is_file():
        return _Finder(escape(name.partition(".")[0]), options).part(root)
    if not web or name.endswith(ARCHIVES):
        raise SourceError(f"{shown(text)} does not exist")
    if any((root / tar).is_file() for tar in (TRAIN_TAR, VAL_TAR)):
        return _Finder(escape(name), options).imagenet(root, Content(None, ()))
    raise SourceError(
        f"{shown(text)} is no {' or '.join(ARCHIVES)} file, and web servers list no folders: name one file, or several "
        "with braces as in train-{000..146}.tar"
    )


@dataclass(frozen=True)
class _Finder:
    """Makes sources: name, of the data set."""

    name: str
    options: SourceOptions

    def folder(self, root: Place, unused: tuple[Reject, ...] = ()) -> Source:
        """The source in a folder, with all its parts. unused: what was left out on the way to it."""
        kind = self.options.kind
        found = Content.of(root)
        if kind == "imagenet" or (not kind and {TRAIN_TAR, VAL_TAR} & {file.name for file in found.files}):
            return self.imagenet(root, found)

        def look(name: str) -> Look:
            held = Content.of(root / name)
            full = bool(held.folders or held.archives)
            nameless = not full and any("." not in file.name for file in held.files)  # images without an ending
            return Look(bool(held.images) or nameless, full)

        chosen = choose_folders(root, found.folders, look, kind == "folders") or _beside_files(found)
        if chosen:
            return self._of_folders(root, found, chosen, unused)
        if not found.parquet and kind in ("", "parquet") and (inner := self._configuration(root, found)):
            others = tuple((f"{name}/", LEFT_OVER) for name in found.folders if name != inner)
            return self.folder(root / inner, unused + others)
        return self._together(root, found, unused)

    def several(self, pattern: Place) -> Source:
        """The source in the files that a pattern with braces names."""
        try:
            files = tuple(Place(pattern.store, key) for key in braceexpand(pattern.key))
        except ValueError:
            raise SourceError(f"{pattern} does not exist, and is no pattern: braces are written in pairs") from None
        missing = next((file for file in files if not file.is_file()), None)
        if missing:
            raise SourceError(f"{missing}, one of the {len(files)} files of {pattern}, does not exist")
        return self._together(pattern, Content(None, files), ())

    def part(self, place: Place) -> Source:
        """The source of the one part that is there."""
        return self.one(place, Content.of(place))

    def _of_folders(self, root: Place, found: Content, chosen: Chosen, unused: tuple[Reject, ...]) -> Source:
        """Parts in folders; either may lie in files beside the other's folder."""
        train = Content.of(root / chosen.train[0]) if chosen.train else _files(found, TRAIN, ())
        reasons: dict[str, str] = {}
        val: tuple[Content, Source] | None = None
        for role, content in self._held_outs(root, found, chosen):
            source = self._held_out(root, content, need=role == VAL)
            if source:
                val = content, source
                break
            reasons |= dict.fromkeys(_names(content), NO_LABELS)
        used = _names(train) | (_names(val[0]) if val else set())
        unused += (*_left_over(found, used, reasons), *system_folders(root))
        if found.images:
            unused += ((f"{found.images[0]} ...", f"{len(found.images)} images that lie in the folder of no part"),)
        parts = [(train, self.one(train.folder or train.files[0], train)), *([val] if val else [])]
        for content, source in parts:  # other forms name what lies beside
            if content.folder and isinstance(source, WebDataset | Parquet | TarOfTars):
                unused += _strays(content, source.files(), f"{content.folder.name}/")
        return self._parts(parts[0], val, unused)

    @staticmethod
    def _held_outs(root: Place, found: Content, chosen: Chosen) -> Iterator[tuple[str, Content]]:
        """What may be held out, by role, the best first; a folder goes before the tars of the same part."""
        words = {(), *(folder_part(name).rest for name in chosen.train)}
        for role, names in ((VAL, chosen.val), (TEST, chosen.test)):
            if names:
                yield role, Content.of(root / names[0])
            elif (content := _files(found, role, words)).files:
                yield role, content

    def _held_out(self, root: Place, found: Content, need: bool = True, shards: bool = False) -> Source | None:
        """The source of what is held out; flat images take labels from beside them.

        None where there are no labels and they are not needed. Raises SourceError where they are. shards: beside
        shards of train, so that tars without labels are shards too, which the scan leaves out and names.
        """
        images = found.flat()
        tar = found.flat_tar()
        if not images and not tar:
            if shards:
                return self._of_files("webdataset", found.tars)
            source = self.one(found.folder or found.files[0], found)
            # whether its folders are classes, train tells
            return replace(source, nested=True) if isinstance(source, ClassFolders) else source
        folders = [images, found.folder, root] if images and found.folder else [found.files[0].parent]
        labels = find_labels(tuple(dict.fromkeys(folders)), self.options.val_labels)
        if labels and images:
            return LabelledFolder(self.name, images, labels)
        if labels and tar:
            return LabelledTar(self.name, tar, labels)
        if shards:
            return self._of_files("webdataset", found.tars)
        if need:
            raise no_labels(images or found.files[0])
        return None

    def _configuration(self, root: Place, found: Content) -> str:
        """The folder that holds the Parquet files of a data hub: data, or the one configuration; empty for none.

        Raises SourceError where there are several.
        """
        if "data" in found.folders and (root / "data").files(".parquet"):
            return "data"
        names = []
        for name in islice(found.folders, 0 if found.archives else MOST_CONFIGS):
            held = Content.of(root / name)
            if held.images:
                return ""  # class folders
            inside = (Content.of(root / name / part) for part in held.folders if folder_part(part).role)
            if held.parquet or any(content.parquet for content in inside):
                names.append(name)
        if len(names) > 1:
            raise SourceError(f"{root} holds the configurations {' and '.join(names)}: name one, as {root}/{names[0]}")
        return names[0] if names else ""

    def _together(self, root: Place, found: Content, unused: tuple[Reject, ...]) -> Source:
        """Shards, Parquet files or tars of class tars, of all parts in one place; or the one part that is there."""
        kind = self.options.kind or found.kind(root)
        files = {
            "webdataset": found.tars,
            "parquet": found.parquet,
            "tar-of-tars": found.tars or found.packed,
        }.get(kind, ())
        if not files or (kind == "tar-of-tars" and len(files) == 1):
            unused += _strays(found, files) if files else ()
            return self._parts((found, self.one(root, found)), None, unused)
        unused += tuple(system_folders(root)) if found.folder else ()
        by_name = {file.name if found.folder else file.key: file for file in files}
        chosen = choose_files(root, tuple(by_name))

        def content(names: Iterable[str]) -> Content:
            return Content(None, tuple(by_name[name] for name in names))

        held = content(chosen.val or chosen.test)
        shards = kind == "webdataset"
        val = self._held_out(root, held, need=bool(chosen.val), shards=shards) if held.files else None
        for names, reason in (
            (chosen.test if chosen.val else (), OTHER_TEST),
            (chosen.test if held.files and not val else (), NO_LABELS),
            (chosen.rest, LEFT_OVER),
        ):
            unused += tuple((_file(by_name[name], found), reason) for name in names)
        unused += _strays(found, files)
        train = content(chosen.train)
        return self._parts((train, self.one(root, train)), (held, val) if val else None, unused)

    def one(self, place: Place, found: Content) -> Source:
        """The source of one part: a folder, or files."""
        kind = self.options.kind or found.kind(place)
        forced = kind == self.options.kind
        make: dict[str, tuple[Sequence[object], Callable[[], Source]]] = {
            "folders": (found.folders, lambda: ClassFolders(self.name, place, nested=forced)),
            "tars": (found.tars if found.folder else (), lambda: ClassTars(self.name, place, nested=forced)),
            "tars-gz": (found.packed if found.folder else (), lambda: self._class_tars(place, found.packed)),
            "tar-of-tars": (found.tars or found.packed, lambda: self._whole(place, found)),
            "webdataset": (found.tars, lambda: self._of_files(kind, found.tars)),
            "parquet": (found.parquet, lambda: self._of_files(kind, found.parquet)),
        }
        there, maker = make.get(kind, ((), None))
        if not there or maker is None:
            raise SourceError(f"{place} is not what --source {kind} says ({KINDS[kind]}): leave it out to look")
        return maker()

    def _parts(
        self, train: tuple[Content, Source], val: tuple[Content, Source] | None, unused: tuple[Reject, ...]
    ) -> Source:
        """Both parts, each as it was found and as it is read."""
        if not val and not unused:
            return train[1]
        contents = [content for content, _ in ((train, val) if val else (train,))]
        names = tuple(_shown(content) for content in contents)
        if len(set(names)) < len(names):  # 0000.parquet in train/ and in validation/
            above = [(content.folder or content.files[0]).parent.name for content in contents]
            names = tuple(f"{folder}/{name}" for folder, name in zip(above, names, strict=True))
        where = str(val[0].folder or val[0].files[0]) if val else ""
        return Parts(self.name, train[1], val[1] if val else None, where, names, unused)

    def imagenet(self, root: Place, found: Content) -> Source:
        """The tars of ILSVRC2012 as they are fetched; either part may be unpacked. found: empty on a web server."""
        finder = _Finder(self.name, replace(self.options, kind=""))
        parts = {name: folder_part(name) for name in found.folders}
        known = (folder_part(Path(TRAIN_TAR).stem).rest, ())  # the name of the tar, or the word alone, which goes first
        whole = {part.role: name for rest in known for name, part in reversed(parts.items()) if part.rest == rest}
        if (root / TRAIN_TAR).is_file():
            at = Content(None, (root / TRAIN_TAR,))
            train: tuple[Content, Source] = at, TarOfTars(self.name, root / TRAIN_TAR)
        elif TRAIN in whole:
            at = Content.of(root / whole[TRAIN])
            train = at, finder.one(root / whole[TRAIN], at)
        else:
            raise SourceError(f"{root} has neither {TRAIN_TAR} nor train/: both parts have to be there")
        val: tuple[Content, Source] | None = None
        held = Content(None, (root / VAL_TAR,)) if (root / VAL_TAR).is_file() else None
        if held:
            labels = find_labels((root,), self.options.val_labels)
            if not labels:
                raise no_labels(root / VAL_TAR)
            val = held, LabelledTar(self.name, root / VAL_TAR, labels)
        elif VAL in whole:
            held = Content.of(root / whole[VAL])
            source = finder._held_out(root, held)
            val = (held, source) if source else None
        used = _names(train[0]) | (_names(held) if held else set())
        return self._parts(train, val, (*_left_over(found, used, {}), *system_folders(root)))

    def _whole(self, place: Place, found: Content) -> Source:
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
        return Gunzipped(
            "class-tars-gz",
            tuple(pairs.items()),
            ClassTars(self.name, Place.of(folder), self.options.kind == "tars-gz"),
        )

    def _of_files(self, kind: str, files: tuple[Place, ...]) -> Source:
        if len({file.stem for file in files}) < len(files):
            raise SourceError(f"several files of one part are called {files[0].name}: give each a name of its own")
        if kind == "webdataset":
            folder = files[0].parent
            return WebDataset(self.name, files, read_classes((folder, folder.parent)))
        home = self._scratch(files)
        pairs = tuple((path, home / flat_name(path.stem, self.options)) for path in files)
        return Parquet(self.name, pairs, self.options.image_column, self.options.label_column)

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


def _beside_files(found: Content) -> Chosen | None:
    """The parts where train is in files, and all folders beside them are to be held out."""
    parts = {name: folder_part(name) for name in found.folders}
    if not parts or not _files(found, TRAIN, ()).files:
        return None
    if not all(part.whole and part.role != TRAIN for part in parts.values()):
        return None
    val, test = (tuple(name for name, part in parts.items() if part.role == role) for role in (VAL, TEST))
    return Chosen(val=val, test=test)


def _files(found: Content, role: str, words: Collection[tuple[str, ...]]) -> Content:
    """The tars and Parquet files of one part by their names. words: what else the names may say; empty for anything."""
    parts = {file: archive_part(file.name) for file in found.archives}
    return Content(None, tuple(f for f, p in parts.items() if p.role == role and (not words or p.rest in words)))


def _strays(found: Content, used: Iterable[Place], prefix: str = "") -> tuple[Reject, ...]:
    """The archives in a folder of shards, Parquet files or a tar of tars that are not among `used`."""
    return tuple((prefix + name, NOT_READ) for name in found.strays(used)) if found.folder else ()


def _left_over(found: Content, used: set[str], reasons: dict[str, str]) -> tuple[Reject, ...]:
    """The folders, tars and Parquet files that are no part; `reasons` for some of them."""
    parts = {f"{name}/": folder_part(name) for name in found.folders if name not in LIST_NAMES}
    parts |= {file.name: archive_part(file.name) for file in found.archives}
    usual = {name: OTHER_TEST if part.role == TEST else LEFT_OVER for name, part in parts.items()}
    return tuple((name, reasons.get(name, reason)) for name, reason in usual.items() if name not in used)


def _names(found: Content) -> set[str]:
    """The names of a part's folder or files, as leftovers beside it are named."""
    return {f"{found.folder.name}/"} if found.folder else {file.name for file in found.files}


def _file(file: Place, found: Content) -> str:
    """A file's name; with its folder's where several folders hold such files."""
    several = len({other.parent.key for other in found.files}) > 1
    return f"{file.parent.name}/{file.name}" if several else file.name


def _shown(found: Content) -> str:
    """The folder or the files of a part, for people."""
    if found.folder:
        return f"{found.folder.name}/"
    more = f" and {len(found.files) - 1} more" if len(found.files) > 1 else ""
    return escape(found.files[0].name) + more


def _stem(path: Place) -> str:
    return next(path.name[: -len(ending)] for ending in GZIPPED if path.name.endswith(ending))
