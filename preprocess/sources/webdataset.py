"""WebDataset shards, read in place: tars of key.jpg beside key.cls."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..errors import SourceError
from ..listing import Entries, EntriesBuilder, Listing
from .archive import Image, Window, member_name, tar_members, why_not, window
from .base import (
    LARGEST_IMAGE,
    LARGEST_LABEL,
    Found,
    Reject,
    Source,
    built,
    made_listing,
    nobody,
    numbered_classes,
    text,
    too_large,
)
from .file_names import IMAGE_ENDINGS as IMAGES
from .place import Place, each

LABELS = (".cls", ".json")
CLASSES = "classes.txt"
LARGEST_TEXT = 2**20


@dataclass
class _Sample:
    """What one key of a shard has. image: name, offset, size.  refused: a member of it is among the rejects."""

    image: Image | None = None
    label: dict[str, bytes] = field(default_factory=dict)
    refused: bool = False


@dataclass(frozen=True)
class WebDataset(Source):
    """Shards in order. classes: the names by index, or none where only numbers are known."""

    name: str
    shards: tuple[Place, ...]
    classes: tuple[str, ...] = ()

    def scan(self, found: Found = nobody) -> Listing:
        """Index the images of every shard and read their labels."""
        rejects: list[Reject] = []
        builder = EntriesBuilder(found)
        index = {name: label for label, name in enumerate(self.classes)}
        most = -1
        for number, (rows, refused) in enumerate(each(lambda shard: _rows(shard, index), self.shards, self.threads)):
            most = max(most, max((row[0] for row in rows), default=-1))
            builder.add_rows(rows, number)
            rejects += refused
        where = self.shards[0].parent
        entries = built(builder, [shard.stem for shard in self.shards])
        return made_listing(
            self.classes or numbered_classes(most + 1), entries, rejects, where, numbered=not self.classes
        )

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


def _rows(shard: Place, index: dict[str, int]) -> tuple[list[tuple[int, bytes, int, int]], list[Reject]]:
    """The (label, name, offset, size) of the images of a shard, and what has no place among them."""
    rows: list[tuple[int, bytes, int, int]] = []
    rejects: list[Reject] = []
    with window(shard) as file:
        samples = _samples(file, shard, rejects)
    for key, sample in samples.items():
        if sample.image is None:
            if not sample.refused:
                rejects.append((f"{shard.name}/{key}", "a label without an image"))
            continue
        label, reason = _label(sample, index)
        if reason:
            rejects.append((f"{shard.name}/{text(sample.image[0])}", reason))
        else:
            rows.append((label, *sample.image))
    return rows, rejects


def _label(sample: _Sample, index: dict[str, int]) -> tuple[int, str]:
    """The class index of a sample, or the reason to leave it out. index: of each class by name, if known."""
    ending = next((ending for ending in LABELS if ending in sample.label), None)
    if ending is None:
        return -1, "an image without a label (.cls, or .json with a label)"
    try:
        data = sample.label[ending]
        value = json.loads(data)["label"] if ending == ".json" else data.decode().strip()
        label = index[value] if value in index else int(value)
    except (ValueError, KeyError, TypeError, RecursionError):
        return -1, f"its {ending} holds no index of a class"
    if not 0 <= label < (len(index) or LARGEST_LABEL):
        return -1, f"its label {label} is the index of no class"
    return label, ""


def _samples(file: Window, shard: Place, rejects: list[Reject]) -> dict[str, _Sample]:
    """The samples of a shard by key: what stands before the last dot of a member's name."""
    samples: dict[str, _Sample] = {}
    for member in tar_members(file, str(shard)):
        name = member_name(member)
        key, dot, ending = name.rpartition(".")
        ending = f".{ending.lower()}"
        if not dot or ending not in IMAGES + LABELS:
            continue  # captions, masks, metadata: not what is split here
        reason = why_not(member)
        if reason is None and member.size > (LARGEST_TEXT if ending in LABELS else LARGEST_IMAGE):
            reason = too_large(member.size)
        sample = samples.setdefault(key, _Sample())
        if reason is None and ending in IMAGES and sample.image is not None:
            reason = "a second image of this key"
        if reason:
            rejects.append((f"{shard.name}/{name}", reason))
            sample.refused = True
        elif ending in IMAGES:
            sample.image = (os.fsencode(name), file.start + member.offset_data, member.size)
        else:
            sample.label[ending] = file.at(member.offset_data, member.size)
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
            lines = (folder / CLASSES).read().decode("utf-8", "surrogateescape").splitlines()
            classes = tuple(line.strip() for line in lines if line.strip())
            if not classes or len(set(classes)) < len(classes):
                raise SourceError(f"{folder / CLASSES} must name each class once, one a line")
            return classes
    return ()
