"""What a split will write: options checked once, then pure functions from counts to shard rows."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..shards_manifest.manifest import DTYPES, FACTORS, FITS, Geometry
from ..shards_manifest.runtime.cli_runner import human_bytes
from ..shards_manifest.spectral.color import COLORS
from ..shards_manifest.spectral.transform import TRANSFORMS
from ..shards_manifest.tables import escape
from .errors import PlanError
from .listing import Entries, Listing
from .pipeline.orientation import ORIENTATIONS

DEFAULT_SIZE = {1: 224, 4: 224, 16: 224, 36: 336}
DEFAULT_BLOCK = 64
DEFAULT_STEP = {1: 1.0, 4: 5.0, 16: 5.0, 36: 6.0}  # each keeps 41 dB or more (docs/results.md)
VAL_SHARE, VAL_MOST = 0.05, 50
SHARDS, LARGEST_SHARD = 64, 32_768
LARGEST_SIDE = 4096
LATER = {"min_class_images": 0, "orientation": "stored"}  # options that older splits lack, with what these did
LARGEST_BLOCKS = 1_000_000_000  # bytes of memory for the blocks under way


@dataclass(frozen=True)
class SplitPlan:
    """The options of one split; together with the source they determine every byte.

    factor, size, margin, fit, transform, color, dtype: see shards_manifest.Geometry.
    step: distance of two int8 levels, in units of an orthonormal coefficient (grey levels).
    bands: the bands to write; empty for all.
    samples_per_shard: 0 for a size that depends on the number of samples alone.
    samples_per_block: samples that are compressed together; -1 for 64, or as many as LARGEST_BLOCKS allows.
    val_per_class: images of each class held out where the source has no val; -1 for 5 %, at most 50.
    seed: of the sample order and of the held-out images.  limit: at most so many images a part; 0 for all.
    min_class_images: classes with fewer images in train are dropped.
    classes: the only classes to take, in the order of their labels; empty for all, sorted.
    orientation: 'stored' takes images as they are stored, 'exif' turns them as their EXIF says.
    """

    factor: int
    size: int = 0
    margin: int = 0
    fit: str = "squash"
    transform: str = "dct"
    color: str = "ycbcr"
    dtype: str = "int8"
    step: float = 0.0
    bands: tuple[int, ...] = ()
    samples_per_shard: int = 0
    samples_per_block: int = -1
    val_per_class: int = -1
    seed: int = 0
    limit: int = 0
    min_class_images: int = 0
    classes: tuple[str, ...] = ()
    orientation: str = "stored"

    def resolved(self) -> SplitPlan:
        """The plan with its defaults filled in and checked. Raises PlanError, naming the option."""
        if self.factor not in FACTORS:
            raise PlanError(f"--factor {self.factor}: choose 1, 4, 16 or 36")
        size = self.size or DEFAULT_SIZE[self.factor]
        grid = math.isqrt(self.factor)
        for option, value in (("--size", size), ("--margin", self.margin)):
            if value < 0 or (value and value < grid):
                raise PlanError(f"{option} {value} is too small: take {grid} or more for --factor {self.factor}")
            if value % grid:
                near = max(round(value / grid), 1) * grid
                raise PlanError(f"{option} {value} does not divide by {grid}: take {near} for --factor {self.factor}")
        if size + self.margin > LARGEST_SIDE:
            raise PlanError(f"--size and --margin add up to {size + self.margin} pixels: at most {LARGEST_SIDE}")
        step = self.step or DEFAULT_STEP[self.factor]
        if self.dtype == "float16" and self.step not in (0.0, 1.0):
            raise PlanError("--quant-step does not apply to --dtype float16: leave it out")
        if not 0.25 <= step <= 128:
            raise PlanError(f"--quant-step {step}: choose a value from 0.25 to 128")
        bands = self.bands or tuple(range(self.factor))
        if bands != tuple(sorted(set(bands))) or not all(0 <= b < self.factor for b in bands):
            raise PlanError(f"--bands: choose from 0 to {self.factor - 1}, each once")
        for option, name, choices in (
            ("--fit", self.fit, FITS),
            ("--transform", self.transform, TRANSFORMS),
            ("--color", self.color, COLORS),
            ("--dtype", self.dtype, tuple(DTYPES)),
            ("--orientation", self.orientation, ORIENTATIONS),
        ):
            if name not in choices:
                raise PlanError(f"{option} {name}: choose {', '.join(choices)}")
        sample = 3 * (size + self.margin) ** 2 * DTYPES[self.dtype].itemsize
        most = max(LARGEST_BLOCKS // sample, 1)
        block = min(DEFAULT_BLOCK, most) if self.samples_per_block == -1 else self.samples_per_block
        if block < 1 or self.samples_per_shard < 0 or self.limit < 0 or self.seed < 0:
            raise PlanError(
                "--samples-per-block must be 1 or more; --samples-per-shard, --limit and --seed not negative"
            )
        if block > most:
            margin = f" and --margin {self.margin}" if self.margin else ""
            raise PlanError(
                f"--samples-per-block {block}: with --size {size}{margin} a block in all bands would take "
                f"{human_bytes(block * sample)}, at most {human_bytes(LARGEST_BLOCKS)}: choose {most} or less"
            )
        if self.min_class_images < 0:
            raise PlanError(f"--min-class-images {self.min_class_images}: choose 0 or more")
        if self.val_per_class < -1:
            raise PlanError(f"--val-per-class {self.val_per_class}: choose 0 or more")
        step = 1.0 if self.dtype == "float16" else step
        return replace(self, size=size, step=step, bands=bands, samples_per_block=block)

    @property
    def geometry(self) -> Geometry:
        """What the manifests say of a coefficient."""
        return Geometry(self.factor, self.size, self.margin, self.fit, self.transform, self.color, self.dtype)

    def to_json(self) -> dict[str, Any]:
        """The options as JSON values, for comparing with an earlier run; a list of classes as its length and digest."""
        values = {**asdict(self), "bands": list(self.bands)}
        del values["classes"]
        if self.classes:
            digest = hashlib.sha256("\n".join(map(escape, self.classes)).encode()).hexdigest()
            values["classes"] = f"{len(self.classes)} listed, SHA-256 {digest}"
        for name, default in LATER.items():
            if values[name] == default:
                del values[name]
        return values


def parse_bands(text: str) -> tuple[int, ...]:
    """'0-3,7' as (0, 1, 2, 3, 7). Raises PlanError."""
    bands: set[int] = set()
    for piece in text.split(","):
        first, dash, last = piece.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise PlanError(f"--bands {text}: write numbers and ranges, as in 0-3,7")
        if not int(first) <= int(last or first) < max(FACTORS):
            raise PlanError(f"--bands {text}: {piece.strip()} is not a range of bands")
        bands.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(bands))


def random_keys(seed: int, stream: int, count: int) -> NDArray[np.uint64]:
    """`count` random 64-bit numbers; raw PCG64 output, whose stream NumPy promises never to change."""
    return np.asarray(np.random.PCG64(np.random.SeedSequence([seed, stream])).random_raw(count), np.uint64)


def permutation(seed: int, stream: int, count: int) -> NDArray[np.int64]:
    """A seeded permutation of range(count), the same on every machine and NumPy release."""
    return np.argsort(random_keys(seed, stream, count), kind="stable").astype(np.int64)


_LIMIT, _HELD_OUT, _ORDER = range(3)


def hold_out(
    label: NDArray[np.int32], classes: tuple[str, ...], per_class: int, seed: int, limit: int = 0
) -> NDArray[np.bool_]:
    """Which samples of a source without val become val: bool (n,).

    per_class: how many of each class, -1 for 5 %, at most 50.  limit: what the samples were drawn by, to be named.
    Raises PlanError if a class would be left without an image to train on.
    """
    counts = np.bincount(label, minlength=len(classes))
    if per_class < 0:
        wanted = np.minimum(np.floor(counts * VAL_SHARE + 0.5), VAL_MOST).astype(np.int64)
    else:
        wanted = np.where(counts > 0, per_class, 0)
        short = np.flatnonzero((counts > 0) & (counts <= per_class))
        if len(short):
            has = f"of which --limit {limit} takes" if limit else "which has"
            raise PlanError(
                f"--val-per-class {per_class} leaves nothing to train on in class {classes[short[0]]}, {has} "
                f"{counts[short[0]]} images ({len(short)} such classes): choose fewer"
            )
    order = np.lexsort((random_keys(seed, _HELD_OUT, len(label)), label))
    rank = np.empty(len(label), np.int64)
    rank[order] = np.arange(len(label)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(rank < wanted[label])


def shard_size(samples: int, plan: SplitPlan) -> int:
    """Samples of a full shard: as asked, or about 1/64 of all in whole blocks, at most 32,768."""
    if plan.samples_per_shard:
        return plan.samples_per_shard
    block = plan.samples_per_block
    return max(min(-(-samples // SHARDS // block) * block, LARGEST_SHARD // block * block), block)


@dataclass(frozen=True)
class Row:
    """One shard row: the candidates `indices` of a part, in stored order, in all bands."""

    part: str
    number: int
    indices: NDArray[np.int64]

    @property
    def name(self) -> str:
        """train-000003: the name of its shards, without .tar."""
        return f"{self.part}-{self.number:06d}"


def stored_order(listing: Listing, plan: SplitPlan) -> dict[str, NDArray[np.int64]]:
    """For each part that will be written, the candidates of the source in stored order.

    The indices count into listing.parts[part], or into listing.parts['train'] for a val that is held
    out of it. Train is a permutation of the whole part; val keeps the source's order.
    """
    chosen = {}
    for stream, (part, entries) in enumerate(sorted(listing.parts.items())):
        picked = np.arange(len(entries), dtype=np.int64)
        if 0 < plan.limit < len(entries):
            picked = np.sort(permutation(plan.seed, _LIMIT + 16 * stream, len(entries))[: plan.limit])
        chosen[part] = picked
    train = chosen["train"]
    if "val" not in chosen:
        label = listing.parts["train"].label[train]
        held = hold_out(label, listing.classes, plan.val_per_class, plan.seed, plan.limit)
        if held.any():
            chosen["val"] = train[held]
        train = train[~held]
    chosen["train"] = train[permutation(plan.seed, _ORDER, len(train))]
    return chosen


def rows(order: dict[str, NDArray[np.int64]], plan: SplitPlan) -> list[Row]:
    """The shard rows of a split: train, then val."""
    planned = []
    for part in sorted(order):
        size = shard_size(len(order[part]), plan)
        for number, start in enumerate(range(0, len(order[part]), size)):
            planned.append(Row(part, number, order[part][start : start + size]))
    return planned


def part_entries(listing: Listing, part: str) -> tuple[str, Entries]:
    """The part of the source that a part of the split is drawn from, and its samples."""
    origin = part if part in listing.parts else "train"
    return origin, listing.parts[origin]
