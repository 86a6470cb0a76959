"""Which form the content of a folder has: by what files there are, and for tars by their first members."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from ...shards_manifest.tables import escape
from ..errors import SourceError
from ..source_kinds import kinds_sentence
from .base import is_hidden
from .file_filter import has_image_ending, system_folder
from .folder_content import FolderContent, archive_part, archive_stem
from .part_names import TRAIN
from .path import SourcePath
from .tar_reader import member_name, open_range, tar_members
from .webdataset import LARGEST_TEXT, looks_like_shard

_FIRST_MEMBERS = 16  # of a tar, which show what it is
_NUMBERED = re.compile(r"(^|[-_.])\d+$")  # shard-000 and 00012, not n01440764


def detect_form(content: FolderContent, path: SourcePath) -> str:
    """Return the form of what is there, one of source_kinds.KINDS.

    Args:
        content: The folder, or the files.
        path: What the user named, for messages.

    Raises:
        SourceError: There is no known form, or several, or the parts of a data set look like classes.
    """
    there: dict[str, Sequence[str]] = {
        "class folders": content.folders[:1],
        "tars": [file.name for file in content.tars[:1]],
        "compressed tars": [file.name for file in content.compressed_tars[:1]],
        "Parquet files": [file.name for file in content.parquet[:1]],
    }
    there = {name: first for name, first in there.items() if first}
    if len(there) > 1:
        names = ", ".join(first[0] for first in there.values())
        raise SourceError(f"{path} holds both {' and '.join(there)} ({names}): keep one kind, or choose with --source")
    if not there:
        what = "is a file of no known form"
        if content.folder:
            some = _some_names([file.name for file in content.files])
            what = f"holds neither class folders nor class tars nor another known form, but {some}"
        raise SourceError(f"{path} {what}; what is known is {kinds_sentence()}")
    if content.folders:
        return "folders"
    return "parquet" if content.parquet else _detect_tars(content, path)


def _detect_tars(content: FolderContent, path: SourcePath) -> str:
    tars = content.tars or content.compressed_tars
    kind = tar_kind(tars)
    if kind == "webdataset" and content.compressed_tars:
        raise SourceError(f"{path} holds compressed WebDataset shards, as {tars[0].name}: expand them with gunzip")
    if kind != "tars":
        return kind
    if not content.folder:
        first = list(first_members(tars[0]))
        if content.compressed_tars and not first:
            return "tar-of-tars"  # the expansion will say what is wrong
        raise SourceError(
            f"{path} is a file that holds neither class tars nor key.jpg with key.cls, but "
            f"{escape(first[0]) if first else 'nothing'}: name the folder of the class tars, or unpack it"
        )
    kind = "tars-gz" if content.compressed_tars else "tars"
    if parts := _tars_named_as_parts(tars):
        raise SourceError(
            f"{' and '.join(parts)} of {path} would be one class each, but are named as parts of a data set: "
            f"unpack each into a folder of its name, or take them for classes with --source {kind}"
        )
    return kind


def flat_tar(content: FolderContent) -> SourcePath | None:
    """Return the one tar of images without classes that the content is; None if it is anything else."""
    alone = content.folder is None and len(content.files) == 1 and content.tars
    return content.files[0] if alone and tar_kind(content.files) == "tars" else None


def tar_kind(tars: Sequence[SourcePath]) -> str:
    """Return tar-of-tars, webdataset, or else tars, by the first members of one tar: one of train if there is one.

    Images with a .json beside each are shards if that has a label, or if a tar is numbered as shards are. Images with a
    .txt, a caption, beside each are shards only if a tar is numbered.
    """
    example = next((path for path in tars if archive_part(path.name).role == TRAIN), tars[0])
    first = first_members(example)
    if any(name.endswith(".tar") for name in first):
        return "tar-of-tars"
    numbered = any(_NUMBERED.search(archive_stem(path.name)) for path in tars)
    if not looks_like_shard(first):
        return "webdataset" if numbered and _has_captions(first) else "tars"
    labelled = any(name.lower().endswith(".cls") or _has_label(data) for name, data in first.items())
    return "webdataset" if labelled or numbered else "tars"


def first_members(path: SourcePath) -> dict[str, bytes]:
    """Return the first members of a tar, as far as they can be read, up to the first that is a tar.

    The value of a small .json is its content, that of all other members is empty.
    """
    members: dict[str, bytes] = {}
    try:
        with _open_members(path) as opened:
            for member, read in islice(opened, _FIRST_MEMBERS):
                name = member_name(member)
                if is_hidden(os.fsencode(name)) or system_folder(os.fsencode(name)):
                    continue  # macOS puts ._a.tar before a.tar
                small = name.lower().endswith(".json") and member.size <= LARGEST_TEXT
                members[name] = read(member) if small else b""
                if name.endswith(".tar"):
                    break
    except (SourceError, tarfile.TarError, EOFError, OSError, ValueError):
        pass  # the scan will say what is wrong
    return members


@contextmanager
def _open_members(path: SourcePath) -> Iterator[Iterable[tuple[tarfile.TarInfo, Callable[[tarfile.TarInfo], bytes]]]]:
    """Open a tar and give its members, each with a function that reads one.

    In a compressed tar only the current member can be read.
    """
    if path.name.endswith(".tar"):
        with open_range(path) as file:
            yield ((m, lambda member: file.at(member.offset_data, member.size)) for m in tar_members(file, str(path)))
        return
    with path.open() as raw, tarfile.open(fileobj=raw, mode="r|gz") as tar:

        def read(member: tarfile.TarInfo) -> bytes:
            inner = tar.extractfile(member)
            return inner.read() if inner else b""

        yield ((member, read) for member in tar if not member.isdir())


def _has_captions(names: Iterable[str]) -> bool:
    """Return whether an image has a .txt of its own name, as img2dataset writes captions."""
    there = set(names)
    return any(has_image_ending(name) and f"{name.rpartition('.')[0]}.txt" in there for name in there)


def _has_label(data: bytes) -> bool:
    """Return whether data is JSON with a label, as in WebDataset shards."""
    try:
        content = json.loads(data) if data else None
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "label" in content


def _tars_named_as_parts(tars: Sequence[SourcePath]) -> list[str]:
    """Return the names of two tars, or of the only one, that are named as parts of one data set; else nothing."""
    names = {path.name: archive_part(path.name) for path in tars}
    if not any(first_members(path) for path in tars if names[path.name].role):
        return []  # the scan will say what is wrong
    if len(names) == 1:
        return [name for name, part in names.items() if part.role]
    train = [name for name, part in names.items() if part.role == TRAIN]
    others = [name for name, part in names.items() if part.role not in ("", TRAIN)]
    pairs = ([a, b] for a in train for b in others if names[a].rest == names[b].rest)
    return next(pairs, [])


def _some_names(names: list[str]) -> str:
    """Return a few words on what files there are."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return escape(names[0]) + more if names else "nothing"
