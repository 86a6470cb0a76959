"""Check a finished split, or one band of it, against its manifests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import joblib
import numpy as np

from shards_manifest import (
    DTYPES,
    MANIFEST,
    BandManifest,
    FormatError,
    Part,
    Shard,
    ShardError,
    SplitManifest,
    Store,
    check_bytes,
    index_shard,
    open_data,
    read_band,
    read_block,
    tables,
)


@dataclass(frozen=True)
class Report:
    """What `verify` found. bad: one sentence for each shard, table or manifest that is not as it should be."""

    shards: int
    samples: int
    bytes: int
    bad: list[str]


def verify(path: str, jobs: int, progress: Callable[[int], object] = lambda shards: None) -> Report:
    """Check counts, sizes, SHA-256, that every block decodes, and that all bands hold the same samples.

    Works on a whole split and on a single band. Raises FormatError where nothing can be checked.
    """
    store, manifest = open_data(path)
    bad: list[str] = []
    if isinstance(manifest, BandManifest):
        bands = {"": manifest}
        order = {}
    else:
        bands = {}
        for summary in manifest.bands:
            try:
                bands[summary.folder] = read_band(store, summary.folder)
            except FormatError as error:
                bad.append(str(error))
        bad += _check_split(manifest, bands, store)
        order = _tables(manifest, store, bad)
    work = [
        (folder, band, part, shard)
        for folder, band in bands.items()
        for part in band.parts.values()
        for shard in part.shards
    ]
    parallel = joblib.Parallel(n_jobs=max(min(jobs, len(work)), 1), return_as="generator")
    results = parallel(
        joblib.delayed(_check_shard)(store, folder, shard, band.geometry.dtype, band.geometry.plane)
        for folder, band, _, shard in work
    )
    for (folder, band, part, shard), (problem, labels) in zip(work, results, strict=True):
        progress(1)
        name = next(n for n, p in band.parts.items() if p is part)
        if problem:
            bad.append(problem)
        expected = order.get(name, {}).get(shard.name)
        if not problem and expected is not None and labels != expected:
            bad.append(
                f"{store}/{_join(folder, shard.name)} holds other samples than {tables.samples_name(name)} lists"
            )
    bad += _extra_shards(store, bands)
    return Report(
        len(work),
        sum(p.samples for b in list(bands.values())[:1] for p in b.parts.values()),
        sum(shard.bytes for *_, shard in work),
        bad,
    )


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _check_shard(store: Store, folder: str, shard: Shard, dtype: str, plane: int) -> tuple[str, str]:
    """A sentence if the shard is bad, else nothing; and a digest of its labels."""
    name = _join(folder, shard.name)
    where = f"{store}/{name}"
    labels = hashlib.sha256()
    try:
        view = store.view(name)
        check_bytes(view, shard, where)
        blocks = index_shard(view, where)
        samples = 0
        for block in blocks:
            x, y = read_block(view, block, where)
            if x.dtype != DTYPES[dtype] or x.shape[1:] != (3, plane, plane):
                raise ShardError(f"{where} holds {x.dtype} samples of {x.shape[1:]}, not what its manifest says")
            samples += len(y)
            labels.update(y.tobytes())
        if (samples, len(blocks)) != (shard.samples, shard.blocks):
            raise ShardError(f"{where} holds {samples} samples in {len(blocks)} blocks, not what its manifest says")
    except FileNotFoundError:
        return f"{where} is missing", ""
    except ShardError as error:
        return str(error), ""
    return "", labels.hexdigest()


def _check_split(manifest: SplitManifest, bands: dict[str, BandManifest], store: Store) -> list[str]:
    """Bands that do not agree with the split's manifest."""
    bad = []
    for summary in manifest.bands:
        band = bands.get(summary.folder)
        if band is None:
            continue
        where = f"{store}/{summary.folder}/{MANIFEST}"
        if band.geometry != manifest.geometry or band.band != summary.band or len(band.classes) != manifest.classes:
            bad.append(f"{where} belongs to another split")
        for name, part in manifest.parts.items():
            if name not in band.parts or band.parts[name].digest != part.digest:
                bad.append(f"{where} has another sample order in {name} than the split")
            elif (band.parts[name].samples, len(band.parts[name].shards)) != (part.samples, part.shards):
                bad.append(f"{where} has other counts in {name} than the split")
    return bad


def _tables(manifest: SplitManifest, store: Store, bad: list[str]) -> dict[str, dict[str, str]]:
    """For each part, the digest of the labels that each shard should hold, by the sample table."""
    expected: dict[str, dict[str, str]] = {}
    for name, summary in manifest.parts.items():
        table = tables.samples_name(name)
        try:
            labels, digest = tables.read_labels(store.read(table), f"{store}/{table}")
        except FileNotFoundError:
            bad.append(f"{store}/{table} is missing")
            continue
        except FormatError as error:
            bad.append(str(error))
            continue
        if digest != summary.digest or len(labels) != summary.samples:
            bad.append(f"{store}/{table} is not the table of this split")
            continue
        try:
            part: Part = read_band(store, manifest.bands[0].folder).parts[name]
        except (FormatError, KeyError):
            continue
        ends = np.cumsum([shard.samples for shard in part.shards])
        expected[name] = {
            shard.name: hashlib.sha256(labels[end - shard.samples : end].astype("<i8").tobytes()).hexdigest()
            for shard, end in zip(part.shards, ends.tolist(), strict=True)
        }
    return expected


def _extra_shards(store: Store, bands: dict[str, BandManifest]) -> list[str]:
    """Tars that no manifest lists: a reader that globs would pick them up."""
    return [
        f"{store}/{name} is not listed in the manifest"
        for folder, band in bands.items()
        for name in store.names(folder)
        if name.endswith(".tar")
        and name.rpartition("/")[2] not in {shard.name for part in band.parts.values() for shard in part.shards}
    ]
