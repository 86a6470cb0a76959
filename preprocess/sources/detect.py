"""From a path to the source that is there: which folders and files are train and val, each in a form of its own."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from braceexpand import braceexpand

from ...shards_manifest.storage.address import is_url, shown
from ...shards_manifest.tables import escape
from ..config import SourceOptions
from ..errors import ConfigError, SourceError
from ..source_kinds import KINDS
from .base import Reject, Source
from .class_folders import ClassFolders
from .class_tars import TarOfTars
from .detect_form import detect_form, flat_tar
from .detect_parts import (
    LEFT_OVER,
    NO_LABELS,
    NOT_READ,
    OTHER_TEST,
    FolderSummary,
    PartAssignment,
    choose_files,
    choose_folders,
)
from .file_filter import system_folders
from .folder_content import ARCHIVES, FolderContent, archive_part
from .forms import FORMS, PartRequest, make_source, webdataset_source
from .labelled_images import LabelledFolder, LabelledTar
from .parquet import Parquet, check_column_options
from .part_names import TEST, TRAIN, VAL, folder_part
from .path import SourcePath
from .train_val import TrainValSource, uses_labels
from .val_labels import LIST_NAMES, find_labels, no_labels
from .webdataset import WebDataset

TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
MOST_CONFIGS = 16  # folders that are searched for Parquet files, as data hubs lay out their configurations

_DETECT = SourceOptions()
_Part = tuple[FolderContent, Source]


def find_source(path: str | os.PathLike[str], options: SourceOptions = _DETECT) -> Source:
    """Return the source at a path, detected or as the options say.

    The path is a folder or a file in one of the forms of source_kinds.KINDS; or a folder with one of them in train/
    and, if there is a part to validate on, one in val/ or test/, in whatever words (part_names.py); or files named with
    braces, `train-{000..146}.tar`. It is a local path or a URL.

    Raises:
        SourceError: There is no such source; the sentence says what was found instead.
        ConfigError: An option does not apply to this source.
        StoreError, OSError
    """
    source = _find(path, options)
    if options.val_labels is not None and not uses_labels(source):
        raise SourceError(
            f"--val-labels {shown(options.val_labels)} does not apply: {shown(path)} has no validation images that lie "
            "flat in one folder or one tar, beside a train part: leave it out"
        )
    check_column_options(options, source.sources() if isinstance(source, TrainValSource) else (source,), path)
    return source


def _find(path: str | os.PathLike[str], options: SourceOptions) -> Source:
    if options.kind and options.kind not in KINDS:
        raise ConfigError(f"--source {options.kind}: choose {', '.join(KINDS)}")
    text = os.fspath(path)
    root = SourcePath.of(text)
    name = root.name if is_url(text) else Path(text).resolve().name
    web = root.store.web  # lists no folders, and may have a page where one is
    if root.is_dir():
        return _Detector(escape(name), options).in_folder(root)
    if root.is_pattern and (web or not root.is_file()):
        folder = SourcePath(root.store, root.key.partition("{")[0].rpartition("/")[0])
        return _Detector(escape(folder.name), options).in_files(root)
    if (not web or name.endswith(ARCHIVES)) and root.is_file():
        return _Detector(escape(name.partition(".")[0]), options).one_part(root, FolderContent.of(root))
    if not web or name.endswith(ARCHIVES):
        raise SourceError(f"{shown(text)} does not exist")
    if any((root / tar).is_file() for tar in (TRAIN_TAR, VAL_TAR)):
        return _Detector(escape(name), options).ilsvrc(root, FolderContent(None, ()))
    raise SourceError(
        f"{shown(text)} is no {' or '.join(ARCHIVES)} file, and web servers list no folders: name one file, or several "
        "with braces as in train-{000..146}.tar"
    )


@dataclass(frozen=True)
class _Detector:
    """Finds the parts of a data set of this name and makes their sources."""

    name: str
    options: SourceOptions

    def in_folder(self, root: SourcePath, unused: tuple[Reject, ...] = ()) -> Source:
        """Return the source in a folder, with all its parts.

        Args:
            root: The folder.
            unused: What was left out on the way to it.
        """
        kind = self.options.kind
        content = FolderContent.of(root)
        if kind == "imagenet" or (not kind and {TRAIN_TAR, VAL_TAR} & {file.name for file in content.files}):
            return self.ilsvrc(root, content)
        chosen = choose_folders(root, content.folders, lambda name: _summary(root / name), kind == "folders")
        chosen = chosen or _folders_beside_train_files(content)
        if chosen:
            return self._parts_in_folders(root, content, chosen, unused)
        if not content.parquet and kind in ("", "parquet") and (inner := self._hub_configuration(root, content)):
            others = tuple((f"{name}/", LEFT_OVER) for name in content.folders if name != inner)
            return self.in_folder(root / inner, unused + others)
        return self._parts_in_one_place(root, content, unused)

    def in_files(self, pattern: SourcePath) -> Source:
        """Return the source in the files that a pattern with braces names."""
        try:
            files = tuple(SourcePath(pattern.store, key) for key in braceexpand(pattern.key))
        except ValueError:
            raise SourceError(f"{pattern} does not exist, and is no pattern: braces are written in pairs") from None
        missing = next((file for file in files if not file.is_file()), None)
        if missing:
            raise SourceError(f"{missing}, one of the {len(files)} files of {pattern}, does not exist")
        return self._parts_in_one_place(pattern, FolderContent(None, files), ())

    def one_part(self, path: SourcePath, content: FolderContent) -> Source:
        """Return the source of one part: a folder, or files."""
        return make_source(PartRequest(self.name, self.options, path, content))

    def ilsvrc(self, root: SourcePath, content: FolderContent) -> Source:
        """Return the source of the tars of ILSVRC2012 as they are fetched; either part may be unpacked.

        Args:
            root: The folder.
            content: What it contains; empty on a web server.
        """
        detector = _Detector(self.name, replace(self.options, kind=""))
        parts = {name: folder_part(name) for name in content.folders}
        known = (folder_part(Path(TRAIN_TAR).stem).rest, ())  # the name of the tar, or the word alone, which goes first
        unpacked = {part.role: name for rest in known for name, part in reversed(parts.items()) if part.rest == rest}
        if (root / TRAIN_TAR).is_file():
            train: _Part = FolderContent(None, (root / TRAIN_TAR,)), TarOfTars(self.name, root / TRAIN_TAR)
        elif TRAIN in unpacked:
            folder = FolderContent.of(root / unpacked[TRAIN])
            train = folder, detector.one_part(root / unpacked[TRAIN], folder)
        else:
            raise SourceError(f"{root} has neither {TRAIN_TAR} nor train/: both parts have to be there")
        val: _Part | None = None
        used = _names(train[0])
        if (root / VAL_TAR).is_file():
            labels = find_labels((root,), self.options.val_labels)
            if not labels:
                raise no_labels(root / VAL_TAR)
            val = FolderContent(None, (root / VAL_TAR,)), LabelledTar(self.name, root / VAL_TAR, labels)
            used |= _names(val[0])
        elif VAL in unpacked:
            folder = FolderContent.of(root / unpacked[VAL])
            source = detector._val_source(root, folder)
            val = (folder, source) if source else None
            used |= _names(folder)
        return self._combined(train, val, (*_left_over(content, used, {}), *system_folders(root)))

    def _parts_in_folders(
        self, root: SourcePath, content: FolderContent, chosen: PartAssignment, unused: tuple[Reject, ...]
    ) -> Source:
        """Return the source of parts in folders; either part may be in files beside the other's folder."""
        train = FolderContent.of(root / chosen.train[0]) if chosen.train else _files_of_part(content, TRAIN, ())
        reasons: dict[str, str] = {}
        val: _Part | None = None
        for role, candidate in _val_candidates(root, content, chosen):
            source = self._val_source(root, candidate, required=role == VAL)
            if source:
                val = candidate, source
                break
            reasons |= dict.fromkeys(_names(candidate), NO_LABELS)
        used = _names(train) | (_names(val[0]) if val else set())
        unused += (*_left_over(content, used, reasons), *system_folders(root))
        if content.images:
            unused += ((f"{content.images[0]} ...", f"{len(content.images)} images that lie in the folder of no part"),)
        parts = [(train, self.one_part(train.path, train)), *([val] if val else [])]
        for part, source in parts:
            if part.folder and isinstance(source, WebDataset | Parquet | TarOfTars):  # others name what is beside them
                unused += _unread_archives(part, source.files(), f"{part.folder.name}/")
        return self._combined(parts[0], val, unused)

    def _parts_in_one_place(self, root: SourcePath, content: FolderContent, unused: tuple[Reject, ...]) -> Source:
        """Return the source of files of all parts in one place, found by their names; or of the one part there."""
        kind = self.options.kind or detect_form(content, root)
        form = FORMS.get(kind)
        files = form.files(content) if form and form.parts_by_name else ()
        if not files or (kind == "tar-of-tars" and len(files) == 1):
            unused += _unread_archives(content, files) if files else ()
            return self._combined((content, self.one_part(root, content)), None, unused)
        unused += tuple(system_folders(root)) if content.folder else ()
        by_name = {file.name if content.folder else file.key: file for file in files}
        chosen = choose_files(root, tuple(by_name))

        def files_named(names: Iterable[str]) -> FolderContent:
            return FolderContent(None, tuple(by_name[name] for name in names))

        val = None
        candidate = files_named(chosen.val or chosen.test)
        if candidate.files:
            val = self._val_source(root, candidate, required=bool(chosen.val), shards=kind == "webdataset")
        for names, reason in (
            (chosen.test if chosen.val else (), OTHER_TEST),
            (chosen.test if candidate.files and not val else (), NO_LABELS),
            (chosen.rest, LEFT_OVER),
        ):
            unused += tuple((_file_name(by_name[name], content), reason) for name in names)
        unused += _unread_archives(content, files)
        train = files_named(chosen.train)
        return self._combined((train, self.one_part(root, train)), (candidate, val) if val else None, unused)

    def _val_source(
        self, root: SourcePath, content: FolderContent, required: bool = True, shards: bool = False
    ) -> Source | None:
        """Return the source of val; flat images take their labels from beside them.

        Args:
            root: The folder of the data set.
            content: What may be val.
            required: Without labels raise SourceError; otherwise return None.
            shards: Train consists of shards, so tars without labels are shards too; the scan leaves them out and
                names them.
        """
        folder, tar = content.flat_folder(), flat_tar(content)
        if not folder and not tar:
            if shards:
                return self._shards(content)
            source = self.one_part(content.path, content)
            # train decides whether its folders are classes
            return replace(source, nested=True) if isinstance(source, ClassFolders) else source
        beside = [folder, content.folder, root] if folder and content.folder else [content.files[0].parent]
        labels = find_labels(tuple(dict.fromkeys(beside)), self.options.val_labels)
        if labels and folder:
            return LabelledFolder(self.name, folder, labels)
        if labels and tar:
            return LabelledTar(self.name, tar, labels)
        if shards:
            return self._shards(content)
        if required:
            raise no_labels(folder or content.files[0])
        return None

    def _shards(self, content: FolderContent) -> Source:
        return webdataset_source(PartRequest(self.name, self.options, content.path, content))

    def _hub_configuration(self, root: SourcePath, content: FolderContent) -> str:
        """Return the folder with the Parquet files of a data hub: data, or the one configuration; empty for none.

        Raises SourceError if there are several.
        """
        if "data" in content.folders and (root / "data").files(".parquet"):
            return "data"
        names = []
        for name in islice(content.folders, 0 if content.archives else MOST_CONFIGS):
            inner = FolderContent.of(root / name)
            if inner.images:
                return ""  # class folders
            parts = (FolderContent.of(root / name / part) for part in inner.folders if folder_part(part).role)
            if inner.parquet or any(part.parquet for part in parts):
                names.append(name)
        if len(names) > 1:
            raise SourceError(f"{root} holds the configurations {' and '.join(names)}: name one, as {root}/{names[0]}")
        return names[0] if names else ""

    def _combined(self, train: _Part, val: _Part | None, unused: tuple[Reject, ...]) -> Source:
        """Return one source of both parts."""
        if not val and not unused:
            return train[1]
        contents = [content for content, _ in ((train, val) if val else (train,))]
        names = tuple(_display(content) for content in contents)
        if len(set(names)) < len(names):  # 0000.parquet in train/ and in validation/
            names = tuple(f"{c.path.parent.name}/{name}" for c, name in zip(contents, names, strict=True))
        where = str(val[0].path) if val else ""
        return TrainValSource(self.name, train[1], val[1] if val else None, where, names, unused)


