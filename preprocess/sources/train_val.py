"""A source of separate train and val parts, each in a form of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from ...shards_manifest.tables import escape
from ..errors import SourceError, UnlabelledError
from ..listing import Entries, Listing
from .base import HIDDEN_FOLDER, NO_IMAGES, OnProgress, Reject, Source, no_progress
from .class_names import ClassIndex, display_name, find_similar
from .class_tars import ClassTars
from .file_filter import OF_A_SYSTEM
from .labelled_images import LabelledFolder, LabelledTar
from .parquet import Parquet, check_same_labels
from .path import SourcePath
from .webdataset import WebDataset


@dataclass(frozen=True)
class TrainValSource(Source):
    """The sources of train and val, under the classes of train.

    Attributes:
        name: Name of the data set.
        train: The source of train.
        val: The source of val; None if val is chosen from train.
        val_path: The path of val, for messages.
        names: Names of the folders or files of both parts, for people.
        left_out: (name, reason) of each folder or file beside them that is not used.
    """

    name: str
    train: Source
    val: Source | None
    val_path: str
    names: tuple[str, ...]
    left_out: tuple[Reject, ...] = ()

    def scan(self, progress: OnProgress = no_progress) -> Listing:
        """List both parts, or train alone if there is no val or it has no labels.

        Raises:
            SourceError: Val has a class that train lacks.
        """
        train = self.train.scan(progress)
        left_out = [(escape(name), reason) for name, reason in self.left_out]
        if self.val is None:
            return replace(train, rejects=tuple(sorted([*train.rejects, *left_out])))
        if isinstance(self.train, Parquet) and isinstance(self.val, Parquet):
            check_same_labels(self.train, self.val)
        try:
            val = self.val.scan(progress)
        except UnlabelledError as error:
            return self._without_val(train, left_out, error.images)
        if isinstance(self.train, WebDataset) and isinstance(self.val, ClassTars):
            known = ClassIndex(train.classes)
            if all(known.find(name) is None for name in val.classes):  # shards without labels look like class tars
                return self._without_val(train, left_out, len(val.parts["train"]))
        if uses_labels(self):
            self._check_numbers(train, val)
        new = self._labels(train, val)
        own = {} if val.numbered else dict(zip(new.tolist(), val.classes, strict=True))
        val_names = tuple(own.get(label, name) for label, name in enumerate(train.classes))
        val = val.relabelled(train.classes, new)
        rejects = left_out + [self._named("train", *reject) for reject in train.rejects]
        rejects += [self._named("val", *reject) for reject in val.rejects if reject[1] != NO_IMAGES]
        parts = {"train": train.parts["train"], "val": val.parts["train"]}
        return replace(
            train,
            parts=parts,
            rejects=tuple(sorted(rejects)),
            spelled={} if val_names == train.classes else {"val": val_names},
            notes=(*train.notes, *(f"val: {note}" for note in val.notes if note not in train.notes)),
        )

    def _without_val(self, train: Listing, left_out: list[Reject], images: int) -> Listing:
        """Return train alone, with val among the rejects."""
        name = self.val_path.rpartition("/")[2]
        reason = f"left out: none of its {images} images has a label"
        rejects = tuple(sorted([*train.rejects, *left_out, (escape(name), reason)]))
        note = f"{escape(name)} is {reason}; so val is taken from train"
        return replace(train, rejects=rejects, notes=(*train.notes, note))

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """Return the bytes of the image, from the source of its part."""
        source = self.val if part == "val" and self.val else self.train
        return source.read(part, class_name, entries, i)

    def describe(self) -> dict[str, str]:
        """Return the kind, or both kinds, the name, and what else the sources describe."""
        described = [source.describe() for source in self.sources()]
        kinds = dict.fromkeys(source["kind"] for source in described)
        return {**described[-1], **described[0], "kind": " and ".join(kinds), "name": self.name}

    def reads(self) -> str:
        """Return the kinds, and which folders or files they are in."""
        kinds = [source.reads() for source in self.sources()]
        if len(set(kinds)) == 1:
            return f"{kinds[0]} in {' and '.join(self.names)}"
        return " and ".join(f"{kind} in {name}" for kind, name in zip(kinds, self.names, strict=True))

    def unused(self) -> tuple[str, ...]:
        """Return the folders and files beside the parts, without hidden ones and those of a system."""
        return tuple(escape(name) for name, reason in self.left_out if reason not in (OF_A_SYSTEM, HIDDEN_FOLDER))

    def files(self) -> Iterable[SourcePath]:
        """Yield the files of both parts."""
        for source in self.sources():
            yield from source.files()

    def stage(self) -> None:
        """Stage both parts."""
        for source in self.sources():
            source.stage()

    @property
    def threads(self) -> int:
        """Those of train, which is nearly all."""
        return self.train.threads

    def sources(self) -> list[Source]:
        """Return the source of train, and that of val if there is one."""
        return [self.train, self.val] if self.val else [self.train]

    def _check_numbers(self, train: Listing, val: Listing) -> None:
        """Raise SourceError if labels and train's classes are numbers, but class i is not at index i."""
        if not val.numbered or train.numbered or not all(name.isdecimal() for name in train.classes):
            return
        for label in np.unique(val.parts["train"].label).tolist():
            at = train.classes[label] if label < len(train.classes) else ""
            if not at or int(at) != label:
                raise SourceError(
                    f"the labels of {self.val_path} are numbers, and so are the classes of train: label {label} may "
                    f"be the class {label}, or the one at that place, {at or 'of which there is none'}: rename the "
                    "classes so that they sort as numbers from 0 (00, 01, 02), or to words"
                )

    def _labels(self, train: Listing, val: Listing) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        """Return train's label for each class of val, int32 (classes of val,); -1 for an empty class that it lacks."""
        if val.numbered:  # its labels are indices into whatever train calls its classes
            if train.named_by_labels:
                raise SourceError(
                    f"{self.val_path} has numbers as labels and train names ({display_name(train.classes[0])}), and "
                    "nothing says which class a number is: use one of them, or list the classes in a classes.txt"
                )
            if len(val.classes) > len(train.classes):
                raise SourceError(
                    f"{self.val_path} has the label {len(val.classes) - 1}, but train only {len(train.classes)} "
                    "classes: both need the same classes"
                )
            return np.arange(len(val.classes), dtype=np.int32)
        index = ClassIndex(train.classes)
        labels = {name: index.find(name) for name in val.classes}
        empty = {name for name, reason in val.rejects if reason == NO_IMAGES}
        unknown = sorted(name for name, label in labels.items() if label is None and f"{escape(name)}/" not in empty)
        if unknown:
            near = find_similar(unknown[0], train.classes)
            has = f"; train has {display_name(near)}" if near else ""
            raise SourceError(
                f"{self.val_path} has the class {display_name(unknown[0])}, which train does not have "
                f"({len(unknown)} such classes{has}): both need the same classes"
            )
        return np.array([-1 if label is None else label for label in labels.values()], np.int32)

    @staticmethod
    def _named(part: str, source: str, reason: str) -> tuple[str, str]:
        return (source, reason) if reason == NO_IMAGES else (f"{part}/{source}", reason)


def uses_labels(source: Source) -> bool:
    """Return whether the validation images have no class folders and take their labels from elsewhere."""
    return isinstance(source, TrainValSource) and isinstance(source.val, LabelledTar | LabelledFolder)
