"""Labels of validation images without class folders: the devkit of ILSVRC2012, or a list of file names and labels."""

from __future__ import annotations

import csv
import io
import os
import re
import tarfile
from collections.abc import Sequence
from pathlib import PurePosixPath

from ...shards_manifest.storage.address import shown
from ...shards_manifest.tables import escape
from ..errors import SourceError
from ..image_formats import IMAGE_ENDINGS
from .matfile import read_mat
from .path import SourcePath
from .text_files import text_lines

DEVKIT = "ILSVRC2012_devkit_t12"
TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
TINY = "val_annotations.txt"  # of Tiny-ImageNet: file, class and a box, with tabs between them
LIST_NAMES = (f"{DEVKIT}.tar.gz", f"{DEVKIT}.tar", DEVKIT, "val.txt", "LOC_val_solution.csv", TINY)
LARGEST_LIST = 64 * 2**20

_ENDINGS = "|".join(map(re.escape, IMAGE_ENDINGS))
_AFTER_ENDING = re.compile(rf"(?:{_ENDINGS})\"?(?: *([\t,])| )", re.IGNORECASE)
_BOXES = re.compile(r"(\S+)(?: -?[0-9]+){4}(?: |$)")
_NAME_HEADS = (  # what the first line of a list calls the column of file names, and that of labels
    *("imageid", "image_id", "image", "image_name", "img", "file", "filename", "file_name", "filepath", "file_path"),
    *("path", "name", "id"),
)
_LABEL_HEADS = (
    *("label", "labels", "label_name", "class", "class_id", "class_name", "classname", "category", "target"),
    *("wnid", "synset", "predictionstring"),
)


def find_labels(folders: Sequence[SourcePath], named: str | os.PathLike[str] | None) -> SourcePath | None:
    """Return where the labels of images without class folders are: as named, else in one of `folders`; None if nowhere.

    Raises:
        SourceError: What was named does not exist.
    """
    if named is not None:
        path = SourcePath.of(named)
        if not path.is_file() and not path.is_dir():
            raise SourceError(f"--val-labels {shown(named)} does not exist")
        return path
    paths = (folder / name for folder in folders for name in LIST_NAMES)
    return next((path for path in paths if path.is_file() or path.is_dir()), None)


def no_labels(images: SourcePath) -> SourceError:
    """Return the error for images without class folders and without labels, and how to give them."""
    return SourceError(
        f"{images} holds images without class folders and has no labels beside it: put {DEVKIT}.tar.gz there, or name "
        "the devkit or a list of 'filename label' with --val-labels"
    )


def read_labels(path: SourcePath) -> dict[str, str]:
    """Return the label, a wnid or a number as text, of each image by the stem of its name.

    Args:
        path: The devkit, packed or unpacked, or its ground truth file, or a text list of `filename label`.

    Raises:
        SourceError, OSError
    """
    data = data_folder(path)
    if data is not None:
        return _from_devkit((data / TRUTH).read(), (data / META).read(), path)
    if path.is_dir():
        raise SourceError(f"{path} is not the devkit: it lacks data/{TRUTH} or data/{META}")
    if path.name.endswith((".tar.gz", ".tgz", ".tar")):
        return _from_devkit(*_unpack_devkit(path), path)
    return _from_list(path)


def data_folder(path: SourcePath) -> SourcePath | None:
    """Return the folder where an unpacked devkit has its data; None if there is no such devkit."""
    folders = (path, path / "data") if path.is_dir() else (path.parent,) if path.name == TRUTH else ()
    return next((p for p in folders if (p / TRUTH).is_file() and (p / META).is_file()), None)


def _unpack_devkit(path: SourcePath) -> tuple[bytes, bytes]:
    """Return the ground truth and meta.mat from the devkit's tar."""
    contents = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(path.read())) as tar:  # 2.5 MB
            for member in tar:
                name = PurePosixPath(member.name).name
                if name in (TRUTH, META) and member.isreg() and member.size <= LARGEST_LIST:
                    file = tar.extractfile(member)
                    contents[name] = file.read() if file else b""
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise SourceError(f"{path} is not a complete devkit ({error}): fetch it again") from None
    if len(contents) < 2:
        raise SourceError(f"{path} is not the devkit: it lacks data/{TRUTH} or data/{META}")
    return contents[TRUTH], contents[META]


def _from_devkit(truth: bytes, meta: bytes, path: SourcePath) -> dict[str, str]:
    try:
        synsets = read_mat(meta)["synsets"]
        wnid = {int(synset["ILSVRC2012_ID"][0]): str(synset["WNID"]) for synset in synsets}
        labels = [wnid[int(line)] for line in truth.split()]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise SourceError(
            f"the devkit {path} cannot be read ({error}): name a list of 'filename label' with --val-labels instead"
        ) from None
    return {f"ILSVRC2012_val_{number:08d}": label for number, label in enumerate(labels, 1)}


def _from_list(path: SourcePath) -> dict[str, str]:
    """Read lines of `filename label` (see `_split_line`), with or without a first line that names the columns.

    Kaggle has commas and names the columns, Tiny-ImageNet has tabs.
    """
    if path.size() > LARGEST_LIST:
        raise SourceError(f"{path} is too large for a list of labels")
    labels: dict[str, str] = {}
    for number, line in enumerate(text_lines(path.read(), path), 1):
        if not line.strip():
            continue
        name, label, more = _split_line(line)
        if number == 1 and name.casefold() in _NAME_HEADS:
            if more and label.casefold() not in _LABEL_HEADS:
                raise SourceError(
                    f"the headline of {path} does not call its second column label, but {escape(label)}: keep a column "
                    "of file names and one of labels"
                )
            continue
        if not name or not label:
            raise SourceError(f"line {number} of {path} is not 'filename label'")
        stem = file_stem(name)
        if labels.setdefault(stem, label) != label:
            raise SourceError(f"{path} gives {stem} two labels, {labels[stem]} and {label}: keep one")
    if not labels:
        raise SourceError(f"{path} lists no labels")
    if len({label.isdecimal() for label in labels.values()}) > 1:
        raise SourceError(f"{path} mixes numbers with names of classes: use one of them")
    return labels


def file_stem(name: str) -> str:
    """Return a file's name without its folders, with slashes of either kind, and without its last ending."""
    return PurePosixPath(name.replace("\\", "/")).stem


def _split_line(line: str) -> tuple[str, str, bool]:
    """Return the file name and the label of a line, and whether more columns follow.

    The separator is what follows the ending of an image, else a tab, else a comma, else the last space. After a space
    the rest of the line is the label, as names of classes have spaces; tabs and commas end it, and commas may be
    quoted. Boxes after a label are left out.
    """
    line = line.strip()
    after = _AFTER_ENDING.search(line)
    between = (after[1] or " ") if after else next((sign for sign in "\t," if sign in line), " ")
    if between == " ":
        name, _, label = (line[: after.end() - 1], "", line[after.end() :]) if after else line.rpartition(" ")
        more = False
    else:
        name, label, *rest = [*next(csv.reader([line], delimiter=between, skipinitialspace=True)), ""]
        more = len(rest) > 1
    label = label.strip()
    boxes = _BOXES.match(label)
    return name.strip(), boxes[1] if boxes else label, more
