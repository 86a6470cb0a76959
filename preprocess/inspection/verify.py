"""Check a finished split, or one band of it, against its manifests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...shards_manifest import tables
from ...shards_manifest.dataset import open_data, read_band
from ...shards_manifest.errors import FormatError, ShardError
from ...shards_manifest.manifest import MANIFEST, BandManifest, Part, Shard, SplitManifest
from ...shards_manifest.runtime.executors import Backend
from ...shards_manifest.shard.format import BlockFormat, check_bytes, index_shard, read_labels
from ...shards_manifest.shard.index import PartIndex, block_entries, load_index
from ...shards_manifest.storage.base import Store


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    Attributes:
        shards: How many were checked, in all bands.
        samples: How many the data set holds.
        bytes: Of all shards.
        bad: One sentence for each shard, table or manifest that is not as it should be.
    """

    shards: int
    samples: int
    bytes: int
    bad: list[str]


def verify(path: str, jobs: int, progress: Callable[[int], object] = lambda shards: None) -> VerifyReport:
    """Check counts, sizes, SHA-256, that every block decodes, and that all bands hold the same samples.

    Args:
        path: A whole split or a single band, a folder or a URL.
        jobs: Processes at work; -1 for one a core.
        progress: Called with the number of shards that were checked since the last call.

    Raises:
        FormatError: Nothing can be checked.
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
    indices = {folder: _indices(store, folder, band, bad) for folder, band in bands.items()}
    formats = {folder: BlockFormat.of(band) for folder, band in bands.items()}
    work = [
        (folder, band, part, number)
        for folder, band in bands.items()
        for part in band.parts
        for number in range(len(band.parts[part].shards))
    ]
    calls = (
        (
            place,
            store,
            folder,
            band.parts[part].shards[number],
            band.block,
            formats[folder],
            indices[folder][part].of_shard(number) if part in indices[folder] else None,
        )
        for place, (folder, band, part, number) in enumerate(work)
    )
    checked: dict[int, tuple[str, str]] = {}
    with closing(Backend(jobs=jobs).each(_check_shard, calls, len(work))) as results:
        for place, problem, labels in results:
            checked[place] = problem, labels
            progress(1)
    for place, (folder, band, name, number) in enumerate(work):
        problem, labels = checked[place]
        shard = band.parts[name].shards[number]
        if problem:
            bad.append(problem)
        expected = order.get(name, {}).get(shard.name)
        if not problem and expected is not None and labels != expected:
            bad.append(
                f"{store}/{_join(folder, shard.name)} holds other samples than {tables.samples_name(name)} lists"
            )
    bad += _extra_shards(store, bands)
    return VerifyReport(
        len(work),
        sum(p.samples for b in list(bands.values())[:1] for p in b.parts.values()),
        sum(shard.bytes for band in bands.values() for part in band.parts.values() for shard in part.shards),
        bad,
    )


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _check_shard(
    place: int,
    store: Store,
    folder: str,
    shard: Shard,
    block_size: int,
    block_format: BlockFormat,
    index: NDArray[np.void] | None,
) -> tuple[int, str, str]:
    """Check one shard, every byte of it.

    Args:
        place: Of the shard in the work.
        store: Of the data set.
        folder: Of the band in the store.
        shard: What the manifest says of it.
        block_size: Samples of every block but the last.
        block_format: What every block has to be.
        index: ENTRY (blocks,); None where the index of the part is damaged.

    Returns:
        The place, a sentence if the shard is bad, else nothing, and a digest of its labels.
    """
    name = _join(folder, shard.name)
    where = f"{store}/{name}"
    labels = hashlib.sha256()
    try:
        view = store.view(name)
        check_bytes(view, shard, where)
        blocks = index_shard(view, where, block_format.compression)
        if index is not None and not np.array_equal(block_entries(view, blocks), index):
            raise ShardError(f"{where} is not what its index says: the index is damaged")
        if len(blocks) != shard.blocks:
            samples = sum(len(read_labels(view, block, where)) for block in blocks)
            raise ShardError(f"{where} holds {samples} samples in {len(blocks)} blocks, not what its manifest says")
        for number, block in enumerate(blocks):
            samples = min(block_size, shard.samples - number * block_size)
            _, y = block_format.read(view, block, samples, where)
            labels.update(y.tobytes())
    except FileNotFoundError:
        return place, f"{where} is missing", ""
    except ShardError as error:
        return place, str(error), ""
    return place, "", labels.hexdigest()


def _check_split(manifest: SplitManifest, bands: dict[str, BandManifest], store: Store) -> list[str]:
    """Return a sentence for each band that does not agree with the manifest of the split."""
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
    """Return for each part the digest of the labels that each shard should hold, by the sample table."""
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


def _indices(store: Store, folder: str, band: BandManifest, bad: list[str]) -> dict[str, PartIndex]:
    """Return the index of every part that has a good one."""
    found = {}
    for name, part in band.parts.items():
        try:
            found[name] = load_index(store, folder, name, part, band.block)
        except ShardError as error:
            bad.append(str(error))
    return found


def _extra_shards(store: Store, bands: dict[str, BandManifest]) -> list[str]:
    """Return a sentence for each tar that no manifest lists: a reader that globs would pick it up."""
    return [
        f"{store}/{name} is not listed in the manifest"
        for folder, band in bands.items()
        for name in store.names(folder)
        if name.endswith(".tar")
        and name.rpartition("/")[2] not in {shard.name for part in band.parts.values() for shard in part.shards}
    ]
