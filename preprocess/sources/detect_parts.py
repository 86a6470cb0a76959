"""Which folders, or files, are which part of a data set. It lists no folders, but asks what one contains if it must."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import SourceError
from .part_names import TEST, TRAIN, VAL, WORDS, PartName, file_parts, folder_part

LEFT_OVER = "belongs to neither train nor val"
NO_LABELS = "images without classes or labels"
NOT_READ = "an archive that is not read here"
OTHER_TEST = "a test part, not used beside a val part"


@dataclass(frozen=True)
class FolderSummary:
    """What a folder contains directly.

    Attributes:
        has_images: It contains images.
        has_groups: It contains folders, tars or Parquet files.
    """

    has_images: bool
    has_groups: bool

    @property
    def only_groups(self) -> bool:
        """True if it contains folders, tars or Parquet files, and no images."""
        return self.has_groups and not self.has_images


@dataclass(frozen=True)
class PartAssignment:
    """The names of each part's files, or of its one folder, and of those that are no part."""

    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()


class _Folders:
    """The folders beside each other in one folder, each with the part that its name says."""

    def __init__(self, names: Sequence[str], look: Callable[[str], FolderSummary]) -> None:
        self.parts = {name: folder_part(name) for name in names}
        self._look = look
        self._seen: dict[str, FolderSummary] = {}

    def content(self, name: str) -> FolderSummary:
        """Return what a folder contains; each is looked at once."""
        if name not in self._seen:
            self._seen[name] = self._look(name)
        return self._seen[name]

    def classes_beside(self) -> bool:
        """Return whether a folder that is called no part contains images."""
        return any(self.content(name).has_images for name, part in self.parts.items() if not part.role)

    def has_partner(self, train: PartName) -> bool:
        """Return whether a folder is called val or test with the same other words, as set_val is for set_train."""
        return any(part.role in (VAL, TEST) and part.rest == train.rest for part in self.parts.values())

    def is_train(self, name: str) -> bool:
        """Return whether a folder is the train part."""
        part, content = self.parts[name], self.content
        if part.role != TRAIN:
            return False
        if part.exact:
            return content(name).only_groups or (
                (content(name).has_groups or not content(name).has_images)
                and (self.has_partner(part) or not self.classes_beside())
            )
        return content(name).only_groups and (self.has_partner(part) or not self.classes_beside())

    def is_unclear_train(self, name: str) -> bool:
        """Return whether a folder may be the train part, but contains images as a class does."""
        part = self.parts[name]
        if part.role != TRAIN or not self.content(name).has_images:
            return False
        return self.has_partner(part) or (part.exact and (self.content(name).has_groups or not self.classes_beside()))

    def is_val_among_classes(self, name: str) -> bool:
        """Return whether a folder is called val or test and contains folders, beside folders of images."""
        part = self.parts[name]
        return part.exact and part.role != TRAIN and self.content(name).only_groups and self.classes_beside()


def choose_folders(
    where: object, names: Sequence[str], look: Callable[[str], FolderSummary], forced: bool = False
) -> PartAssignment | None:
    """Find the parts among the folders of a folder.

    A folder called train, in whatever words (part_names.py), is a part, with two exceptions. It is a class if it
    contains images and no folders or files that images come from. And if only a piece of its name says train, and
    folders beside it that are called no part contain images, all are classes. A folder of the same words beside it, as
    set_val beside set_train, makes it a part.

    Args:
        where: The folder, for messages.
        names: Names of the folders in it.
        look: Returns what a folder contains; it is called for as few as possible.
        forced: The user says that the folders are classes; nothing is refused.

    Returns:
        The parts; None if all folders are classes.

    Raises:
        SourceError: Two folders are one part. Or train/ contains images directly and it is unclear whether it is a
            class: with val/ or test/ beside it, without other classes, or with folders beside the images. Or a val/ of
            folders lies among classes.
    """
    folders = _Folders(names, look)
    parts = folders.parts
    train = {name: part for name, part in parts.items() if folders.is_train(name)}
    if not train:
        if not forced:
            _refuse_unclear(where, folders)
        return None
    rests = {part.rest for part in train.values()}

    def is_part(name: str, part: PartName) -> bool:
        if part.role == TRAIN:
            return name in train
        return part.exact or part.rest in rests or folders.content(name).only_groups

    roles = {
        role: _only_one(where, {n: part for n, part in parts.items() if part.role == role and is_part(n, part)})
        for role in (TRAIN, VAL, TEST)
    }
    used = {name for chosen in roles.values() for name in chosen}
    return PartAssignment(roles[TRAIN], roles[VAL], roles[TEST], tuple(name for name in names if name not in used))


def _refuse_unclear(where: object, folders: _Folders) -> None:
    """Raise SourceError for folders that are neither clearly parts nor clearly classes."""
    unclear = next((name for name in folders.parts if folders.is_unclear_train(name)), None)
    if unclear:
        raise SourceError(
            f"{where}/{unclear} holds images, not one folder or one tar of them a class: sort them into class "
            "folders; or take it for a class with --source folders"
        )
    val = next((name for name in folders.parts if folders.is_val_among_classes(name)), None)
    if val:
        raise SourceError(
            f"{where} holds {val}/ beside class folders, and no train/: move the classes into train/; or take "
            f"{val}/ for a class with --source folders"
        )


def _only_one(where: object, parts: dict[str, PartName]) -> tuple[str, ...]:
    """Return the folder of one part: the one that is called nothing else, or the only one."""
    names = tuple(name for name, part in parts.items() if part.exact) or tuple(parts)
    if len(names) > 1:
        raise _part_twice(where, *names[:2])
    return names


def choose_files(where: object, names: Sequence[str]) -> PartAssignment:
    """Find the parts among shards, Parquet files or tars of class tars, by a word of their names.

    Without train, those that name no part are train. If all name the same part, or none, all are train.

    Args:
        where: The folder, for messages.
        names: Names of the files.

    Raises:
        SourceError: Two words name one part, one name names two parts, or there is val and test but no train.
    """
    groups: dict[str, dict[str, list[str]]] = {TRAIN: {}, VAL: {}, TEST: {}, "": {}}
    for name, words in zip(names, file_parts(names), strict=True):
        roles = {WORDS[word] for word in words}
        if len(roles) > 1:
            raise SourceError(f"{name} in {where} names two parts, {' and '.join(sorted(words))}: rename it")
        group = groups[min(roles, default="")]
        group.setdefault(min(words, default=""), []).append(name)
    for role, by_word in groups.items():
        if role and len(by_word) > 1:
            first, second = (some[0] for some in list(by_word.values())[:2])
            raise _part_twice(where, first, second)
    parts = {role: tuple(name for some in by_word.values() for name in some) for role, by_word in groups.items()}
    train = parts[TRAIN] or parts[""]
    if not train:
        both = [some[0] for role in (VAL, TEST) if (some := parts[role])]
        raise SourceError(f"{where} holds {' and '.join(both)}, but no train part: name the files of one part")
    return PartAssignment(train, parts[VAL], parts[TEST], parts[""] if parts[TRAIN] else ())


def _part_twice(where: object, first: str, second: str) -> SourceError:
    return SourceError(f"{where} holds one part twice, as {first} and as {second}: keep one, or rename the other")
