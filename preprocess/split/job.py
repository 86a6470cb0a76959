"""Run a split: scan, plan, write the rows that are missing, then the manifests."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...shards_manifest.manifest import MANIFEST, VERSION, band_folder, canonical_json
from ...shards_manifest.runtime.executors import Backend
from ...shards_manifest.storage.address import Address, is_url, shown
from ...shards_manifest.storage.base import TEMPORARY, Store
from ...shards_manifest.storage.opening import open_store
from ..config import LATER, Row, SplitPlan, part_entries, rows, stored_order
from ..errors import DestinationError, PlanError, SourceError
from ..listing import Listing
from ..pipeline.images import Images
from ..sources import OnProgress, Source, SourceOptions, find_source, no_progress
from . import scan_cache as scans
from .class_filter import choose_classes
from .manifests import write_manifests
from .shard_row import RECORDS, RowRecord, RowTask, record_name, shard_names, tools, write_row

PLAN = f"{RECORDS}/plan.json"


@dataclass(frozen=True)
class Job:
    """A scanned source and the rows that a plan makes of it. stamp: what the scan may be saved under."""

    source: Source
    listing: Listing
    plan: SplitPlan
    rows: list[Row]
    stamp: str

    @property
    def samples(self) -> dict[str, int]:
        """Candidates of each part."""
        counts: dict[str, int] = {}
        for row in self.rows:
            counts[row.part] = counts.get(row.part, 0) + len(row.indices)
        return counts

    @property
    def classes(self) -> dict[str, int]:
        """Classes that have candidates, of each part."""
        seen = {part: np.zeros(len(self.listing.classes), bool) for part in self.samples}
        for row in self.rows:
            seen[row.part][part_entries(self.listing, row.part)[1].label[row.indices]] = True
        return {part: int(np.count_nonzero(labels)) for part, labels in seen.items()}

    def task(self, row: Row) -> RowTask:
        """What a worker needs for a row."""
        origin, entries = part_entries(self.listing, row.part)
        images = Images(self.source, origin, self.listing.names_in(origin), entries.take(row.indices))
        return RowTask(row.name, self.plan, images, tools())

    def identity(self) -> dict[str, Any]:
        """Everything that determines the bytes of the split; equal for two runs that may share a destination."""
        return {
            "version": VERSION,
            "plan": self.plan.to_json(),
            "source": {**self.source.describe(), "digest": self.listing.digest()},
            "tools": tools(),
        }


@dataclass(frozen=True)
class SplitOutcome:
    """What a run of `split` did. written: rows of this run; earlier: rows found committed.

    turned: samples whose EXIF has another orientation than 1.
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
    plan: SplitPlan,
    options: SourceOptions | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: OnProgress = no_progress,
) -> Job:
    """Check the options, recognise and scan the source, and plan the rows.

    A scan that an earlier run saved in `out`, of a source that has not changed, is taken from there.
    progress is told of images as they are found. Raises PlanError, SourceError, StoreError.
    """
    plan = plan.resolved()
    try:
        found = find_source(source, options or SourceOptions())
        stamp = scans.stamp(found, plan)
        saved = scans.load(open_store(out), stamp) if out is not None else None
        listing = saved or choose_classes(found.scan(progress), plan)
    except OSError as error:
        where = error.filename or shown(source)
        raise SourceError(f"cannot read {where} ({error.strerror}): mend it and run again") from None
    if "val" in listing.parts:
        if plan.val_per_class > 0:
            raise PlanError(f"--val-per-class does not apply: {shown(source)} has a val part of its own")
        plan = replace(plan, val_per_class=0)
    order = stored_order(listing, plan)
    return Job(found, listing, plan, rows(order, plan), stamp)


