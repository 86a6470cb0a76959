"""WebDataset shards, read in place: tars of key.jpg beside key.cls."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..errors import RejectedImage, SourceError, UnlabelledImage
from ..listing import Entries, EntriesBuilder, Listing
from .base import LARGEST_IMAGE, OnProgress, Reject, Source, built, no_progress, text, text_lines, too_large
from .class_names import check_distinct
from .file_names import IMAGE_ENDINGS
from .labels import NO_LABEL, Label, Labels, Row, label_in_cls, label_in_json
from .path import Place, each
from .tar_reader import Image, Window, member_name, tar_members, why_not, window

LABELS = (".cls", ".json")
CLASSES = "classes.txt"
LARGEST_TEXT = 2**20
_CURE = {  # for labels that cannot be told apart: without a classes.txt, and with one
    False: f"list the classes in a {CLASSES} beside the shards",
    True: f"write the labels so, or take {CLASSES} away, which makes the numbers themselves the classes",
}


@dataclass
class _Sample:
    """What one key of a shard has. image: name, offset, size.  refused: a member of it is among the rejects."""

    image: Image | None = None
    files: dict[str, bytes] = field(default_factory=dict)  # that can hold a label, by ending
    refused: bool = False
    label: Label | RejectedImage | None = None


@dataclass(frozen=True)
class WebDataset(Source):
    """Shards in order. classes: the names by index, or none where only the labels say what there is."""

    name: str
    shards: tuple[Place, ...]
    classes: tuple[str, ...] = ()

    def scan(self, found: OnProgress = no_progress) -> Listing:
        """Index the images of every shard and read their labels."""
        rejects: list[Reject] = []
        builder = EntriesBuilder(found)
        labels = Labels(self.classes, self.shards[0].parent, _CURE[bool(self.classes)])
        for number, (rows, refused) in enumerate(each(_rows, self.shards, self.threads)):
            builder.add_rows(labels.numbered(rows), number)
            rejects += refused
        return labels.listing(built(builder, [shard.stem for shard in self.shards]), rejects)

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """The member's bytes, by its offset in its shard."""
        return self.shards[int(entries.file[i])].range(int(entries.offset[i]), int(entries.size[i]))

    def describe(self) -> dict[str, str]:
        """Kind and name."""
        return {"kind": "webdataset", "name": self.name}

    def files(self) -> Iterable[Place]:
        """The shards, and the names of the classes."""
        folders = dict.fromkeys(place for shard in self.shards for place in (shard.parent, shard.parent.parent))
        return [*self.shards, *(folder / CLASSES for folder in folders if (folder / CLASSES).is_file())]

    @property
    def threads(self) -> int:
        """Those of the store."""
        return self.shards[0].store.threads


def _rows(shard: Place) -> tuple[list[Row], list[Reject]]:
    """The images of a shard with their labels, and what has no place among them."""
    rejects: list[Reject] = []
    with window(shard) as file:
        samples = _samples(file, shard, rejects)
    for sample in samples.values():
        sample.label = _label(sample.files)
    used = _join(samples)
    rows: list[Row] = []
    for key, sample in samples.items():
        if sample.image is not None:
            label = UnlabelledImage(NO_LABEL) if sample.label is None else sample.label
            rows.append((label, f"{shard.name}/{text(sample.image[0])}", *sample.image))
        elif sample.label is not None and not sample.refused and key not in used:
            rejects.append((f"{shard.name}/{key}", "a label without an image"))
    return rows, rejects


def _label(files: dict[str, bytes]) -> Label | RejectedImage | None:
    """What the files of a sample say, .cls before .json; None where they say nothing of a label."""
    try:
        return label_in_cls(files[".cls"]) if ".cls" in files else label_in_json(files.get(".json", b"0"))
    except RejectedImage as reason:
        return reason


