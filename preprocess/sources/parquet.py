"""Parquet files of images, as data hubs have them. Rows cannot be read at random for what they cost: a page of
images each. So the images are copied once into flat files in the scratch folder, and read there by offset."""

from __future__ import annotations

import itertools
import json
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SourceError
from ..listing import Entries, EntriesBuilder, Listing
from .archive import window
from .base import (
    LARGEST_IMAGE,
    LARGEST_LABEL,
    Found,
    Reject,
    Source,
    made_listing,
    nobody,
    numbered_classes,
    too_large,
)
from .place import Place
from .scratch import expanding, missing

IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp")
LABEL_NAMES = ("label", "labels", "cls", "fine_label", "class")
_HEAD = struct.Struct("<qQI")  # of a row in a flat file: label, bytes of the image, bytes of its name
ROWS = 64  # decoded at a time: with images of 100 kB some 6 MB


@dataclass(frozen=True)
class Columns:
    """Which columns of a file hold what. classes: the names by label, or none where only numbers are known."""

    image: str
    label: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Parquet(Source):
    """Parquet files in order, and the flat file that each is copied to: the images one after another."""

    name: str
    pairs: tuple[tuple[Place, Path], ...]

    def scan(self, found: Found = nobody) -> Listing:
        """Copy the images out where that is not done, and index them, named by their paths.

        Where paths are missing or repeat within a class, all are named by file and row instead.
        """
        self.stage()
        where = self.pairs[0][0].parent
        kinds = {find_columns(packed).classes for packed, _ in self.pairs}
        if len(kinds) > 1:
            raise SourceError(f"{where} holds files that name different classes: keep one data set")
        classes = kinds.pop()
        for by_row in (False, True):
            rejects: list[Reject] = []
            builder = EntriesBuilder(nobody if by_row else found)
            for number, (packed, flat) in enumerate(self.pairs):
                builder.add_rows(_indexed(packed, flat, by_row, len(classes), rejects), number)
            entries = builder.build()
            order, repeats = entries.by_class()
            if not repeats:
                break
        names = classes or numbered_classes(int(entries.label.max(initial=-1)) + 1)
        return made_listing(names, entries.take(order), rejects, where, numbered=not classes)

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """The image's bytes, by its offset in the flat file."""
        return Place.of(self.pairs[int(entries.file[i])][1]).range(int(entries.offset[i]), int(entries.size[i]))

    def describe(self) -> dict[str, str]:
        """Kind and name."""
        return {"kind": "parquet", "name": self.name}

    def files(self) -> Iterable[Place]:
        """The Parquet files."""
        return [packed for packed, _ in self.pairs]

    def stage(self) -> None:
        """Copy the images out of one file after another. Raises SourceError where one is damaged or does not fit."""
        for packed, flat in missing(self.pairs):
            columns = find_columns(packed)
            with expanding(packed, flat) as write:
                for label, name, image in _rows(packed, columns):
                    write(_HEAD.pack(label, len(image), len(name)) + name + image)


def _indexed(
    packed: Place, flat: Path, by_row: bool, classes: int, rejects: list[Reject]
) -> Iterator[tuple[int, bytes, int, int]]:
    """The (label, name, offset, size) of the images in a flat file; the rest goes to `rejects`."""
    with window(Place.of(flat)) as file:
        place = 0
        for row in itertools.count():
            head = file.at(place, _HEAD.size)
            if not head:
                return
            label, size, length = _HEAD.unpack(head)
            path = file.at(place + _HEAD.size, length)
            name = path if path and not by_row else os.fsencode(f"{packed.stem}-{row:08d}")
            offset = place + _HEAD.size + length
            place = offset + size
            if not size:
                rejects.append((f"{packed.name}/{row}", "no image, or none that is stored in the file"))
            elif not 0 <= label < (classes or LARGEST_LABEL):
                rejects.append((f"{packed.name}/{row}", f"its label {label} is the index of no class"))
            elif size > LARGEST_IMAGE:
                rejects.append((f"{packed.name}/{row}", too_large(size)))
            else:
                yield label, name, offset, size


def _rows(path: Place, columns: Columns) -> Iterator[tuple[int, bytes, bytes]]:
    """The (label, name, image) of every row; -1 for no label, empty bytes for no image. Raises SourceError."""
    with _whole(path), path.open() as raw, _pyarrow()[1].ParquetFile(raw) as file:
        for batch in file.iter_batches(ROWS, columns=[columns.image, columns.label]):
            labels = batch.column(columns.label).to_pylist()
            for label, image in zip(labels, batch.column(columns.image), strict=True):
                value = image.as_py()
                data, name = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
                known = label is not None and 0 <= label < LARGEST_LABEL
                yield label if known else -1, os.fsencode(name or ""), data or b""


def find_columns(path: Place) -> Columns:
    """The columns of images and labels: by the features of a data hub, else by name and type. Raises SourceError."""
    pyarrow, parquet = _pyarrow()
    with _whole(path), path.open() as file:
        schema = parquet.read_schema(file)
    features = _features(schema.metadata or {})
    image = [name for name, feature in features.items() if feature.get("_type") == "Image" and name in schema.names]
    label = [name for name, feature in features.items() if feature.get("_type") == "ClassLabel"]
    images = image or [f.name for f in schema if f.name in IMAGE_NAMES and _holds_bytes(f.type)]
    labels = [f.name for f in schema if f.name in (label or LABEL_NAMES) and pyarrow.types.is_integer(f.type)]
    if len(labels) > 1 and "label" in labels:
        labels = ["label"]
    if len(images) != 1 or len(labels) != 1:
        raise SourceError(
            f"{path} needs one column of images ({', '.join(IMAGE_NAMES)}: bytes) and one of labels "
            f"({', '.join(LABEL_NAMES)}: integers); it has {', '.join(f'{f.name} ({f.type})' for f in schema)}"
        )
    names = features.get(labels[0], {}).get("names") or ()
    return Columns(images[0], labels[0], tuple(map(str, names)))


def _holds_bytes(kind: Any) -> bool:
    types = _pyarrow()[0].types
    if types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _features(metadata: dict[bytes, bytes]) -> dict[str, dict[str, Any]]:
    """What a data hub says of the columns, in the schema's metadata."""
    try:
        found = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in found.items() if isinstance(feature, dict)}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise SourceError("Parquet files need the package pyarrow: pip install 'spectral-shards[parquet]'") from None
    return pyarrow, parquet


@contextmanager
def _whole(path: Place) -> Iterator[None]:
    """Raises SourceError for what pyarrow says of a file that is cut or damaged."""
    try:
        yield
    except (_pyarrow()[0].ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's, not the file's
        reason = str(error).strip().partition("\n")[0]
        raise SourceError(f"{path} is not a complete Parquet file ({reason}): fetch it again") from None