def _summary(path: SourcePath) -> FolderSummary:
    content = FolderContent.of(path)
    groups = bool(content.folders or content.archives)
    nameless = not groups and any("." not in file.name for file in content.files)  # images without an ending
    return FolderSummary(bool(content.images) or nameless, groups)


def _folders_beside_train_files(content: FolderContent) -> PartAssignment | None:
    """Return the parts if train is in files and every folder is called val or test; else None."""
    parts = {name: folder_part(name) for name in content.folders}
    if not parts or not _files_of_part(content, TRAIN, ()).files:
        return None
    if not all(part.exact and part.role != TRAIN for part in parts.values()):
        return None
    val, test = (tuple(name for name, part in parts.items() if part.role == role) for role in (VAL, TEST))
    return PartAssignment(val=val, test=test)


def _val_candidates(
    root: SourcePath, content: FolderContent, chosen: PartAssignment
) -> Iterator[tuple[str, FolderContent]]:
    """Yield what may become val, with its role, the best first; a folder goes before the files of the same part."""
    words = {(), *(folder_part(name).rest for name in chosen.train)}
    for role, names in ((VAL, chosen.val), (TEST, chosen.test)):
        if names:
            yield role, FolderContent.of(root / names[0])
        elif (files := _files_of_part(content, role, words)).files:
            yield role, files


