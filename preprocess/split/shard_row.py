"""One shard row, the unit of work and of commit: the same samples into a shard of every band."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ...shards_manifest.errors import BackendError
from ...shards_manifest.manifest import Shard, band_folder, canonical_json
from ...shards_manifest.shard.codec import compress_block, compressor_name
from ...shards_manifest.shard.format import ShardWriter
from ...shards_manifest.shard.index import ENTRY
from ...shards_manifest.storage.base import Store
from ..config import SplitPlan
from ..errors import RejectedImage
from ..pipeline.band_blocks import BandBlocks
from ..pipeline.decode import Decoder, decoder_name, resizer_name
from ..pipeline.images import Images

RECORDS = "rows"
# images decoded in one go: 3 % faster than one by one, whose code and data leave the cache each time
GROUP, GROUP_BYTES = 16, 32_000_000


@dataclass(frozen=True)
class RowTask:
    """All that a worker needs to write one row."""

    name: str
    plan: SplitPlan
    images: Images
    tools: dict[str, str]


@dataclass(frozen=True)
class BandRow:
    """What a row put into one band: the shard with its index, and per channel int sums over its stored values."""

    shard: Shard
    index: bytes
    clipped: tuple[int, ...]
    total: tuple[int, ...]
    squares: tuple[int, ...]


@dataclass(frozen=True)
class RowRecord:
    """The proof that a row is committed.

    rejects: (position within the row, reason).  turned: samples whose EXIF has another orientation than 1.
    """

    name: str
    samples: int
    rejects: tuple[tuple[int, str], ...]
    bands: tuple[BandRow, ...]
    turned: int = 0

    def to_bytes(self) -> bytes:
        """Canonical JSON; turned is in it where there are any."""
        bands = [{**vars(b.shard), **vars(b), "index": b.index.hex()} for b in self.bands]
        for band in bands:
            del band["shard"]
        some = {"turned": self.turned} if self.turned else {}
        return canonical_json(
            {"name": self.name, "samples": self.samples, "rejects": self.rejects, "bands": bands, **some}
        )

    @staticmethod
    def from_bytes(data: bytes) -> RowRecord:
        """Read a record. Raises ValueError or KeyError."""
        raw: dict[str, Any] = json.loads(data)
        bands = tuple(
            BandRow(
                Shard(b["name"], b["samples"], b["blocks"], b["bytes"], b["sha256"]),
                bytes.fromhex(b["index"]),
                tuple(b["clipped"]),
                tuple(b["total"]),
                tuple(b["squares"]),
            )
            for b in raw["bands"]
        )
        rejects = tuple((i, r) for i, r in raw["rejects"])
        return RowRecord(raw["name"], raw["samples"], rejects, bands, raw.get("turned", 0))


def tools() -> dict[str, str]:
    """What computes the bytes of a row, with versions: part of what a split is."""
    return {"compressor": compressor_name(), "decoder": decoder_name(), "resizer": resizer_name()}


def record_name(row: str) -> str:
    """Where the record of a row lies in the destination."""
    return f"{RECORDS}/{row}.json"


def shard_names(plan: SplitPlan, row: str) -> list[str]:
    """The shards of a row, one for each written band."""
    return [f"{band_folder(band)}/{row}.tar" for band in plan.bands]


def write_row(task: RowTask, store: Store) -> RowRecord:
    """Split the images of a row, commit its shards, then its record.

    Linear algebra runs on one thread: rows are what runs in parallel. Raises SourceError, StoreError, and
    BackendError where this machine's tools are not those of the run.
    """
    for tool, name in tools().items():
        if name != task.tools[tool]:
            raise BackendError(
                f"a worker has {name} where the run has {task.tools[tool]}, which makes other bytes: "
                "install the same on all machines"
            )
    blocks = BandBlocks(task.plan)
    decoder = _decoder(task.plan)
    rejects: list[tuple[int, str]] = []
    names = shard_names(task.plan, task.name)
    # held until the record is there: a run that takes over from a killed one waits for it
    with store.working(RECORDS):
        with threadpool_limits(1), store.writing(names) as files:
            shards = _write_shards(task, decoder, files, blocks, rejects)
        bands = tuple(
            BandRow(shard, index, _ints(clipped), _ints(total), _ints(squares))
            for (shard, index), clipped, total, squares in zip(shards, *blocks.counts, strict=True)
        )
        record = RowRecord(task.name, shards[0][0].samples, tuple(rejects), bands, decoder.turned)
        store.write(record_name(task.name), record.to_bytes())
    return record


def _decoder(plan: SplitPlan) -> Decoder:
    side = plan.size + plan.margin
    group = max(min(GROUP, GROUP_BYTES // (4 * side**2)), 1)
    return Decoder(side, plan.fit, plan.geometry.grid, group, plan.orientation == "exif")


def _write_shards(
    task: RowTask, decoder: Decoder, files: list[BinaryIO], blocks: BandBlocks, rejects: list[tuple[int, str]]
) -> list[tuple[Shard, bytes]]:
    """Decode, split and write the images of a row, noting those that cannot be used: shards and their indices."""
    writers = [ShardWriter(file) for file in files]
    labels: list[int] = []
    for i, data in enumerate(task.images):
        try:
            if isinstance(data, RejectedImage):
                raise data
            decoder(data, len(labels))
        except RejectedImage as reason:
            rejects.append((i, str(reason)))
            continue
        labels.append(int(task.images.entries.label[i]))
        if len(labels) == len(decoder.pixels):
            _split(decoder, labels, blocks, writers)
    _split(decoder, labels, blocks, writers)
    if blocks.count:
        _flush(blocks, writers)
    return [(writer.finish(f"{task.name}.tar"), np.array(writer.index, ENTRY).tobytes()) for writer in writers]


def _split(decoder: Decoder, labels: list[int], blocks: BandBlocks, writers: list[ShardWriter]) -> None:
    """Move the decoded images into blocks; write each that fills up."""
    for pixels, label in zip(decoder.pixels, labels, strict=False):
        blocks.add(pixels, label)
        if blocks.full:
            _flush(blocks, writers)
    labels.clear()


def _flush(blocks: BandBlocks, writers: list[ShardWriter]) -> None:
    arrays, labels = blocks.take()
    for writer, array in zip(writers, arrays, strict=True):
        writer.add(compress_block(array, blocks.plane), labels)


def _ints(values: NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(values.tolist())
