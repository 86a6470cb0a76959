"""ILSVRC2012_img_val.tar: images without classes, whose labels lie elsewhere."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from shards_manifest import shown

from ..errors import SourceError
from ..listing import Entries, EntriesBuilder, Listing
from .archive import images, window
from .base import LARGEST_LABEL, Found, Reject, Source, made_listing, nobody, numbered_classes, text
from .matfile import read_mat
from .place import Place

DEVKIT = "ILSVRC2012_devkit_t12"
TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
LIST_NAMES = (f"{DEVKIT}.tar.gz", f"{DEVKIT}.tar", DEVKIT, "val.txt", "LOC_val_solution.csv")
LARGEST_LIST = 64 * 2**20


@dataclass(frozen=True)
class LabelledTar(Source):
    """One flat tar of images, and where their labels are: a devkit, or a list of `filename label`."""

    name: str
    path: Place
    labels: Place

    def scan(self, found: Found = nobody) -> Listing:
        """Index the members and look up their classes: wnids, or numbers where the list has numbers."""
        wanted = read_labels(self.labels)
        numbered = all(label.isdecimal() for label in wanted.values())
        if numbered:
            largest = max(map(int, wanted.values()))
            if largest >= LARGEST_LABEL:
                raise SourceError(f"{self.labels} has the label {largest}, which is no index of a class")
            classes = numbered_classes(largest + 1)
            index = {label: int(label) for label in set(wanted.values())}
        else:
            classes = tuple(sorted(set(wanted.values())))
            index = {label: number for number, label in enumerate(classes)}
        rejects: list[Reject] = []
        rows: dict[bytes, tuple[int, bytes, int, int]] = {}
        with window(self.path) as file:
            for path, offset, size in images(file, str(self.path), "", rejects):
                name = os.path.basename(path)
                label = wanted.get(PurePosixPath(text(name)).stem)
                if label is None or name in rows:
                    reason = "a second image of this name" if label else f"no label in {self.labels.name}"
                    rejects.append((text(path), reason))
                else:
                    rows[name] = (index[label], name, offset, size)
        builder = EntriesBuilder(found)
        builder.add_rows(rows.values())
        entries = builder.build()
        return made_listing(classes, entries.take(entries.by_class()[0]), rejects, self.path, numbered)

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """The member's bytes, by its offset."""
        return self.path.range(int(entries.offset[i]), int(entries.size[i]))

    def describe(self) -> dict[str, str]:
        """Kind and name."""
        return {"kind": "labelled-tar", "name": self.name}

    def files(self) -> Iterable[Place]:
        """The tar, and the labels."""
        data = _data_folder(self.labels)
        return [self.path, *((data / TRUTH, data / META) if data else (self.labels,))]

    @property
    def threads(self) -> int:
        """Those of the store."""
        return self.path.store.threads


def find_labels(folder: Place, named: str | os.PathLike[str] | None, tar: Place) -> Place:
    """The labels of a validation tar: as named, else what lies beside it. Raises SourceError if there are none."""
    if named is not None:
        place = Place.of(named)
        if not place.is_file() and not place.is_dir():
            raise SourceError(f"--val-labels {shown(named)} does not exist")
        return place
    for name in LIST_NAMES:
        if (folder / name).is_file() or (folder / name).is_dir():
            return folder / name
    raise SourceError(
        f"{tar} has no labels beside it: put {DEVKIT}.tar.gz there, or name the devkit or a list of "
        "'filename label' with --val-labels"
    )


def read_labels(path: Place) -> dict[str, str]:
    """The label, a wnid or a number as text, of each image by the stem of its name.

    From the devkit (packed or unpacked, or its ground truth file) or a text list of `filename label`.
    Raises SourceError, OSError.
    """
    data = _data_folder(path)
    if data is not None:
        return _from_devkit((data / TRUTH).read(), (data / META).read(), path)
    if path.is_dir():
        raise SourceError(f"{path} is not the devkit: it lacks data/{TRUTH} or data/{META}")
    if path.name.endswith((".tar.gz", ".tgz", ".tar")):
        return _from_devkit(*_packed(path), path)
    return _from_list(path)


def _data_folder(path: Place) -> Place | None:
    """Where an unpacked devkit has its data."""
    places = (path, path / "data") if path.is_dir() else (path.parent,) if path.name == TRUTH else ()
    return next((p for p in places if (p / TRUTH).is_file() and (p / META).is_file()), None)


def _packed(path: Place) -> tuple[bytes, bytes]:
    """The ground truth and meta.mat out of the devkit's tar."""
    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(path.read())) as tar:  # 2.5 MB
            for member in tar:
                name = PurePosixPath(member.name).name
                if name in (TRUTH, META) and member.isreg() and member.size <= LARGEST_LIST:
                    file = tar.extractfile(member)
                    found[name] = file.read() if file else b""
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise SourceError(f"{path} is not a complete devkit ({error}): fetch it again") from None
    if len(found) < 2:
        raise SourceError(f"{path} is not the devkit: it lacks data/{TRUTH} or data/{META}")
    return found[TRUTH], found[META]


def _from_devkit(truth: bytes, meta: bytes, path: Place) -> dict[str, str]:
    try:
        synsets = read_mat(meta)["synsets"]
        wnid = {int(synset["ILSVRC2012_ID"][0]): str(synset["WNID"]) for synset in synsets}
        labels = [wnid[int(line)] for line in truth.split()]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise SourceError(
            f"the devkit {path} cannot be read ({error}): name a list of 'filename label' with --val-labels instead"
        ) from None
    return {f"ILSVRC2012_val_{number:08d}": label for number, label in enumerate(labels, 1)}


def _from_list(path: Place) -> dict[str, str]:
    """Lines `filename label`, or `filename,label ...` as Kaggle has them below a headline."""
    if path.size() > LARGEST_LIST:
        raise SourceError(f"{path} is too large for a list of labels")
    labels: dict[str, str] = {}
    for number, line in enumerate(path.read().decode("utf-8", "surrogateescape").splitlines(), 1):
        name, _, rest = line.partition(",") if "," in line else line.strip().rpartition(" ")
        if not line.strip() or name == "ImageId":
            continue
        if not name or not rest.split():
            raise SourceError(f"line {number} of {path} is not 'filename label'")
        stem, label = PurePosixPath(name.strip()).stem, rest.split()[0]
        if labels.setdefault(stem, label) != label:
            raise SourceError(f"{path} gives {stem} two labels, {labels[stem]} and {label}: keep one")
    if not labels:
        raise SourceError(f"{path} lists no labels")
    if len({label.isdecimal() for label in labels.values()}) > 1:
        raise SourceError(f"{path} mixes numbers with names of classes: use one of them")
    return labels
