"""Parquet files of images, as data hubs have them.

To read one row at random costs a page of images. So the images are copied once into flat files in the scratch folder
and read there by offset.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..config import SourceOptions
from ..errors import ConfigError, RejectedImage, SourceError, UnlabelledError, UnlabelledImage
from ..listing import Entries, EntriesBuilder, Listing
from .base import LARGEST_IMAGE, OnProgress, Reject, Source, no_progress, too_large
from .labels import Label, LabelEncoder, LabelledImage, label_of
from .parquet_columns import Columns, find_columns, import_pyarrow, is_text, reading
from .path import SourcePath
from .scratch import expanding, missing
from .tar_reader import open_range

# A flat file is one row after another: a head with the lengths of what follows, the label as JSON, a name, the image.
_HEAD = struct.Struct("<IIQ")
_FORMAT = 2
IMAGE_ROWS = 64  # decoded at a time: about 6 MB with images of 100 kB
LABEL_ROWS = 1 << 16  # decoded at a time where only labels are read
_ADVICE = "write the labels so, as numbers or all as names, or name another column with --label-column"


@dataclass(frozen=True)
class Parquet(Source):
    """Parquet files with a column of images and one of labels.

    Attributes:
        name: Name of the data set.
        pairs: The files in order, each with the flat file that its images are copied to.
        image_column: Column of images that the user names; empty to choose it.
        label_column: Column of labels that the user names; empty to choose it.
    """

    name: str
    pairs: tuple[tuple[SourcePath, Path], ...]
    image_column: str = ""
    label_column: str = ""

    def scan(self, progress: OnProgress = no_progress) -> Listing:
        """Copy the images to the flat files if that is not done, and list them, named by their paths.

        If paths are missing or repeat within a class, all images are named by file and row instead.
        """
        columns = self.columns()
        if rows := self._unlabelled(columns):
            reason = f"all of {columns.label} is null or negative" if columns.label else self._no_labels()
            raise UnlabelledError(self._where, rows, reason)
        self._copy(columns)
        for by_row in (False, True):
            rejects: list[Reject] = []
            labels = LabelEncoder(columns.classes, self._where, _ADVICE)
            builder = EntriesBuilder(no_progress if by_row else progress)
            for number, (packed, flat) in enumerate(self.pairs):
                builder.add_rows(labels.encode(_list_flat(packed, flat, by_row, rejects)), number)
            entries = builder.build()
            order, repeats = entries.by_class()
            if not repeats:
                break
        listing = labels.listing(entries.take(order), rejects)
        return replace(listing, notes=(columns.note(), *listing.notes))

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """Return the bytes of the image, by its offset in the flat file."""
        return SourcePath.of(self.pairs[int(entries.file[i])][1]).range(int(entries.offset[i]), int(entries.size[i]))

    def describe(self) -> dict[str, str]:
        """Return the kind, the name, and the columns that the user names."""
        named = {"image_column": self.image_column, "label_column": self.label_column}
        return {"kind": "parquet", "name": self.name, **{key: name for key, name in named.items() if name}}

    def files(self) -> Iterable[SourcePath]:
        """Return the Parquet files."""
        return [packed for packed, _ in self.pairs]

    def stage(self) -> None:
        """Copy the images of one file after another to its flat file; nothing if no image has a label.

        Raises:
            SourceError: A file is damaged, or the images do not fit on the disk.
        """
        if all(flat.exists() for _, flat in self.pairs):
            return
        columns = self.columns()
        if not self._unlabelled(columns):
            self._copy(columns)

    def columns(self) -> Columns:
        """Return the columns, which are the same in all files. Raises SourceError if they are not."""
        first, *rest = (find_columns(packed, self.image_column, self.label_column) for packed, _ in self.pairs)
        for (packed, _), other in zip(self.pairs[1:], rest, strict=True):
            if other.classes != first.classes and other.label == first.label:
                raise SourceError(f"{self._where} holds files that name different classes: keep one data set")
            if (other.image, other.label) != (first.image, first.label):
                raise SourceError(
                    f"{self._where} holds files with different columns ({first.note()}; in {packed.name}: "
                    f"{other.note()}): name them with --image-column and --label-column, or keep one data set"
                )
        return first

    @property
    def _where(self) -> SourcePath:
        return self.pairs[0][0].parent

    def _no_labels(self) -> str:
        named = f", and none named {self.label_column}" if self.label_column else ""
        return f"no column holds labels{named}: name one with --label-column"

    def _copy(self, columns: Columns) -> None:
        for packed, flat in missing(self.pairs):
            with expanding(packed, flat) as write:
                for label, name, image in _rows(packed, columns):
                    write(_HEAD.pack(len(label), len(name), len(image)) + label + name + image)

    def _unlabelled(self, columns: Columns) -> int:
        """Return the number of rows if none has a label, else 0. It reads labels up to the first."""
        rows = 0
        for path, _ in self.pairs:
            with reading(path), path.open() as raw, import_pyarrow()[1].ParquetFile(raw) as file:
                rows += file.metadata.num_rows
                if columns.label and any(map(_is_label, _values(file, LABEL_ROWS, columns.label))):
                    return 0
        return rows


def flat_name(stem: str, options: SourceOptions) -> str:
    """Return the name of a Parquet file's flat file; other columns, or another version of flat files, give another."""
    content = repr((_FORMAT, options.image_column, options.label_column))
    return f"{stem}.{hashlib.sha256(os.fsencode(content)).hexdigest()[:8]}.images"


