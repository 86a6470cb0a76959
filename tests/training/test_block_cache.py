"""A band in a bucket of a real S3 server: read by ranges, kept on a disk, through faults."""

from __future__ import annotations

import multiprocessing
import os
import time
import warnings
from pathlib import Path

import pytest
import torch

from spectral_shards.shards_manifest.dataset import open_band
from spectral_shards.shards_manifest.errors import ShardError
from spectral_shards.shards_manifest.shard.reader import BlockReader
from spectral_shards.shards_manifest.storage.object_store import RemoteStore
from spectral_shards.train.data.block_cache import BlockCache
from spectral_shards.train.data.sampler import EpochSampler, Span
from spectral_shards.train.data.stream import Batch, TrainStream
from spectral_shards.train.data.worker_pool import read_ahead
from support.buckets import BUCKET, FaultProxy, Server, SlowProxy, environment
from support.programs import fails, program

BAND = "read/sub4/02"
TINY = ("--network", "cnn", "--recipe", "quick", "--epochs", "2", "--batch-size", "16", "--resident", "off")


@pytest.fixture(scope="module")
def band(server: Server, sub4: Path) -> str:
    server.put(sub4 / "02", BAND)
    return f"s3://{BUCKET}/{BAND}"


@pytest.fixture(autouse=True)
def reached(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(server.port).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The objects that ranges are asked of."""
    seen: list[str] = []
    real = RemoteStore._fetch

    def counted(self: RemoteStore, name: str, start: int, length: int, in_parts: bool = False) -> tuple[bytes, int]:
        if in_parts:
            seen.append(name)
        return real(self, name, start, length, in_parts)

    monkeypatch.setattr(RemoteStore, "_fetch", counted)
    return seen


def batches(
    band: str | Path, cache: BlockCache | None = None, workers: int = 0, epochs: int = 1, skip: bool = False
) -> list[Batch]:
    store, manifest = open_band(band)
    blocks = BlockReader(store, manifest, "train", cache)
    plan = EpochSampler.of(blocks.samples, 9, blocks.block_bytes, seed=1)
    return list(read_ahead(TrainStream(blocks, plan, Span(0, 9), range(epochs), skip=skip), workers, pin_memory=False))


def same(first: list[Batch], second: list[Batch]) -> bool:
    return all(torch.equal(a.x, b.x) and torch.equal(a.y, b.y) for a, b in zip(first, second, strict=True))


def test_a_remote_band_gives_the_batches_of_a_local_one(band: str, sub4: Path, asked: list[str]) -> None:
    wanted = batches(sub4 / "02", epochs=2)
    assert same(batches(band, epochs=2), wanted)
    blocks = 11
    assert 2 * blocks <= len(asked) <= 2 * (blocks + 9)  # each epoch again; slots share the blocks at their ends
    assert same(batches(band, workers=2, epochs=2), wanted)


def test_what_is_cached_is_not_asked_for_again(band: str, sub4: Path, asked: list[str], tmp_path: Path) -> None:
    wanted = batches(sub4 / "02", epochs=3)
    assert same(batches(band, BlockCache(tmp_path, 10**9), epochs=3), wanted)
    assert len(set(asked)) == 4  # so small a band is asked for again before the first answers are there
    asked.clear()
    assert same(batches(band, BlockCache(tmp_path, 10**9), epochs=3), wanted)
    assert asked == []
    assert same(batches(band, BlockCache(tmp_path, 10**9), workers=2, epochs=3), wanted)
    names = {path.suffix for path in tmp_path.iterdir()}
    assert names == {".blocks", ".map"}


def test_a_damaged_cache_is_mended(band: str, sub4: Path, asked: list[str], tmp_path: Path) -> None:
    wanted = batches(sub4 / "02")
    batches(band, BlockCache(tmp_path, 10**9))
    paths = sorted(tmp_path.glob("*.blocks"))
    data = bytearray(paths[0].read_bytes())
    data[600] ^= 255
    paths[0].write_bytes(data)
    os.truncate(paths[1], 100)
    paths[2].unlink()
    sorted(tmp_path.glob("*.map"))[3].write_bytes(b"")
    asked.clear()
    assert same(batches(band, BlockCache(tmp_path, 10**9)), wanted)
    assert len(set(asked)) == 4
    asked.clear()
    assert same(batches(band, BlockCache(tmp_path, 10**9)), wanted)
    assert asked == []


def _read(band: str, folder: Path, done: object) -> None:
    found = batches(band, BlockCache(folder, 10**9), epochs=2)
    done.put([batch.y.tolist() for batch in found])  # type: ignore[attr-defined]


def test_processes_share_a_cache(band: str, sub4: Path, asked: list[str], tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    done = context.Queue()
    readers = [context.Process(target=_read, args=(band, tmp_path, done)) for _ in range(2)]
    for reader in readers:
        reader.start()
    found = [done.get(timeout=60) for _ in readers]
    for reader in readers:
        reader.join(20)
        assert reader.exitcode == 0
    assert found[0] == found[1] == [batch.y.tolist() for batch in batches(sub4 / "02", epochs=2)]
    asked.clear()
    batches(band, BlockCache(tmp_path, 10**9))
    assert asked == []


def test_the_least_recently_used_goes_first(
    band: str, sub4: Path, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spectral_shards.train.data import block_cache as module

    monkeypatch.setattr(module, "CHECK", 1)
    batches(band, BlockCache(tmp_path, 10**9))
    shards = sorted(tmp_path.glob("*.map"))
    size = sum(512 * path.stat().st_blocks for path in tmp_path.glob("*.blocks"))
    old = tmp_path / "old.blocks"
    old.write_bytes(bytes(50_000))
    old.with_suffix(".map").write_bytes(b"\1")
    os.utime(old.with_suffix(".map"), (1, 1))
    shards[0].unlink()  # something is to be put
    batches(band, BlockCache(tmp_path, size + 10_000))
    assert not old.exists()
    assert len(list(tmp_path.glob("*.map"))) == len(shards)
    # what is in use stays, and no more is taken
    shards[0].unlink()
    shards[0].with_suffix(".blocks").unlink()
    asked.clear()
    batches(band, BlockCache(tmp_path, 1000))
    batches(band, BlockCache(tmp_path, 1000))
    assert len(list(tmp_path.glob("*.map"))) == len(shards) - 1
    assert len(asked) >= 2
    past = time.time() - 1000
    for path in tmp_path.glob("*.map"):
        os.utime(path, (past, past))
    assert BlockCache(tmp_path, 1000)._make_room()
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written(band: str, sub4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    cache = BlockCache(tmp_path / "cache", 10**9)
    monkeypatch.setattr(os, "pwrite", full)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert same(batches(band, cache), batches(sub4 / "02"))
    assert len(said) == 1
    assert "takes no more (No space left on device): going on without" in str(said[0].message)
    (tmp_path / "file").write_text("x")
    run = ("spectral-train", "--shards", band, *TINY, "--out", tmp_path / "run", "--cache")
    assert "cannot be used" in fails(*run, tmp_path / "file")
    assert "write a size of 100MB or more" in fails(*run, tmp_path / "cache", "--cache-size", "5")


def test_faults_change_nothing(
    band: str, server: Server, sub4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = batches(sub4 / "02", epochs=4)
    proxy = FaultProxy(server.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    assert same(batches(band, epochs=4), wanted)
    proxy.close()
    assert len(set(proxy.seen)) > 4
    slow = SlowProxy(server.port, 0.02)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{slow.port}")
    assert same(batches(band, BlockCache(tmp_path, 10**9), epochs=4), wanted)
    slow.close()


def test_a_shard_that_is_missing_or_altered_in_the_bucket(server: Server, sub4: Path) -> None:
    import obstore

    server.put(sub4 / "00", "read/bad")
    client = server.client("read/bad")
    obstore.delete(client, "train-000001.tar")
    data = bytearray((sub4 / "00" / "train-000002.tar").read_bytes())
    data[600] ^= 1
    obstore.put(client, "train-000002.tar", bytes(data))
    band = f"s3://{BUCKET}/read/bad"
    with pytest.raises(ShardError, match=rf"{band}/train-00000[12]\.tar (is missing|was altered)"):
        batches(band)
    found = batches(band, skip=True)
    assert [len(batch.y) for batch in found] == [9] * 9
    lost = {sentence for batch in found for sentence, _ in batch.lost}
    assert len(lost) >= 2


def test_training_from_a_bucket_with_a_cache(band: str, sub4: Path, tmp_path: Path) -> None:
    runs = []
    for number, shards in enumerate((str(sub4 / "02"), band)):
        out = tmp_path / str(number)
        command = ["spectral-train", "--shards", shards, *TINY, "--out", out, "--workers", str(number)]
        done = program(*command, "--cache", tmp_path / "cache", "--last-batch", "wrap")
        assert done.returncode == 0, done.stderr
        runs.append((out / "val-logits.npy").read_bytes())
    assert runs[0] == runs[1]
    assert len(list((tmp_path / "cache").glob("*.map"))) == 5  # of train and val


def test_what_a_kill_left_behind_is_removed_and_what_a_slow_run_uses_is_not(
    band: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spectral_shards.train.data import block_cache as module

    monkeypatch.setattr(module, "CHECK", 1)
    cache = BlockCache(tmp_path, 10**9)
    batches(band, cache)
    past = time.time() - 1000
    orphan = tmp_path / "orphan.blocks"
    orphan.write_bytes(bytes(50_000))
    for path in tmp_path.iterdir():
        os.utime(path, (past, past))
    cache.limit = 1000
    assert not cache._make_room()  # what this run uses is too much by itself, and stays
    assert not orphan.exists()
    assert len(list(tmp_path.glob("*.blocks"))) == 4
    assert BlockCache(tmp_path, 10**9)._make_room()