def _join(samples: dict[str, _Sample]) -> set[str]:
    """Give images without a label that of their sample (s.image.jpg that of s.cls); the keys of labels so used.

    A sample is what webdataset takes for one: members of one name up to its first dot. Names may have dots of their
    own, so this is left alone where an image of such a sample has its label already, or a member was refused. With
    several images or labels no one can tell which belongs to which, and each image is told so.
    """
    groups: dict[str, list[str]] = {}
    for key in samples:
        groups.setdefault(_first_key(key), []).append(key)
    used: set[str] = set()
    for name, keys in groups.items():
        images = [key for key in keys if samples[key].image is not None]
        labels = [key for key in keys if samples[key].image is None and samples[key].label is not None]
        paired = any(samples[key].label is not None for key in images)
        if not images or not labels or paired or any(samples[key].refused for key in keys):
            continue
        labels = [key for key in labels if ".cls" in samples[key].files] or labels
        used.update(labels)
        if len(images) == len(labels) == 1:
            samples[images[0]].label = samples[labels[0]].label
            continue
        for key in images:
            samples[key].label = RejectedImage(
                f"the sample {name} has {_counted(images, 'image')} for {_counted(labels, 'label')}: keep one of each, "
                "or name each label as its image (s.left.cls beside s.left.jpg)"
            )
    return used


def _counted(keys: list[str], what: str) -> str:
    return f"{len(keys)} {what}" if len(keys) == 1 else f"{len(keys)} {what}s"


def _first_key(key: str) -> str:
    """A key of the last dot up to its first dot, in the same folder."""
    folder, slash, name = key.rpartition("/")
    return folder + slash + name.partition(".")[0]


def _samples(file: Window, shard: Place, rejects: list[Reject]) -> dict[str, _Sample]:
    """The samples of a shard by key: what stands before the last dot of a member's name."""
    samples: dict[str, _Sample] = {}
    for member in tar_members(file, str(shard)):
        name = member_name(member)
        key, dot, ending = name.rpartition(".")
        ending = f".{ending.lower()}"
        if not dot or ending not in IMAGE_ENDINGS + LABELS:
            continue  # captions, masks, metadata: not what is split here
        reason = why_not(member)
        if reason is None and member.size > (LARGEST_TEXT if ending in LABELS else LARGEST_IMAGE):
            reason = too_large(member.size)
        sample = samples.setdefault(key, _Sample())
        if reason is None and ending in IMAGE_ENDINGS and sample.image is not None:
            reason = "a second image of this key"
        if reason is None and ending in sample.files:
            reason = "a second label of this key"
        if reason:
            rejects.append((f"{shard.name}/{name}", reason))
            sample.refused = True
        elif ending in IMAGE_ENDINGS:
            sample.image = (os.fsencode(name), file.start + member.offset_data, member.size)
        else:
            sample.files[ending] = file.at(member.offset_data, member.size)
    return samples


def looks_like(names: Iterable[str]) -> bool:
    """True where the first members of a tar are those of WebDataset: an image and a label of one key."""
    endings: dict[str, set[str]] = {}
    for name in names:
        key, _, ending = name.rpartition(".")
        endings.setdefault(key, set()).add(f".{ending.lower()}")
    return any(found & set(LABELS) for found in endings.values())


def read_classes(folders: Iterable[Place]) -> tuple[str, ...]:
    """The lines of the first classes.txt in `folders`; none without one. Raises SourceError, OSError."""
    for folder in folders:
        if (folder / CLASSES).is_file():
            where = folder / CLASSES
            classes = tuple(line.strip() for line in text_lines(where.read(), where))
            while classes and not classes[-1]:
                classes = classes[:-1]
            if not classes or len(set(classes)) < len(classes):
                raise SourceError(f"{where} must name each class once, one a line")
            if "" in classes:
                raise SourceError(
                    f"line {classes.index('') + 1} of {where} is empty, but class i is line i: fill it in"
                )
            check_distinct(classes, where)
            return classes
    return ()
