"""Which sample goes into which shard: pure functions from counts and labels to shard rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..config import SplitConfig
from ..errors import ConfigError
from ..listing import Entries, Listing

VAL_SHARE, VAL_MOST = 0.05, 50  # of each class, where the source has no val
SHARDS, LARGEST_SHARD = 64, 32_768
_LIMIT, _VAL, _ORDER = range(3)  # streams of random numbers


@dataclass(frozen=True)
class ShardRow:
    """One shard row: the same samples in all bands.

    Attributes:
        part: 'train' or 'val'.
        number: Number of the row within its part.
        indices: int64 (n,), the samples in stored order, as indices into the entries of `part_entries`.
    """

    part: str
    number: int
    indices: NDArray[np.int64]

    @property
    def name(self) -> str:
        """The name of the row's shards without .tar: train-000003."""
        return f"{self.part}-{self.number:06d}"


def random_keys(seed: int, stream: int, count: int) -> NDArray[np.uint64]:
    """Return `count` random 64-bit numbers: raw PCG64 output, which NumPy promises never to change."""
    return np.asarray(np.random.PCG64(np.random.SeedSequence([seed, stream])).random_raw(count), np.uint64)


def permutation(seed: int, stream: int, count: int) -> NDArray[np.int64]:
    """Return a seeded permutation of range(count), the same on every machine and NumPy release."""
    return np.argsort(random_keys(seed, stream, count), kind="stable").astype(np.int64)


def choose_val(
    label: NDArray[np.int32], classes: tuple[str, ...], per_class: int, seed: int, limit: int = 0
) -> NDArray[np.bool_]:
    """Choose which samples become val in a source that has no val.

    Args:
        label: int32 (n,), the class of each sample.
        classes: Names of the classes.
        per_class: Number of samples of each class; -1 for 5 %, at most 50.
        seed: Seed of the choice.
        limit: The --limit that the samples were drawn by, for the error message; 0 for none.

    Returns:
        bool (n,), True for val.

    Raises:
        ConfigError: A class would have no image left to train on.
    """
    counts = np.bincount(label, minlength=len(classes))
    if per_class < 0:
        wanted = np.minimum(np.floor(counts * VAL_SHARE + 0.5), VAL_MOST).astype(np.int64)
    else:
        wanted = np.where(counts > 0, per_class, 0)
        short = np.flatnonzero((counts > 0) & (counts <= per_class))
        if len(short):
            has = f"of which --limit {limit} takes" if limit else "which has"
            raise ConfigError(
                f"--val-per-class {per_class} leaves nothing to train on in class {classes[short[0]]}, {has} "
                f"{counts[short[0]]} images ({len(short)} such classes): choose fewer"
            )
    order = np.lexsort((random_keys(seed, _VAL, len(label)), label))
    rank = np.empty(len(label), np.int64)
    rank[order] = np.arange(len(label)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(rank < wanted[label])


def shard_size(samples: int, config: SplitConfig) -> int:
    """Return the samples of a full shard: as asked, or about 1/64 of all in whole blocks, at most 32,768."""
    if config.samples_per_shard:
        return config.samples_per_shard
    block = config.samples_per_block
    return max(min(-(-samples // SHARDS // block) * block, LARGEST_SHARD // block * block), block)


def stored_order(listing: Listing, config: SplitConfig) -> dict[str, NDArray[np.int64]]:
    """Return, for each part that will be written, its samples in stored order.

    The indices count into listing.parts[part], or into listing.parts['train'] for a val that is chosen from it.
    Train is a permutation of the whole part; val keeps the order of the source.
    """
    order = {}
    for stream, (part, entries) in enumerate(sorted(listing.parts.items())):
        picked = np.arange(len(entries), dtype=np.int64)
        if 0 < config.limit < len(entries):
            picked = np.sort(permutation(config.seed, _LIMIT + 16 * stream, len(entries))[: config.limit])
        order[part] = picked
    train = order["train"]
    if "val" not in order:
        label = listing.parts["train"].label[train]
        is_val = choose_val(label, listing.classes, config.val_per_class, config.seed, config.limit)
        if is_val.any():
            order["val"] = train[is_val]
        train = train[~is_val]
    order["train"] = train[permutation(config.seed, _ORDER, len(train))]
    return order


def plan_rows(order: dict[str, NDArray[np.int64]], config: SplitConfig) -> list[ShardRow]:
    """Cut each part into shard rows: train, then val."""
    rows = []
    for part in sorted(order):
        size = shard_size(len(order[part]), config)
        for number, start in enumerate(range(0, len(order[part]), size)):
            rows.append(ShardRow(part, number, order[part][start : start + size]))
    return rows


def part_entries(listing: Listing, part: str) -> tuple[str, Entries]:
    """Return the part of the source that a part of the split is drawn from, and its samples."""
    origin = part if part in listing.parts else "train"
    return origin, listing.parts[origin]
