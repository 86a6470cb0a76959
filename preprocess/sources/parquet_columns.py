"""Which columns of a Parquet file contain images and labels: as the user says, by a data hub's features, or by name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ...shards_manifest.tables import escape
from ..errors import SourceError
from .class_names import is_storable
from .path import SourcePath

IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp")
LABEL_NAMES = ("label", "labels", "cls", "class", "target", "targets", "category", "fine_label", "coarse_label")


@dataclass(frozen=True)
class Columns:
    """The columns of a file that are read.

    Attributes:
        image: The column of images.
        label: The column of labels; empty if there is none.
        classes: Names of the classes, by number; empty if only the labels say which classes there are.
        other_images: The columns that could be chosen instead for the images.
        other_labels: The columns that could be chosen instead for the labels.
    """

    image: str
    label: str
    classes: tuple[str, ...]
    other_images: tuple[str, ...]
    other_labels: tuple[str, ...]

    def note(self) -> str:
        """Return one line on which columns are read, and how to choose others."""
        image = _taken("image", self.image, self.other_images)
        return f"Parquet columns: {image}, {_taken('label', self.label, self.other_labels)}"


def find_columns(path: SourcePath, image: str = "", label: str = "") -> Columns:
    """Return the columns of images and labels, as named, or chosen.

    Raises:
        SourceError: There are none, or several; the sentence lists the columns.
    """
    with reading(path), path.open() as file:
        schema = import_pyarrow()[1].read_schema(file)
    features = _features(schema.metadata or {})
    images = _choose(path, schema, "image", image, _featured(features, "Image"), IMAGE_NAMES)
    labels = _choose(path, schema, "label", label, _featured(features, "ClassLabel"), LABEL_NAMES)
    if not images:
        raise SourceError(
            f"{path} needs one column of images ({', '.join(IMAGE_NAMES)}: bytes) and one of labels "
            f"({', '.join(LABEL_NAMES)}: integers or text); it has {_listed(schema)}: name them with --image-column "
            "and --label-column"
        )
    if not labels:
        return Columns(images[0], "", (), tuple(images[1:]), ())
    names = _names(features.get(labels[0], {}).get("names") or ())
    if not all(name.strip() and is_storable(name) for name in names):
        raise SourceError(f"{path} names a class of its {labels[0]} by what is no text")
    return Columns(images[0], labels[0], names, tuple(images[1:]), tuple(labels[1:]))


def _choose(
    path: SourcePath, schema: Any, what: str, named: str, featured: list[str], known: Sequence[str]
) -> list[str]:
    """Return the column for images or labels, then those that could be chosen instead; nothing if there are none.

    Columns whose features say so come before those that are only named so; among several the names decide.

    Args:
        path: The file, for messages.
        schema: Its schema.
        what: 'image' or 'label'.
        named: The column that the user names; empty for none.
        featured: The columns whose features say so.
        known: Usual names of such columns, the best first.
    """
    usable = _holds_bytes if what == "image" else _holds_labels
    types = {field.name: field.type for field in schema}
    by_name = [name for name in known if name in types]
    there = list(dict.fromkeys([*(name for name in featured if name in types), *by_name]))
    fit = [name for name in there if usable(types[name])]
    if named:
        if named not in types and not there:
            return []
        if named not in types or not usable(types[named]):
            why = "there is none" if named not in types else f"its type is {types[named]}"
            raise SourceError(
                f"--{what}-column {named} is no column of {what}s in {path} ({why}); it has {_listed(schema)}"
            )
        chosen = named
    elif there and not fit:
        raise SourceError(
            f"{path} has no column of {what}s that can be read: {_listed(schema, there)}; "
            f"of its columns ({_listed(schema)}) name another with --{what}-column"
        )
    else:
        first = [name for name in fit if name in featured] or fit
        chosen = next((name for name in known if name in first), first[0] if len(first) == 1 else "")
        if first and not chosen:
            raise SourceError(
                f"{path} has {len(first)} columns of {what}s ({', '.join(map(escape, first))}): "
                f"name one with --{what}-column"
            )
    if not chosen:
        return []
    if schema.names.count(chosen) > 1:
        raise SourceError(f"{path} has {schema.names.count(chosen)} columns named {escape(chosen)}: keep one")
    return [chosen, *(name for name in fit if name != chosen)]


def _taken(what: str, chosen: str, others: Sequence[str]) -> str:
    also = f" (also there: {', '.join(map(escape, others))}; --{what}-column chooses)" if others else ""
    return f"{what} {escape(chosen)}{also}"


def _listed(schema: Any, names: Sequence[str] = ()) -> str:
    return ", ".join(f"{escape(f.name)} ({f.type})" for f in schema if not names or f.name in names)


def _holds_bytes(kind: Any) -> bool:
    types = import_pyarrow()[0].types
    if types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or _is_view(kind, "binary"))


def _holds_labels(kind: Any) -> bool:
    """Return whether a type is numbers or text, but not true and false. A column of nulls has a type of its own."""
    types = import_pyarrow()[0].types
    if types.is_dictionary(kind):
        kind = kind.value_type
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    return bool(is_text(kind) or number or types.is_null(kind))


def is_text(kind: Any) -> bool:
    """Return whether a type of Arrow holds text."""
    types = import_pyarrow()[0].types
    return bool(types.is_string(kind) or types.is_large_string(kind) or _is_view(kind, "string"))


def _is_view(kind: Any, of: str) -> bool:
    return str(kind) == f"{of}_view"  # older releases of pyarrow have no such type


def _names(found: Any) -> tuple[str, ...]:
    """Return the names of a ClassLabel in order; they are a list, or by number, as cards of data sets have them."""
    if isinstance(found, dict) and all(key.isdecimal() for key in found):
        found = [found[key] for key in sorted(found, key=int)]
    return tuple(map(str, found))


def _featured(features: dict[str, dict[str, Any]], kind: str) -> list[str]:
    return [name for name, feature in features.items() if feature.get("_type") == kind]


def _features(metadata: dict[bytes, bytes]) -> dict[str, dict[str, Any]]:
    """Return what a data hub says about the columns in the metadata of the schema."""
    try:
        found = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in found.items() if isinstance(feature, dict)}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def import_pyarrow() -> tuple[Any, Any]:
    """Return the package and its Parquet reader. Raises SourceError if it is not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise SourceError("Parquet files need the package pyarrow: pip install pyarrow") from None
    return pyarrow, parquet


@contextmanager
def reading(path: SourcePath) -> Iterator[None]:
    """Raise SourceError for what pyarrow raises if a file is cut or damaged."""
    try:
        yield
    except (import_pyarrow()[0].ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # an error of the disk, not of the file
        reason = str(error).strip().partition("\n")[0]
        raise SourceError(f"{path} is not a complete Parquet file ({reason}): fetch it again") from None
