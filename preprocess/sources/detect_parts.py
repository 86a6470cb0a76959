"""Which folders, or files, are which part of a data set. Lists nothing: it asks what a folder holds where it must."""

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
class Look:
    """What a folder holds directly. flat: images.  full: folders, tars or Parquet files."""

    flat: bool
    full: bool


@dataclass(frozen=True)
class Chosen:
    """The names of each part's files, or of its one folder; and of those that are no part."""

    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()


def choose_folders(
    where: object, names: Sequence[str], look: Callable[[str], Look], forced: bool = False
) -> Chosen | None:
    """The parts among the folders in `where`, which `look` tells apart from classes; None where all are classes.

    A folder called train, in whatever words (part_names.py), is a part, but for two cases: it holds images and no
    folders or files that images come from, so it is a class; or only a part of its name says so, and folders beside
    it that are called nothing of the kind hold images, so all are classes. A folder of the same words beside it, as
    set_val is for set_train, settles it. Raises SourceError for two folders of one part, and, unless `forced`, for
    images directly in train/ where it cannot be told for a class: with val/ or test/ beside it, or no other class, or
    folders beside the images; in train_images/ beside test_images/; and for a val/ of folders among classes.
    """
    parts = {name: folder_part(name) for name in names}
    seen: dict[str, Look] = {}

    def held(name: str) -> Look:
        if name not in seen:
            seen[name] = look(name)
        return seen[name]

    def classes_beside() -> bool:
        return any(held(name).flat for name, part in parts.items() if not part.role)

    def partner(of: PartName) -> bool:
        return any(part.role in (VAL, TEST) and part.rest == of.rest for part in parts.values())

    def is_part(name: str, part: PartName) -> bool:
        if part.role == TRAIN:
            clear = held(name).full and not held(name).flat
            if part.whole:
                return clear or ((held(name).full or not held(name).flat) and (partner(part) or not classes_beside()))
            return clear and (partner(part) or not classes_beside())
        return part.whole or part.rest in rests or (held(name).full and not held(name).flat)

    def is_doubtful(name: str, part: PartName) -> bool:
        if part.role != TRAIN or not held(name).flat:
            return False
        return partner(part) or (part.whole and (held(name).full or not classes_beside()))

    def is_alone(name: str, part: PartName) -> bool:
        return part.whole and part.role != TRAIN and held(name).full and not held(name).flat and classes_beside()

    train = {name: part for name, part in parts.items() if part.role == TRAIN and is_part(name, part)}
    if not train:
        doubtful = next((name for name, part in parts.items() if is_doubtful(name, part)), None)
        if doubtful and not forced:
            raise SourceError(
                f"{where}/{doubtful} holds images, not one folder or one tar of them a class: sort them into class "
                "folders; or take it for a class with --source folders"
            )
        alone = next((name for name, part in parts.items() if is_alone(name, part)), None)
        if alone and not forced:
            raise SourceError(
                f"{where} holds {alone}/ beside class folders, and no train/: move the classes into train/; or take "
                f"{alone}/ for a class with --source folders"
            )
        return None
    rests = {part.rest for part in train.values()}
    roles = {
        role: _one(where, {name: part for name, part in parts.items() if part.role == role and is_part(name, part)})
        for role in (TRAIN, VAL, TEST)
    }
    used = {name for chosen in roles.values() for name in chosen}
    return Chosen(roles[TRAIN], roles[VAL], roles[TEST], tuple(name for name in names if name not in used))


def _one(where: object, parts: dict[str, PartName]) -> tuple[str, ...]:
    """The folder of one part: the one that is called nothing else, or the only one."""
    names = tuple(name for name, part in parts.items() if part.whole) or tuple(parts)
    if len(names) > 1:
        raise _two(where, *names[:2])
    return names


def choose_files(where: object, names: Sequence[str]) -> Chosen:
    """The parts among shards, Parquet files or tars of class tars, by a word of their names.

    Without train, those that name no part are train; where all name the same part, or none, all are train.
    Raises SourceError for two words for one part, for a name of two parts, and for val and test without train.
    """
    groups: dict[str, dict[str, list[str]]] = {TRAIN: {}, VAL: {}, TEST: {}, "": {}}
    for name, found in zip(names, file_parts(names), strict=True):
        roles = {WORDS[word] for word in found}
        if len(roles) > 1:
            raise SourceError(f"{name} in {where} names two parts, {' and '.join(sorted(found))}: rename it")
        group = groups[min(roles, default="")]
        group.setdefault(min(found, default=""), []).append(name)
    for role, words in groups.items():
        if role and len(words) > 1:
            first, second = (some[0] for some in list(words.values())[:2])
            raise _two(where, first, second)
    chosen = {role: tuple(name for some in words.values() for name in some) for role, words in groups.items()}
    train = chosen[TRAIN] or chosen[""]
    if not train:
        both = [some[0] for role in (VAL, TEST) if (some := chosen[role])]
        raise SourceError(f"{where} holds {' and '.join(both)}, but no train part: name the files of one part")
    return Chosen(train, chosen[VAL], chosen[TEST], chosen[""] if chosen[TRAIN] else ())


def _two(where: object, first: str, second: str) -> SourceError:
    return SourceError(f"{where} holds one part twice, as {first} and as {second}: keep one, or rename the other")