def check_column_options(options: SourceOptions, sources: Iterable[Source], path: object) -> None:
    """Raise ConfigError if the user names columns and none of the sources is Parquet."""
    named = {"--image-column": options.image_column, "--label-column": options.label_column}
    option = next((option for option, name in named.items() if name), "")
    if option and not any(isinstance(source, Parquet) for source in sources):
        raise ConfigError(f"{option} names a column of Parquet files, and {path} holds none: leave it out")


def check_same_labels(train: Parquet, val: Parquet) -> None:
    """Raise SourceError if val is labelled by a column that train has too, but does not use."""
    first, second = train.columns(), val.columns()
    if second.label != first.label and second.label in first.other_labels:
        raise SourceError(
            f"train is labelled by the column {first.label} and val by {second.label}: name one that both have with "
            "--label-column"
        )


def _list_flat(packed: SourcePath, flat: Path, by_row: bool, rejects: list[Reject]) -> Iterator[LabelledImage]:
    """Yield the rows of a flat file that have an image; the others are appended to `rejects`."""
    with open_range(SourcePath.of(flat)) as file:
        position = 0
        for number in itertools.count():
            head = file.at(position, _HEAD.size)
            if not head:
                return
            for_label, for_name, size = _HEAD.unpack(head)
            text = file.at(position + _HEAD.size, for_label + for_name)
            path = text[for_label:]
            offset = position + _HEAD.size + for_label + for_name
            position = offset + size
            source = f"{packed.name}/{number}"
            if not size:
                rejects.append((source, "no image, or none that is stored in the file"))
            elif size > LARGEST_IMAGE:
                rejects.append((source, too_large(size)))
            else:
                name = path if path and not by_row else os.fsencode(f"{packed.stem}-{number:08d}")
                yield _label(json.loads(text[:for_label])), source, name, offset, size


def _rows(path: SourcePath, columns: Columns) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield (label, name, image) of every row; empty bytes for no image. Raises SourceError."""
    with reading(path), path.open() as raw, import_pyarrow()[1].ParquetFile(raw) as file:
        for batch in file.iter_batches(IMAGE_ROWS, columns=[columns.image, columns.label]):
            for label, image in zip(
                _json_values(batch.column(columns.label)), batch.column(columns.image), strict=True
            ):
                value = image.as_py()
                data, name = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
                yield json.dumps(label).encode(), os.fsencode(name or ""), data or b""


def _values(file: Any, rows: int, column: str) -> Iterator[object]:
    for batch in file.iter_batches(rows, columns=[column]):
        yield from _json_values(batch.column(column))


def _json_values(column: Any) -> list[object]:
    """Return the values of a column as JSON has them; text as it is, also if it is not UTF-8."""
    arrow, types = import_pyarrow()[0], import_pyarrow()[0].types
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if is_text(column.type):
        values = column.cast(arrow.large_binary()).to_pylist()
        return [None if value is None else value.decode("utf-8", "surrogateescape") for value in values]
    values = column.to_pylist()
    if types.is_decimal(column.type):
        return [value if value is None else _number(value) for value in values]
    if types.is_floating(column.type):
        return [value if value is None else float(value) for value in values]
    return list(values)


def _number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def _label(value: object) -> Label | RejectedImage:
    try:
        return label_of(value)
    except RejectedImage as reason:
        return reason


def _is_label(value: object) -> bool:
    return not isinstance(_label(value), UnlabelledImage)