def split(
    job: Job,
    out: str | os.PathLike[str],
    backend: Backend,
    progress: Callable[[RowRecord, int, bool], object] = lambda record, candidates, new: None,
) -> SplitOutcome:
    """Write what is missing of a split to the folder `out`.

    progress is called for every row that is committed: its record, its candidates, and whether it is new.
    Raises DestinationError if `out` holds something else, StoreError if the disk refuses, BackendError.
    """
    store = open_store(out)
    with _own(store):
        _check_identity(store, job)
        scans.save(store, job.listing, job.stamp)
        records = _committed(store, job)
        missing = [row for row in job.rows if row.name not in records]
        sizes = {row.name: len(row.indices) for row in job.rows}
        for name, record in records.items():
            progress(record, sizes[name], False)
        earlier = len(records)
        if missing:
            job.source.stage()
            store.remove(MANIFEST)  # not a data set again until the missing rows are back
            tasks = ((job.task(row), store) for row in missing)
            with closing(backend.each(write_row, tasks, len(missing))) as written:
                for record in written:
                    records[record.name] = record
                    progress(record, sizes[record.name], True)
        ordered = [(row, records[row.name]) for row in job.rows]
        if not any(record.samples for row, record in ordered if row.part == "train"):
            raise SourceError(f"none of the images can be used; the first was rejected: {_first_reject(ordered)}")
        rejects = write_manifests(store, job.plan, job.listing, ordered, job.identity())
    samples: dict[str, int] = {}
    for row, record in ordered:
        samples[row.part] = samples.get(row.part, 0) + record.samples
    total = sum(band.shard.bytes for _, record in ordered for band in record.bands)
    clipped = sum(sum(band.clipped) for _, record in ordered for band in record.bands)
    turned = sum(record.turned for _, record in ordered)
    return SplitOutcome(samples, rejects, total, clipped, len(missing), earlier, turned)


def _committed(store: Store, job: Job) -> dict[str, RowRecord]:
    """The records of rows whose shards are all there, in full length; leftovers of others are removed."""
    there: dict[str, int] = {}
    for folder in (RECORDS, "", *(band_folder(band) for band in job.plan.bands)):
        there |= store.sizes(folder)
    for name in there:
        if name.endswith(TEMPORARY):
            store.remove(name)
    records = {}
    for row in job.rows:
        if record_name(row.name) not in there:
            continue
        try:
            record = RowRecord.from_bytes(store.read(record_name(row.name)))
            names = shard_names(job.plan, row.name)
            if all(there.get(n) == b.shard.bytes for n, b in zip(names, record.bands, strict=True)):
                records[row.name] = record
        except (ValueError, KeyError, TypeError):
            continue
    return records


def _check_identity(store: Store, job: Job) -> None:
    """Refuse a destination that holds anything but an earlier run of the same job; else claim it."""
    identity = job.identity()
    try:
        there = store.read(PLAN)
    except FileNotFoundError:
        leftovers = [name for name in store.folders() + store.names() if name != RECORDS]
        if leftovers:
            raise DestinationError(
                f"{store} is not empty (it holds {min(leftovers)}) and no split was begun there: choose another --out"
            ) from None
        try:
            store.create(PLAN, canonical_json(identity))
            return
        except FileExistsError:  # another's, or our own where the answer was lost
            there = store.read(PLAN)
    try:
        found = json.loads(there)
    except ValueError:
        raise DestinationError(f"{store}/{PLAN} is damaged: delete {store} and split again") from None
    if isinstance(found, dict) and isinstance(found.get("plan"), dict):
        found["plan"] = {**LATER, **found["plan"]}
    differences = list(_differences(found, {**identity, "plan": {**LATER, **identity["plan"]}}))
    if differences:
        raise DestinationError(
            f"{store} holds another split ({'; '.join(differences)}): choose another --out, or delete it"
        )


def _differences(found: Any, wanted: Any, name: str = "") -> Iterator[str]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys()):
            yield from _differences(found.get(key), wanted.get(key), key if name in ("", "plan") else f"{name} {key}")
    elif found != json.loads(json.dumps(wanted)):
        if name == "source digest":
            yield "the source's list of images has changed"
        else:
            there, here = ("not given" if value is None else value for value in (found, wanted))
            yield f"{name.replace('_', '-')} {there} there, {here} here"


@contextmanager
def _own(store: Store) -> Iterator[None]:
    """Hold the destination for this run alone."""
    try:
        with store.owning(RECORDS):
            yield
    except BlockingIOError:
        raise DestinationError(
            f"{store} is being written by another process: wait for it, or choose another --out"
        ) from None
    except OSError as error:
        raise DestinationError(f"cannot write to {store}: {error.strerror}") from None


def _first_reject(ordered: list[tuple[Row, RowRecord]]) -> str:
    return next((reason for _, record in ordered for _, reason in record.rejects), "there are none")


def check_outside(source: str | os.PathLike[str], out: str | os.PathLike[str], option: str = "--out") -> None:
    """Refuse to write to a web server, or within the source, where the next scan would find it.

    Raises DestinationError, StoreError.
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
