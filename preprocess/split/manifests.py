"""The last step of a split: tables and manifests from the row records, the manifest of the whole split last."""

from __future__ import annotations

import hashlib

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
from ...shards_manifest.spectral.transform import band_frequency
from ...shards_manifest.storage.base import Store
from ..config import SplitConfig
from ..listing import Listing
from ..pipeline.band_blocks import moments
from ..pipeline.coefficients import FLOAT16_UNIT
from .identity import SplitIdentity
from .shard_row import RECORDS, BandRow, RowRecord
from .sharding import ShardRow, part_entries


def write_manifests(
    store: Store,
    config: SplitConfig,
    listing: Listing,
    ordered: list[tuple[ShardRow, RowRecord]],
    identity: SplitIdentity,
) -> int:
    """Write the tables, the manifests of the bands and that of the split, in this order.

    Args:
        store: The destination.
        config: The options, resolved.
        listing: The scanned source.
        ordered: Every row with its record, in order.
        identity: What determines the bytes of the split.

    Returns:
        The number of rejects.
    """
    parts, rejects = _write_tables(store, listing, ordered)
    bands = []
    for position, band in enumerate(config.bands):
        indices = {
            part: b"".join(record.bands[position].index for row, record in ordered if row.part == part)
            for part in parts
        }
        for part, index in indices.items():
            _put(store, f"{band_folder(band)}/{index_name(part)}", index)
        manifest = _band_manifest(config, listing, ordered, parts, indices, identity.source["name"], position)
        _put(store, f"{band_folder(band)}/{MANIFEST}", dump(manifest))
        bands.append(_band_summary(manifest, [record.bands[position] for _, record in ordered]))
    manifest_of_all = SplitManifest(
        dataset=identity.source["name"],
        geometry=config.geometry,
        classes=len(listing.classes),
        bands=tuple(bands),
        parts=parts,
        rejects=rejects,
        provenance=identity.to_json(),
    )
    # after a power cut a record may be there and the names of its shards not: a rerun looks for both until this flush
    store.flush(["", RECORDS, *(band_folder(band) for band in config.bands)])
    _put(store, MANIFEST, dump(manifest_of_all))
    store.flush([""])
    return rejects


def _write_tables(
    store: Store, listing: Listing, ordered: list[tuple[ShardRow, RowRecord]]
) -> tuple[dict[str, PartSummary], int]:
    """Write the tables of samples, classes and rejects; return the counts of each part and of the rejects."""
    rejects = list(listing.rejects)
    parts: dict[str, PartSummary] = {}
    stored = {part: np.zeros(len(listing.classes), np.int64) for part in ("train", "val")}
    for part in sorted({row.part for row, _ in ordered}):
        of_part = [(row, record) for row, record in ordered if row.part == part]
        table = tables.TableWriter()
        for row, record in of_part:
            samples, left_out = _samples(listing, row, record)
            rejects += left_out
            stored[part] += np.bincount([label for _, label in samples], minlength=len(listing.classes))
            table.add(samples)
        packed, digest = table.finish()
        parts[part] = PartSummary(table.samples, len(of_part), digest)
        _put(store, tables.samples_name(part), packed)
    counts = (stored[part].tolist() for part in ("train", "val"))
    _put(store, tables.CLASSES, tables.class_table(listing.class_names, *counts))
    _put(store, tables.REJECTS, tables.reject_lines(sorted(rejects)))
    return parts, len(rejects)


def _band_summary(manifest: BandManifest, rows: list[BandRow]) -> BandSummary:
    """Return a band as the manifest of the whole split lists it."""
    return BandSummary(
        band=manifest.band,
        folder=band_folder(manifest.band),
        frequency=manifest.frequency,
        step=manifest.step,
        bytes=sum(row.shard.bytes for row in rows),
        clipped=tuple(sum(row.clipped[c] for row in rows) for c in range(3)),
        compression=manifest.compression,
    )


def _samples(listing: Listing, row: ShardRow, record: RowRecord) -> tuple[list[tuple[str, int]], list[tuple[str, str]]]:
    """Return the (key, label) of every stored sample of a row, in order, and the (key, reason) of the rest."""
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
    config: SplitConfig,
    listing: Listing,
    ordered: list[tuple[ShardRow, RowRecord]],
    parts: dict[str, PartSummary],
    indices: dict[str, bytes],
    dataset: str,
    position: int,
) -> BandManifest:
    """Return the manifest of the band at a position in config.bands."""
    band = config.bands[position]
    steps = config.band_steps()[band].tolist()
    train = [record.bands[position] for row, record in ordered if row.part == "train"]
    mean, std = moments(
        tuple(sum(row.total[c] for row in train) for c in range(3)),
        tuple(sum(row.squares[c] for row in train) for c in range(3)),
        parts["train"].samples * config.geometry.plane**2,
        tuple(steps) if config.dtype == "int8" else (FLOAT16_UNIT,) * 3,
    )
    return BandManifest(
        dataset=dataset,
        geometry=config.geometry,
        band=band,
        frequency=band_frequency(config.transform, config.factor, band),
        block=config.samples_per_block,
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
        compression=config.compression_of(band),
    )


def _put(store: Store, name: str, data: bytes) -> None:
    """Write a file unless it is there already, byte for byte."""
    if not store.exists(name) or store.read(name) != data:
        store.write(name, data)
