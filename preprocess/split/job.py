"""Run a split: scan the source, plan the rows, write those that are missing, then the manifests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...shards_manifest.manifest import MANIFEST, band_folder
from ...shards_manifest.runtime.executors import Backend
from ...shards_manifest.storage.address import Address, is_url, shown
from ...shards_manifest.storage.base import TEMPORARY, Store
from ...shards_manifest.storage.opening import open_store
from ..config import SourceOptions, SplitConfig
from ..errors import ConfigError, DestinationError, SourceError
from ..listing import Listing
from ..pipeline.images import EncodedImages
from ..sources import OnProgress, Source, find_source, no_progress
from . import scan_cache
from .class_filter import choose_classes
from .compression import bands_to_leave, earlier_choice, measure, sentence
from .identity import SplitIdentity
from .manifests import write_manifests
from .shard_row import RECORDS, RowRecord, RowTask, record_name, shard_names, tool_versions, write_row
from .sharding import ShardRow, part_entries, plan_rows, stored_order

PLAN = f"{RECORDS}/plan.json"

OnRow = Callable[[RowRecord, int, bool], object]  # a committed row, the images planned for it, whether it is new


@dataclass(frozen=True)
class Job:
    """A scanned source and the rows that a split of it has.

    Attributes:
        source: The source.
        listing: What its scan found.
        config: The options, resolved.
        rows: The shard rows, train first.
        stamp: Stamp that the scan may be saved under; empty for none.
    """

    source: Source
    listing: Listing
    config: SplitConfig
    rows: list[ShardRow]
    stamp: str

    @property
    def samples(self) -> dict[str, int]:
        """Images of each part, before any is rejected."""
        counts: dict[str, int] = {}
        for row in self.rows:
            counts[row.part] = counts.get(row.part, 0) + len(row.indices)
        return counts

    @property
    def classes(self) -> dict[str, int]:
        """Classes that have images, for each part."""
        seen = {part: np.zeros(len(self.listing.classes), bool) for part in self.samples}
        for row in self.rows:
            seen[row.part][part_entries(self.listing, row.part)[1].label[row.indices]] = True
        return {part: int(np.count_nonzero(labels)) for part, labels in seen.items()}

    def task(self, row: ShardRow) -> RowTask:
        """Return what a worker needs to write a row."""
        origin, entries = part_entries(self.listing, row.part)
        images = EncodedImages(self.source, origin, self.listing.names_in(origin), entries.take(row.indices))
        return RowTask(row.name, self.config, images, tool_versions())

    def first_task(self) -> RowTask:
        """Return the task of the first row, whose images can be read now. Raises SourceError."""
        self.source.stage()
        return self.task(self.rows[0])

    def identity(self) -> SplitIdentity:
        """Return what determines the bytes of the split."""
        return SplitIdentity.of(self.config, self.source.describe(), self.listing.digest(), tool_versions())


@dataclass(frozen=True)
class SplitOutcome:
    """What a run of `split` did.

    Attributes:
        samples: Stored samples of each part.
        rejects: Images and classes that were left out.
        bytes: Bytes of all shards.
        clipped: Coefficients that were cut to the range of int8.
        written: Rows that this run wrote.
        earlier: Rows that an earlier run had written.
        turned: Samples whose EXIF has another orientation than 1.
    """

    samples: dict[str, int]
    rejects: int
    bytes: int
    clipped: int
    written: int
    earlier: int
    turned: int = 0


def prepare(
    source: str | os.PathLike[str],
    config: SplitConfig,
    options: SourceOptions | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: OnProgress = no_progress,
) -> Job:
    """Check the options, recognise and scan the source, and plan the rows.

    A scan that an earlier run saved in `out` is used again if the source has not changed.

    Args:
        source: Path or URL of the source.
        config: Options of the split, resolved or not.
        options: What the user says about the source; None to detect everything.
        out: Destination; None to scan in any case.
        progress: Called with the number of images that were found since the last call.

    Raises:
        ConfigError, SourceError, StoreError
    """
    config = config.resolved()
    try:
        found = find_source(source, options or SourceOptions())
        stamp = scan_cache.stamp(found, config)
        saved = scan_cache.load(open_store(out), stamp) if out is not None else None
        listing = saved or choose_classes(found.scan(progress), config)
    except OSError as error:
        where = error.filename or shown(source)
        raise SourceError(f"cannot read {where} ({error.strerror}): mend it and run again") from None
    if "val" in listing.parts:
        if config.val_per_class > 0:
            raise ConfigError(f"--val-per-class does not apply: {shown(source)} has a val part of its own")
        config = replace(config, val_per_class=0)
    return Job(found, listing, config, plan_rows(stored_order(listing, config), config), stamp)


def split(
    job: Job,
    out: str | os.PathLike[str],
    backend: Backend,
    on_row: OnRow = lambda record, images, new: None,
) -> SplitOutcome:
    """Write what is missing of a split.

    Args:
        job: What `prepare` returned.
        out: Destination, a folder or a URL.
        backend: Where the rows are computed.
        on_row: Called for every committed row, also for those of an earlier run.

    Raises:
        DestinationError: `out` holds something else, or another process writes to it.
        SourceError, StoreError, BackendError
    """
    store = open_store(out)
    job, _ = choose_compression(job, store)
    with _owned(store):
        _claim(store, job.identity())
        scan_cache.save(store, job.listing, job.stamp)
        records = _committed_rows(store, job)
        earlier = len(records)
        sizes = {row.name: len(row.indices) for row in job.rows}
        for name, record in records.items():
            on_row(record, sizes[name], False)
        missing = [row for row in job.rows if row.name not in records]
        if missing:
            job.source.stage()
            store.remove(MANIFEST)  # not a data set until the missing rows are written
            tasks = ((job.task(row), store) for row in missing)
            with closing(backend.each(write_row, tasks, len(missing))) as written:
                for record in written:
                    records[record.name] = record
                    on_row(record, sizes[record.name], True)
        ordered = [(row, records[row.name]) for row in job.rows]
        if not any(record.samples for row, record in ordered if row.part == "train"):
            raise SourceError(f"none of the images can be used; the first was rejected: {_first_reject(ordered)}")
        rejects = write_manifests(store, job.config, job.listing, ordered, job.identity())
    samples: dict[str, int] = {}
    for row, record in ordered:
        samples[row.part] = samples.get(row.part, 0) + record.samples
    return SplitOutcome(
        samples=samples,
        rejects=rejects,
        bytes=sum(band.shard.bytes for _, record in ordered for band in record.bands),
        clipped=sum(sum(band.clipped) for _, record in ordered for band in record.bands),
        written=len(missing),
        earlier=earlier,
        turned=sum(record.turned for _, record in ordered),
    )


def choose_compression(job: Job, store: Store) -> tuple[Job, str]:
    """Return the job with `--compression auto` resolved, and a sentence on it; nothing where that is not needed.

    It is measured on the first images of a seeded order, so that the choice depends on the input and the options alone.
    An earlier run with the same destination has chosen already.
    """
    if job.config.uncompressed is not None:
        return job, ""
    try:
        earlier = earlier_choice(store.read(PLAN))
    except FileNotFoundError:
        earlier = None
    chosen = bands_to_leave(measure(job.first_task()), job.config.bands) if earlier is None else earlier
    return replace(job, config=replace(job.config, uncompressed=chosen)), sentence(chosen, earlier is not None)


def _committed_rows(store: Store, job: Job) -> dict[str, RowRecord]:
    """Return the records of rows whose shards are all there in full length; remove what killed runs left."""
    sizes: dict[str, int] = {}
    for folder in (RECORDS, "", *(band_folder(band) for band in job.config.bands)):
        sizes |= store.sizes(folder)
    for name in sizes:
        if name.endswith(TEMPORARY):
            store.remove(name)
    records = {}
    for row in job.rows:
        if record_name(row.name) not in sizes:
            continue
        try:
            record = RowRecord.from_bytes(store.read(record_name(row.name)))
            names = shard_names(job.config, row.name)
            if all(sizes.get(n) == b.shard.bytes for n, b in zip(names, record.bands, strict=True)):
                records[row.name] = record
        except (ValueError, KeyError, TypeError):
            continue
    return records


def _claim(store: Store, identity: SplitIdentity) -> None:
    """Record the identity in an empty destination. Refuse one that holds anything but this split."""
    try:
        recorded = store.read(PLAN)
    except FileNotFoundError:
        leftovers = [name for name in store.folders() + store.names() if name != RECORDS]
        if leftovers:
            raise DestinationError(
                f"{store} is not empty (it holds {min(leftovers)}) and no split was begun there: choose another --out"
            ) from None
        try:
            store.create(PLAN, identity.to_bytes())
            return
        except FileExistsError:  # another process's, or our own where the answer was lost
            recorded = store.read(PLAN)
    try:
        differences = identity.differences(recorded)
    except ValueError:
        raise DestinationError(f"{store}/{PLAN} is damaged: delete {store} and split again") from None
    if differences:
        raise DestinationError(
            f"{store} holds another split ({'; '.join(differences)}): choose another --out, or delete it"
        )


@contextmanager
def _owned(store: Store) -> Iterator[None]:
    """Lock the destination for this run. Raises DestinationError if another process has it."""
    try:
        with store.owning(RECORDS):
            yield
    except BlockingIOError:
        raise DestinationError(
            f"{store} is being written by another process: wait for it, or choose another --out"
        ) from None
    except OSError as error:
        raise DestinationError(f"cannot write to {store}: {error.strerror}") from None


def _first_reject(ordered: list[tuple[ShardRow, RowRecord]]) -> str:
    return next((reason for _, record in ordered for _, reason in record.rejects), "there are none")


def check_outside(source: str | os.PathLike[str], out: str | os.PathLike[str], option: str = "--out") -> None:
    """Refuse to write to a web server, or within the source, where the next scan would find the files.

    Raises:
        DestinationError, StoreError
    """
    if is_url(out) and Address.parse(os.fspath(out)).web:
        raise DestinationError(f"{option} {shown(out)} can only be read: choose a folder, s3://, gs:// or az://")
    if is_url(source) or is_url(out):
        if is_url(source) and f"{shown(out)}/".startswith(f"{shown(source)}/"):
            raise DestinationError(f"{option} {out} lies within the source {source}: choose a folder beside it")
        return
    inner, outer = Path(out).resolve(), Path(source).resolve()
    if inner == outer or outer in inner.parents:
        raise DestinationError(f"{option} {out} lies within the source {source}: choose a folder beside it")
