"""WebDataset shards, read without unpacking: tars of key.jpg with key.cls."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..errors import RejectedImage, SourceError, UnlabelledImage
from ..image_formats import IMAGE_ENDINGS
from ..listing import Entries, EntriesBuilder, Listing
from .base import LARGEST_IMAGE, OnProgress, Reject, Source, build_entries, name_text, no_progress, too_large
from .class_names import check_distinct
from .labels import NO_LABEL, Label, LabelEncoder, LabelledImage, label_in_cls, label_in_json
from .path import SourcePath, map_in_order
from .tar_reader import ImageSpan, RangeReader, member_name, open_range, reject_reason, tar_members
from .text_files import text_lines

LABEL_ENDINGS = (".cls", ".json")
CLASSES = "classes.txt"
LARGEST_TEXT = 2**20
_ADVICE = {  # for numbers that may be names: without a classes.txt, and with one
    False: f"list the classes in a {CLASSES} beside the shards",
    True: f"write the labels so, or take {CLASSES} away, which makes the numbers themselves the classes",
}


@dataclass
class _Sample:
    """The members of a shard with one key.

    Attributes:
        image: The image.
        files: Contents of the members that can hold a label, by ending.
        refused: A member of this key is among the rejects.
        label: The label, or why it cannot be used; None if there is none.
    """

    image: ImageSpan | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    refused: bool = False
    label: Label | RejectedImage | None = None


@dataclass(frozen=True)
class WebDataset(Source):
    """WebDataset shards.

    Attributes:
        name: Name of the data set.
        shards: The shards in order.
        classes: Names of the classes, by number; empty if only the labels say which classes there are.
    """

    name: str
    shards: tuple[SourcePath, ...]
    classes: tuple[str, ...] = ()

    def scan(self, progress: OnProgress = no_progress) -> Listing:
        """List the images of every shard and read their labels."""
        rejects: list[Reject] = []
        builder = EntriesBuilder(progress)
        labels = LabelEncoder(self.classes, self.shards[0].parent, _ADVICE[bool(self.classes)])
        for number, (rows, refused) in enumerate(map_in_order(_list_shard, self.shards, self.threads)):
            builder.add_rows(labels.encode(rows), number)
            rejects += refused
        return labels.listing(build_entries(builder, [shard.stem for shard in self.shards]), rejects)

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """Return the bytes of the member, by its offset in its shard."""
        return self.shards[int(entries.file[i])].range(int(entries.offset[i]), int(entries.size[i]))

    def describe(self) -> dict[str, str]:
        """Return the kind and the name."""
        return {"kind": "webdataset", "name": self.name}

    def files(self) -> Iterable[SourcePath]:
        """Return the shards and the lists of class names."""
        folders = dict.fromkeys(path for shard in self.shards for path in (shard.parent, shard.parent.parent))
        return [*self.shards, *(folder / CLASSES for folder in folders if (folder / CLASSES).is_file())]

    @property
    def threads(self) -> int:
        """The requests that the store can serve at once."""
        return self.shards[0].store.threads


def _list_shard(shard: SourcePath) -> tuple[list[LabelledImage], list[Reject]]:
    """Return the images of a shard with their labels, and the rejects."""
    rejects: list[Reject] = []
    with open_range(shard) as file:
        samples = _samples(file, shard, rejects)
    for sample in samples.values():
        sample.label = _label(sample.files)
    used = _join_keys(samples)
    rows: list[LabelledImage] = []
    for key, sample in samples.items():
        if sample.image is not None:
            label = UnlabelledImage(NO_LABEL) if sample.label is None else sample.label
            rows.append((label, f"{shard.name}/{name_text(sample.image[0])}", *sample.image))
        elif sample.label is not None and not sample.refused and key not in used:
            rejects.append((f"{shard.name}/{key}", "a label without an image"))
    return rows, rejects


def _label(files: dict[str, bytes]) -> Label | RejectedImage | None:
    """Return the label in the files of a sample, .cls before .json; None if there is none."""
    try:
        return label_in_cls(files[".cls"]) if ".cls" in files else label_in_json(files.get(".json", b"0"))
    except RejectedImage as reason:
        return reason


def _join_keys(samples: dict[str, _Sample]) -> set[str]:
    """Give images without a label the label of their sample: s.image.jpg that of s.cls.

    A sample is what webdataset takes for one: members of one name up to its first dot. But names may have dots of their
    own, so nothing is joined if an image of the sample has its own label, or a member was rejected. With several images
    or labels it is unclear which belong together; the images are rejected.

    Returns:
        The keys of the labels that were used.
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
    """Return a key, the name up to its last dot, up to its first dot, with its folder."""
    folder, slash, name = key.rpartition("/")
    return folder + slash + name.partition(".")[0]


def _samples(file: RangeReader, shard: SourcePath, rejects: list[Reject]) -> dict[str, _Sample]:
    """Return the samples of a shard by key, which is the name of a member up to its last dot."""
    samples: dict[str, _Sample] = {}
    for member in tar_members(file, str(shard)):
        name = member_name(member)
        key, dot, ending = name.rpartition(".")
        ending = f".{ending.lower()}"
        if not dot or ending not in IMAGE_ENDINGS + LABEL_ENDINGS:
            continue  # captions, masks, metadata
        reason = reject_reason(member)
        if reason is None and member.size > (LARGEST_TEXT if ending in LABEL_ENDINGS else LARGEST_IMAGE):
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


def looks_like_shard(names: Iterable[str]) -> bool:
    """Return whether the first members of a tar are those of a shard: an image and a label of one key."""
    endings: dict[str, set[str]] = {}
    for name in names:
        key, _, ending = name.rpartition(".")
        endings.setdefault(key, set()).add(f".{ending.lower()}")
    return any(found & set(LABEL_ENDINGS) for found in endings.values())


def read_classes(folders: Iterable[SourcePath]) -> tuple[str, ...]:
    """Return the lines of the first classes.txt in `folders`; nothing without one. Raises SourceError, OSError."""
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
