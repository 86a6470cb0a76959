"""A source whose train and val lie apart, each in a form of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from shards_manifest.tables import escape

from ..errors import SourceError, UnlabelledError
from ..listing import Entries, Listing
from ..names import Names, alike, shown
from .base import NO_IMAGES, Found, Source, nobody
from .parquet import Parquet, check_same_labels
from .place import Place
from .tars import ClassTars
from .webdataset import WebDataset


@dataclass(frozen=True)
class Parts(Source):
    """Sources of one part each, under the classes of train."""

    name: str
    train: Source
    val: Source
    val_name: str

    def scan(self, found: Found = nobody) -> Listing:
        """Both parts, or train alone where val has no labels. Raises SourceError where val has a class of its own."""
        train = self.train.scan(found)
        if isinstance(self.train, Parquet) and isinstance(self.val, Parquet):
            check_same_labels(self.train, self.val)
        try:
            val = self.val.scan(found)
        except UnlabelledError as error:
            return self._without_val(train, error.images)
        if isinstance(self.train, WebDataset) and isinstance(self.val, ClassTars):
            known = Names(train.classes)
            if all(known.find(name) is None for name in val.classes):  # shards without labels look like class tars
                return self._without_val(train, len(val.parts["train"]))
        new = self._labels(train, val)
        own = {} if val.numbered else dict(zip(new.tolist(), val.classes, strict=True))
        val_names = tuple(own.get(label, name) for label, name in enumerate(train.classes))
        val = val.relabelled(train.classes, new)
        rejects = [self._named("train", *reject) for reject in train.rejects]
        rejects += [self._named("val", *reject) for reject in val.rejects if reject[1] != NO_IMAGES]
        parts = {"train": train.parts["train"], "val": val.parts["train"]}
        return replace(
            train,
            parts=parts,
            rejects=tuple(sorted(rejects)),
            spelled={} if val_names == train.classes else {"val": val_names},
            notes=(*train.notes, *(f"val: {note}" for note in val.notes if note not in train.notes)),
        )

    def _without_val(self, train: Listing, images: int) -> Listing:
        """Train alone; what is left out is named, once."""
        name = self.val_name.rpartition("/")[2]
        reason = f"left out: none of its {images} images has a label"
        rejects = tuple(sorted([*train.rejects, (escape(name), reason)]))
        note = f"{escape(name)} is {reason}; so val is held out of train"
        return replace(train, rejects=rejects, notes=(*train.notes, note))

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """From the part's own source."""
        return (self.val if part == "val" else self.train).read(part, class_name, entries, i)

    def describe(self) -> dict[str, str]:
        """Kind, or both kinds, name, and what else either says."""
        train, val = self.train.describe(), self.val.describe()
        kinds = dict.fromkeys((train["kind"], val["kind"]))
        return {**val, **train, "kind": " and ".join(kinds), "name": self.name}

    def files(self) -> Iterable[Place]:
        """Those of both parts."""
        yield from self.train.files()
        yield from self.val.files()

    def stage(self) -> None:
        """Stage both."""
        self.train.stage()
        self.val.stage()

    @property
    def threads(self) -> int:
        """Those of train, nearly all of it."""
        return self.train.threads

    def _labels(self, train: Listing, val: Listing) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        """For each class of val the label that train gives it."""
        if val.numbered:  # its labels are indices into whatever train calls its classes
            if train.named_by_labels:
                raise SourceError(
                    f"{self.val_name} has numbers as labels and train names ({shown(train.classes[0])}), and nothing "
                    "says which class a number is: use one of them, or list the classes in a classes.txt"
                )
            if len(val.classes) > len(train.classes):
                raise SourceError(
                    f"{self.val_name} has the label {len(val.classes) - 1}, but train only {len(train.classes)} "
                    "classes: both need the same classes"
                )
            return np.arange(len(val.classes), dtype=np.int32)
        index = Names(train.classes)
        labels = {name: index.find(name) for name in val.classes}
        empty = {name for name, reason in val.rejects if reason == NO_IMAGES}
        unknown = sorted(name for name, label in labels.items() if label is None and f"{escape(name)}/" not in empty)
        if unknown:
            near = alike(unknown[0], train.classes)
            has = f"; train has {shown(near)}" if near else ""
            raise SourceError(
                f"{self.val_name} has the class {shown(unknown[0])}, which train does not have "
                f"({len(unknown)} such classes{has}): both need the same classes"
            )
        return np.array([-1 if label is None else label for label in labels.values()], np.int32)

    @staticmethod
    def _named(part: str, source: str, reason: str) -> tuple[str, str]:
        return (source, reason) if reason == NO_IMAGES else (f"{part}/{source}", reason)
