"""Ways to read the samples of one band, each run by itself: what `read.py` compares.

    python loaders.py write NAME DATA
    python loaders.py read NAME DATA
    python loaders.py memory DATA

DATA holds `band`, a band of a split, and where it is needed `x.npy`, `y.npy` (the same samples), and `images`, the
class folders of the split. MosaicML Streaming and LitData need nothing of this project, whose dependencies theirs
do not fit: they may run in an environment of their own. So may FFCV, which builds where the headers of OpenCV and of
libturbojpeg are.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import peers
from peers import BATCH, Batches, arrays

WARM, LEAST, MOST = 3.0, 5.0, 20.0  # seconds: before timing; whole epochs for at least; at most, within an epoch too


def ours(data: Path, workers: int = 0, folder: str = "band") -> Callable[[int], Batches]:
    """The reader of spectral-train."""
    from spectral_shards.shards_manifest.dataset import open_band
    from spectral_shards.shards_manifest.shard.reader import BlockReader
    from spectral_shards.train.data.sampler import EpochSampler, Span
    from spectral_shards.train.data.stream import TrainStream
    from spectral_shards.train.data.worker_pool import read_ahead

    store, manifest = open_band(data / folder)
    blocks = BlockReader(store, manifest, "train")
    plan = EpochSampler.of(blocks.samples, BATCH, blocks.block_bytes, 0)

    def epoch(number: int) -> Batches:
        stream = TrainStream(blocks, plan, Span(0, plan.batch_size), range(number, number + 1))
        return ((batch.x, batch.y) for batch in read_ahead(stream, workers, pin_memory=False))

    return epoch


def resident(data: Path) -> Callable[[int], Batches]:
    """The public loader with the band in memory."""
    from spectral_shards.train.data.loader import BandLoader, LoaderOptions

    loader = BandLoader(data / "band", "train", BATCH, workers=0, options=LoaderOptions(resident="memory"))

    def epoch(number: int) -> Batches:
        loader.set_epoch(number)
        return loader

    return epoch


def take(data: Path) -> Callable[[int], Batches]:
    """NumPy's gather of random rows of an array in memory: what there is to reach."""
    x, y = (np.array(whole) for whole in arrays(data))

    def epoch(number: int) -> Batches:
        order = np.random.default_rng(number).permutation(len(y))
        for first in range(0, len(y) - BATCH + 1, BATCH):
            chosen = order[first : first + BATCH]
            yield x.take(chosen, 0, np.empty((BATCH, *x.shape[1:]), x.dtype), "clip"), y[chosen]

    return epoch


def write_plain(data: Path) -> None:
    """The same band without compression."""
    from dataclasses import replace

    from spectral_shards.shards_manifest.dataset import open_band
    from spectral_shards.shards_manifest.manifest import MANIFEST, dump
    from spectral_shards.shards_manifest.shard.codec import decompress_block
    from spectral_shards.shards_manifest.shard.format import ShardWriter, index_shard, read_labels
    from spectral_shards.shards_manifest.shard.index import ENTRY, index_name

    store, manifest = open_band(data / "band")
    (data / "plain").mkdir()
    part, entries, shards = manifest.parts["train"], b"", []
    for shard in part.shards:
        view = store.view(shard.name)
        with (data / "plain" / shard.name).open("wb") as file:
            writer = ShardWriter(file, "none")
            for block in index_shard(view, shard.name):
                writer.add(decompress_block(view[block.x]), read_labels(view, block, shard.name))
            shards.append(writer.finish(shard.name))
        entries += np.array(writer.index, ENTRY).tobytes()
    (data / "plain" / index_name("train")).write_bytes(entries)
    part = replace(part, index=hashlib.sha256(entries).hexdigest(), shards=tuple(shards))
    plain = replace(manifest, compression="none", parts={"train": part})
    (data / "plain" / MANIFEST).write_bytes(dump(plain))


