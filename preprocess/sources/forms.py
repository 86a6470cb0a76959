"""The forms that a part of a data set can have: which files belong to each, and the source that reads them.

To add a form, write a module with a class that follows base.Source, describe the form in source_kinds.py, add it to
FORMS below, and have detect_form.py recognise it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import SourceOptions
from ..errors import SourceError
from ..source_kinds import KINDS
from .base import Source
from .class_folders import ClassFolders
from .class_tars import ClassTars, TarOfTars
from .detect_form import detect_form
from .folder_content import FolderContent
from .gzipped_tars import GzippedTars
from .parquet import Parquet, flat_name
from .path import SourcePath
from .scratch import GZIPPED, temporary_folder
from .webdataset import WebDataset, read_classes


@dataclass(frozen=True)
class PartRequest:
    """One part of a data set that a source is to be made for.

    Attributes:
        name: Name of the data set.
        options: What the user says about the source.
        path: The part, for messages; the folder of forms that have one.
        content: The files that it is made of.
    """

    name: str
    options: SourceOptions
    path: SourcePath
    content: FolderContent


@dataclass(frozen=True)
class Form:
    """One form of a part.

    Attributes:
        files: Returns what is read in this form; empty if the content does not have it.
        make: Makes the source.
        parts_by_name: The files of train and val can be in one folder; their names say which are which.
    """

    files: Callable[[FolderContent], tuple[SourcePath, ...]]
    make: Callable[[PartRequest], Source]
    parts_by_name: bool = False


def make_source(request: PartRequest) -> Source:
    """Return the source of one part, in the form that the user names or that is detected.

    Raises:
        SourceError: The part does not have this form, or no known one.
    """
    kind = request.options.kind or detect_form(request.content, request.path)
    form = FORMS.get(kind)
    if form is None or not form.files(request.content):
        raise SourceError(f"{request.path} is not what --source {kind} says ({KINDS[kind]}): leave it out to look")
    return form.make(request)


def webdataset_source(request: PartRequest) -> Source:
    """Return the source of WebDataset shards."""
    shards = request.content.tars
    _check_stems(shards)
    folder = shards[0].parent
    return WebDataset(request.name, shards, read_classes((folder, folder.parent)))


def _class_folders(request: PartRequest) -> Source:
    return ClassFolders(request.name, request.path, nested=request.options.kind == "folders")


def _class_tars(request: PartRequest) -> Source:
    return ClassTars(request.name, request.path, nested=request.options.kind == "tars")


def _gzipped_class_tars(request: PartRequest) -> Source:
    packed = request.content.compressed_tars
    folder = _scratch_folder(request.options, packed)
    pairs = {path: folder / f"{_gzip_stem(path)}.tar" for path in packed}
    if len(set(pairs.values())) < len(pairs):
        raise SourceError(f"{request.path} holds a class both as .tar.gz and as .tgz: keep one")
    plain = ClassTars(request.name, SourcePath.of(folder), nested=request.options.kind == "tars-gz")
    return GzippedTars("class-tars-gz", tuple(pairs.items()), plain)


def _tar_of_tars(request: PartRequest) -> Source:
    files = _tars_of_tars(request.content)
    if len(files) > 1:
        raise SourceError(f"{request.path} holds {len(files)} tars: name the one tar of class tars")
    if request.content.tars:
        return TarOfTars(request.name, files[0])
    plain = _scratch_folder(request.options, files) / f"{_gzip_stem(files[0])}.tar"
    return GzippedTars("tar-of-tars-gz", ((files[0], plain),), TarOfTars(request.name, SourcePath.of(plain)))


def _parquet(request: PartRequest) -> Source:
    files, options = request.content.parquet, request.options
    _check_stems(files)
    folder = _scratch_folder(options, files)
    pairs = tuple((path, folder / flat_name(path.stem, options)) for path in files)
    return Parquet(request.name, pairs, options.image_column, options.label_column)


def _tars_of_tars(content: FolderContent) -> tuple[SourcePath, ...]:
    return content.tars or content.compressed_tars


FORMS = {
    "folders": Form(lambda content: content.folder_paths, _class_folders),
    "tars": Form(lambda content: content.tars if content.folder else (), _class_tars),
    "tars-gz": Form(lambda content: content.compressed_tars if content.folder else (), _gzipped_class_tars),
    "tar-of-tars": Form(_tars_of_tars, _tar_of_tars, parts_by_name=True),
    "webdataset": Form(lambda content: content.tars, webdataset_source, parts_by_name=True),
    "parquet": Form(lambda content: content.parquet, _parquet, parts_by_name=True),
}


def _check_stems(files: Sequence[SourcePath]) -> None:
    """Raise SourceError if two files of one part have the same name in different folders."""
    if len({file.stem for file in files}) < len(files):
        raise SourceError(f"several files of one part are called {files[0].name}: give each a name of its own")


def _scratch_folder(options: SourceOptions, files: Sequence[SourcePath]) -> Path:
    """Return the folder in scratch for what is expanded from these files; another one when they have changed."""
    if options.scratch == "":
        raise SourceError(
            f"{files[0].parent} has to be expanded to where all workers of the cluster can read it: "
            "name a folder that they share with --scratch"
        )
    home = Path(options.scratch).absolute() if options.scratch else temporary_folder()
    stamps = [(path.name, path.stamp()) for path in files]
    return home / hashlib.sha256(os.fsencode(repr((str(files[0].parent), stamps)))).hexdigest()[:16]


def _gzip_stem(path: SourcePath) -> str:
    return next(path.name[: -len(ending)] for ending in GZIPPED if path.name.endswith(ending))
