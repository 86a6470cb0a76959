"""A source whose train and val lie apart, each in a form of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from shards_manifest.tables import escape

from ..errors import SourceError
from ..listing import Entries, Listing
from .base import NO_IMAGES, Found, Source, nobody
from .place import Place


@dataclass(frozen=True)
class Parts(Source):
    """Sources of one part each, under the classes of train."""

    name: str
    train: Source
    val: Source
    val_name: str

    def scan(self, found: Found = nobody) -> Listing:
        """Both parts. Raises SourceError where val has a class that train lacks."""
        train, val = self.train.scan(found), self.val.scan(found)
        val = val.relabelled(train.classes, self._labels(train, val))
        rejects = [self._named("train", *reject) for reject in train.rejects]
        rejects += [self._named("val", *reject) for reject in val.rejects if reject[1] != NO_IMAGES]
        parts = {"train": train.parts["train"], "val": val.parts["train"]}
        return Listing(train.classes, parts, tuple(sorted(rejects)), train.numbered)

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """From the part's own source."""
        return (self.val if part == "val" else self.train).read(part, class_name, entries, i)

    def describe(self) -> dict[str, str]:
        """Kind, or both kinds, and name."""
        kinds = [source.describe()["kind"] for source in (self.train, self.val)]
        return {"kind": " and ".join(dict.fromkeys(kinds)), "name": self.name}

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
            if len(val.classes) > len(train.classes):
                raise SourceError(
                    f"{self.val_name} has the label {len(val.classes) - 1}, but train only {len(train.classes)} "
                    "classes: both need the same classes"
                )
            return np.arange(len(val.classes), dtype=np.int32)
        index = {name: label for label, name in enumerate(train.classes)}
        empty = {name for name, reason in val.rejects if reason == NO_IMAGES}
        unknown = sorted(name for name in val.classes if name not in index and f"{escape(name)}/" not in empty)
        if unknown:
            raise SourceError(
                f"{self.val_name} has the class {escape(unknown[0])}, which train does not have "
                f"({len(unknown)} such classes): both need the same classes"
            )
        return np.array([index.get(name, -1) for name in val.classes], np.int32)

    @staticmethod
    def _named(part: str, source: str, reason: str) -> tuple[str, str]:
        return (source, reason) if reason == NO_IMAGES else (f"{part}/{source}", reason)