def _alone(data: Path, decompress: Callable[[bytes], int]) -> Callable[[int], Batches]:
    """The blocks in stored order, from memory; decompress: to bytes that no one looks at, the count of them."""
    from spectral_shards.shards_manifest.dataset import open_band
    from spectral_shards.shards_manifest.shard.format import index_shard

    store, manifest = open_band(data / "band")
    blocks = []
    for shard in manifest.parts["train"].shards:
        view = store.view(shard.name)
        blocks += [bytes(view[block.x]) for block in index_shard(view, shard.name)]
    sample = 3 * manifest.geometry.plane**2

    def epoch(_: int) -> Batches:
        for block in blocks:
            yield range((decompress(block) - 128) // sample), None

    return epoch


def by_isal(data: Path) -> Callable[[int], Batches]:
    """Decompression alone, by ISA-L."""
    from isal import igzip_lib

    def decompress(block: bytes) -> int:
        size = int.from_bytes(block[-4:], "little")  # told what to expect it is fastest
        return len(igzip_lib.decompress(block, igzip_lib.DECOMP_GZIP, 15, size + 1))

    return _alone(data, decompress)


def by_ours(data: Path) -> Callable[[int], Batches]:
    """Decompression alone, by our inflate."""
    from spectral_shards.shards_manifest.shard.codec import DecodeBuffer, decompress_block

    room = DecodeBuffer()
    return _alone(data, lambda block: len(decompress_block(memoryview(block), room)))


WRITERS: dict[str, Callable[[Path], None]] = {
    "plain": write_plain,
    "png": peers.write_png,
    "mosaic": peers.write_mosaic,
    "litdata": peers.write_litdata,
    "zstd": peers.write_zstd,
    "ffcv": peers.write_ffcv,
}
READERS: dict[str, Callable[[Path], Callable[[int], Batches]]] = {
    "ours": ours,
    "plain": partial(ours, folder="plain"),
    "resident": resident,
    "take": take,
    "by_isal": by_isal,
    "by_ours": by_ours,
    "blocks": peers.blocks_by_webdataset,
    "png": peers.png_by_webdataset,
    "mosaic": peers.mosaic,
    "litdata": peers.litdata,
    "zstd": peers.zstd_by_litdata,
    "ffcv": peers.ffcv,
    "imagefolder": peers.imagefolder,
}


def _counted(epoch: Callable[[int], Batches], expected: int, seconds: float) -> Iterator[int]:
    """The running count of samples, batch by batch, until an epoch ends after `LEAST` or any batch after `seconds`.

    Raises SystemExit where an epoch is not whole: a loader that loses samples has no rate.
    """
    count, number, started = 0, 0, time.perf_counter()
    while time.perf_counter() - started < min(LEAST, seconds):
        first = count
        for x, _ in epoch(number):
            count += len(x)
            yield count
            if time.perf_counter() - started > seconds:
                return
        if not expected - BATCH < count - first <= expected:
            sys.exit(f"an epoch has {count - first} samples where {expected} are stored")
        number += 1


def peak() -> float:
    """The largest resident set of this process so far, in MB; getrusage has its parent's, where that was larger."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000


def read(name: str, data: Path) -> dict[str, float]:
    """Samples per second of one loader on one core, and the largest resident set of the process in MB."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    import torch

    torch.set_num_threads(1)
    before = peak()
    expected = json.loads((data / "band" / "manifest.json").read_text())["parts"]["train"]["samples"]
    epoch = READERS[name](data)
    for _ in _counted(epoch, expected, WARM):
        pass
    started = time.perf_counter()
    *_, count = _counted(epoch, expected, MOST)
    seconds = time.perf_counter() - started
    return {"rate": count / seconds, "before": before, "after": peak()}


def memory(data: Path) -> float:
    """MB that a reading process of our own shares with no other, once it has read an epoch."""
    import multiprocessing

    epoch = ours(data, workers=1)
    largest = 0
    for number, _ in enumerate(epoch(0)):
        if number % 20 == 0:
            for child in multiprocessing.active_children():
                rollup = Path(f"/proc/{child.pid}/smaps_rollup").read_text()
                kinds = ("Private_Clean:", "Private_Dirty:")
                largest = max(largest, sum(int(rollup.partition(kind)[2].split()[0]) for kind in kinds))
    return largest / 1000


if __name__ == "__main__":
    if sys.argv[1] == "write":
        WRITERS[sys.argv[2]](Path(sys.argv[3]))
    elif sys.argv[1] == "memory":
        print(memory(Path(sys.argv[2])))
    else:
        print(json.dumps(read(sys.argv[2], Path(sys.argv[3]))))
