"""One shard row, the unit of work and of commit: the same samples in one shard of every band."""

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
from ..config import SplitConfig
from ..errors import RejectedImage
from ..pipeline.band_blocks import BandBlocks
from ..pipeline.decode import Decoder, decoder_name, resizer_name
from ..pipeline.images import EncodedImages

RECORDS = "rows"
# images that are decoded before they are transformed: 3 % faster than one by one, which empties the CPU's caches
GROUP, GROUP_BYTES = 16, 32_000_000


@dataclass(frozen=True)
class RowTask:
    """All that a worker needs to write one row.

    Attributes:
        name: Name of the row: train-000003.
        config: The options, resolved.
        images: The images of the row.
        tools: `tool_versions()` of the process that runs the split.
    """

    name: str
    config: SplitConfig
    images: EncodedImages
    tools: dict[str, str]


@dataclass(frozen=True)
class BandRow:
    """What a row put into one band.

    Attributes:
        shard: The shard.
        index: The entries of its blocks, as shard/index.py has them.
        clipped: For each channel the coefficients that were cut to the range of the type.
        total: For each channel the exact sum of the stored values.
        squares: For each channel the exact sum of their squares.
    """

    shard: Shard
    index: bytes
    clipped: tuple[int, ...]
    total: tuple[int, ...]
    squares: tuple[int, ...]


@dataclass(frozen=True)
class RowRecord:
    """The record of a committed row.

    Attributes:
        name: Name of the row.
        samples: Stored samples.
        rejects: (position within the row, reason) of each image that was left out.
        bands: What the row put into each written band.
        turned: Samples whose EXIF has another orientation than 1.
    """

    name: str
    samples: int
    rejects: tuple[tuple[int, str], ...]
    bands: tuple[BandRow, ...]
    turned: int = 0

    def to_bytes(self) -> bytes:
        """Return the record as canonical JSON; it names `turned` only if that is not 0."""
        bands = [{**vars(b.shard), **vars(b), "index": b.index.hex()} for b in self.bands]
        for band in bands:
            del band["shard"]
        turned = {"turned": self.turned} if self.turned else {}
        return canonical_json(
            {"name": self.name, "samples": self.samples, "rejects": self.rejects, "bands": bands, **turned}
        )

    @staticmethod
    def from_bytes(data: bytes) -> RowRecord:
        """Read a record.

        Raises:
            ValueError, KeyError: The record is damaged.
        """
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


def tool_versions() -> dict[str, str]:
    """Return the names and versions of what computes the bytes of a row."""
    return {"compressor": compressor_name(), "decoder": decoder_name(), "resizer": resizer_name()}


def record_name(row: str) -> str:
    """Return the name of a row's record in the destination."""
    return f"{RECORDS}/{row}.json"


def shard_names(config: SplitConfig, row: str) -> list[str]:
    """Return the names of a row's shards, one for each written band."""
    return [f"{band_folder(band)}/{row}.tar" for band in config.bands]


def write_row(task: RowTask, store: Store) -> RowRecord:
    """Split the images of a row, commit its shards, then its record.

    Linear algebra runs on one thread, as rows run in parallel.

    Args:
        task: The row.
        store: The destination.

    Raises:
        BackendError: This machine has other versions of the tools than the process that runs the split.
        SourceError, StoreError
    """
    for tool, name in tool_versions().items():
        if name != task.tools[tool]:
            raise BackendError(
                f"a worker has {name} where the run has {task.tools[tool]}, which makes other bytes: "
                "install the same on all machines"
            )
    blocks = BandBlocks(task.config)
    decoder = _decoder(task.config)
    rejects: list[tuple[int, str]] = []
    names = shard_names(task.config, task.name)
    # until the record is there: a run that takes over from a killed one waits for this
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


def _decoder(config: SplitConfig) -> Decoder:
    side = config.size + config.margin
    group = max(min(GROUP, GROUP_BYTES // (4 * side**2)), 1)
    return Decoder(side, config.fit, config.geometry.grid, group, config.upright)


def _write_shards(
    task: RowTask, decoder: Decoder, files: list[BinaryIO], blocks: BandBlocks, rejects: list[tuple[int, str]]
) -> list[tuple[Shard, bytes]]:
    """Decode, split and write the images of a row; append those that cannot be used to `rejects`.

    Returns:
        For each band the shard and its index.
    """
    kinds = [task.config.compression_of(band) for band in task.config.bands]
    writers = [ShardWriter(file, kind) for file, kind in zip(files, kinds, strict=True)]
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
    """Transform the decoded images into blocks; write each block that is full."""
    for pixels, label in zip(decoder.pixels, labels, strict=False):
        blocks.add(pixels, label)
        if blocks.full:
            _flush(blocks, writers)
    labels.clear()


def _flush(blocks: BandBlocks, writers: list[ShardWriter]) -> None:
    arrays, labels = blocks.take()
    for writer, array in zip(writers, arrays, strict=True):
        writer.add(array if writer.compression == "none" else compress_block(array, blocks.plane), labels)


def _ints(values: NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(values.tolist())