def _files_of_part(content: FolderContent, role: str, words: Collection[tuple[str, ...]]) -> FolderContent:
    """Return the tars and Parquet files of one part by their names.

    Args:
        content: The folder.
        role: The part.
        words: The other words that a name may have; empty for any.
    """
    parts = {file: archive_part(file.name) for file in content.archives}
    return FolderContent(None, tuple(f for f, p in parts.items() if p.role == role and (not words or p.rest in words)))


def _unread_archives(content: FolderContent, used: Iterable[SourcePath], prefix: str = "") -> tuple[Reject, ...]:
    """Return a reject for each archive in a folder that is not among `used`."""
    return tuple((prefix + name, NOT_READ) for name in content.other_archives(used)) if content.folder else ()


def _left_over(content: FolderContent, used: set[str], reasons: dict[str, str]) -> tuple[Reject, ...]:
    """Return a reject for each folder, tar and Parquet file that is no part; some have a reason of their own."""
    parts = {f"{name}/": folder_part(name) for name in content.folders if name not in LIST_NAMES}
    parts |= {file.name: archive_part(file.name) for file in content.archives}
    usual = {name: OTHER_TEST if part.role == TEST else LEFT_OVER for name, part in parts.items()}
    return tuple((name, reasons.get(name, reason)) for name, reason in usual.items() if name not in used)


def _names(content: FolderContent) -> set[str]:
    """Return the name of a part's folder, or those of its files, as `_left_over` writes them."""
    return {f"{content.folder.name}/"} if content.folder else {file.name for file in content.files}


def _file_name(file: SourcePath, content: FolderContent) -> str:
    """Return a file's name; with that of its folder if the files are in several folders."""
    several = len({other.parent.key for other in content.files}) > 1
    return f"{file.parent.name}/{file.name}" if several else file.name


def _display(content: FolderContent) -> str:
    """Return the folder or the files of a part, for people."""
    if content.folder:
        return f"{content.folder.name}/"
    more = f" and {len(content.files) - 1} more" if len(content.files) > 1 else ""
    return escape(content.files[0].name) + more
