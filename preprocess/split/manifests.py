"""The last step of a split: tables and manifests from the row records, the split's own manifest last."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from ...shards_manifest import tables
from ...shards_manifest.manifest import (
    MANIFEST,
    BandManifest,
    BandSummary,
    Part,
    PartSummary,
    SplitManifest,
    band_folder,
    dump,
)
from ...shards_manifest.shard.index import index_name
from ...shards_manifest.spectral.transform import band_frequency, band_steps
from ...shards_manifest.storage.base import Store
from ..config import Row, SplitPlan, part_entries
from ..listing import Listing
from ..pipeline.band_blocks import moments
from ..pipeline.coefficients import FLOAT16_UNIT
from .shard_row import RECORDS, RowRecord


def write_manifests(
    store: Store,
    plan: SplitPlan,
    listing: Listing,
    ordered: list[tuple[Row, RowRecord]],
    identity: dict[str, Any],
) -> int:
    """Write tables, band manifests and the split's manifest, in this order; return the count of rejects."""
    rejects = list(listing.rejects)
    parts: dict[str, PartSummary] = {}
    kept = {part: np.zeros(len(listing.classes), np.int64) for part in ("train", "val")}
    for part in sorted({row.part for row, _ in ordered}):
        chosen = [(row, record) for row, record in ordered if row.part == part]
        table = tables.TableWriter()
        for row, record in chosen:
            samples, left_out = _samples(listing, row, record)
            rejects += left_out
            kept[part] += np.bincount([label for _, label in samples], minlength=len(listing.classes))
            table.add(samples)
        packed, digest = table.finish()
        parts[part] = PartSummary(table.samples, len(chosen), digest)
        _put(store, tables.samples_name(part), packed)
    _put(
        store,
        tables.CLASSES,
        tables.class_table(listing.class_names, kept["train"].tolist(), kept["val"].tolist()),
    )
    _put(store, tables.REJECTS, tables.reject_lines(sorted(rejects)))

    summaries = []
    for position, band in enumerate(plan.bands):
        indices = {
            part: b"".join(record.bands[position].index for row, record in ordered if row.part == part)
            for part in parts
        }
        for part, index in indices.items():
            _put(store, f"{band_folder(band)}/{index_name(part)}", index)
        manifest = _band_manifest(plan, listing, ordered, parts, indices, identity["source"]["name"], position)
        _put(store, f"{band_folder(band)}/{MANIFEST}", dump(manifest))
        rows = [record.bands[position] for _, record in ordered]
        summaries.append(
            BandSummary(
                band=band,
                folder=band_folder(band),
                frequency=manifest.frequency,
                step=manifest.step,
                bytes=sum(row.shard.bytes for row in rows),
                clipped=tuple(sum(row.clipped[c] for row in rows) for c in range(3)),
            )
        )
    whole = SplitManifest(
        dataset=identity["source"]["name"],
        geometry=plan.geometry,
        classes=len(listing.classes),
        bands=tuple(summaries),
        parts=parts,
        rejects=len(rejects),
        provenance=identity,
    )
    # a record may outlive a power cut that its shards' names do not: a rerun looks for both; this is for good
    store.flush(["", RECORDS, *(band_folder(band) for band in plan.bands)])
    _put(store, MANIFEST, dump(whole))
    store.flush([""])
    return len(rejects)


def _samples(listing: Listing, row: Row, record: RowRecord) -> tuple[list[tuple[str, int]], list[tuple[str, str]]]:
    """The (key, label) of every stored sample of a row, in order, and the (key, reason) of the rest."""
    origin, entries = part_entries(listing, row.part)
    reasons = dict(record.rejects)
    samples, rejects = [], []
    keys, labels = listing.keys(entries, row.indices), entries.label[row.indices].tolist()
    for position, (key, label) in enumerate(zip(keys, labels, strict=True)):
        if position in reasons:
            rejects.append((listing.in_part(origin, key), reasons[position]))
        else:
            samples.append((key, label))
    if len(samples) != record.samples:
        raise AssertionError(f"the record of {row.name} does not add up")
    return samples, rejects


def _band_manifest(
    plan: SplitPlan,
    listing: Listing,
    ordered: list[tuple[Row, RowRecord]],
    parts: dict[str, PartSummary],
    indices: dict[str, bytes],
    dataset: str,
    position: int,
) -> BandManifest:
    band = plan.bands[position]
    steps = band_steps(plan.step, plan.dtype, plan.color, plan.transform, plan.factor)[band].tolist()
    train = [record.bands[position] for row, record in ordered if row.part == "train"]
    mean, std = moments(
        tuple(sum(row.total[c] for row in train) for c in range(3)),
        tuple(sum(row.squares[c] for row in train) for c in range(3)),
        parts["train"].samples * plan.geometry.plane**2,
        tuple(steps) if plan.dtype == "int8" else (FLOAT16_UNIT,) * 3,
    )
    return BandManifest(
        dataset=dataset,
        geometry=plan.geometry,
        band=band,
        frequency=band_frequency(plan.transform, plan.factor, band),
        block=plan.samples_per_block,
        step=tuple(steps),
        mean=mean,
        std=std,
        classes=listing.class_names,
        parts={
            part: Part(
                summary.samples,
                summary.digest,
                hashlib.sha256(indices[part]).hexdigest(),
                tuple(record.bands[position].shard for row, record in ordered if row.part == part),
            )
            for part, summary in parts.items()
        },
    )


def _put(store: Store, name: str, data: bytes) -> None:
    """Write a file unless it is there already, byte for byte."""
    if not store.exists(name) or store.read(name) != data:
        store.write(name, data)
