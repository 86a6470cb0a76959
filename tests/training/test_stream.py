import os
import shutil
import threading
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from spectral_shards.shards_manifest.dataset import open_band
from spectral_shards.shards_manifest.errors import FormatError, ShardError, StoreError
from spectral_shards.shards_manifest.shard.reader import BlockReader
from spectral_shards.train.data.sampler import EpochSampler, Span, evaluation_batches, rank_blocks
from spectral_shards.train.data.stream import Batch, EvalStream, TrainStream
from spectral_shards.train.data.worker_pool import AHEAD, read_ahead
from support.buckets import WebServer, wait_for


def blocks_of(folder: Path | str, part: str = "train") -> BlockReader:
    store, manifest = open_band(str(folder))
    return BlockReader(store, manifest, part)


def stream_of(
    folder: Path | str,
    batch_size: int,
    epochs: range,
    first_batch: int = 0,
    span: Span | None = None,
    skip: bool = False,
) -> TrainStream:
    blocks = blocks_of(folder)
    plan = EpochSampler.of(blocks.samples, batch_size, blocks.block_bytes, seed=3)
    return TrainStream(blocks, plan, span or Span(0, plan.batch_size), epochs, first_batch, skip)


def stored(part: BlockReader) -> tuple[np.ndarray, np.ndarray]:
    blocks = [part.read(number) for number in range(len(part.samples))]
    return np.concatenate([x for x, _ in blocks]), np.concatenate([y for _, y in blocks])


def same(first: list[Batch], second: list[Batch]) -> bool:
    return all(torch.equal(a.x, b.x) and torch.equal(a.y, b.y) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_stream_delivers_the_stored_samples(sub4: Path, workers: int) -> None:
    x, y = stored(blocks_of(sub4 / "01"))
    assert (x.shape, x.dtype, len(y)) == ((81, 3, 12, 12), np.int8, 81)
    batches = list(read_ahead(stream_of(sub4 / "01", 9, range(2)), workers, pin_memory=False))
    assert len(batches) == 18
    assert {batch.x.shape for batch in batches} == {(9, 3, 12, 12)}
    for epoch in (batches[:9], batches[9:]):
        got = torch.cat([b.x for b in epoch]).numpy().reshape(81, -1)
        assert sorted(map(bytes, got)) == sorted(map(bytes, x.reshape(81, -1)))
        labels = dict(zip(map(bytes, x.reshape(81, -1)), y.tolist(), strict=True))
        assert [labels[bytes(row)] for row in got] == torch.cat([b.y for b in epoch]).tolist()
    first, second = (torch.cat([b.y for b in epoch]).tolist() for epoch in (batches[:9], batches[9:]))
    assert first != second
    assert same(batches, list(stream_of(sub4 / "01", 9, range(2))))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_goes_on_in_the_middle_of_an_epoch(sub4: Path, workers: int) -> None:
    whole = list(stream_of(sub4 / "00", 20, range(3)))
    late = list(read_ahead(stream_of(sub4 / "00", 20, range(1, 3), first_batch=3), workers, pin_memory=False))
    assert len(whole) == 12
    assert same(whole[7:], late)


def test_ranks_share_the_batches_of_one(sub4: Path) -> None:
    whole = list(stream_of(sub4 / "00", 20, range(2)))
    for ranks in (2, 3, 7):
        shares = [list(stream_of(sub4 / "00", 20, range(2), span=Span(0, 20).share(r, ranks))) for r in range(ranks)]
        assert same(
            whole,
            [
                Batch(torch.cat([s.x for s in batch]), torch.cat([s.y for s in batch]))
                for batch in zip(*shares, strict=True)
            ],
        )


def test_evaluation_keeps_the_stored_order(sub4: Path) -> None:
    x, y = stored(blocks_of(sub4 / "03", "val"))
    assert y.tolist() == sorted(y.tolist())
    for size, ranks in ((1, 1), (8, 2), (10, 3), (1000, 1)):
        blocks = blocks_of(sub4 / "03", "val")
        every = range(len(blocks.samples))
        planned = [evaluation_batches(blocks.samples, rank_blocks(every, r, ranks), size) for r in range(ranks)]
        streams = [EvalStream(blocks, each) for each in planned]
        batches = [batch for stream in streams for batch in stream]
        assert np.array_equal(torch.cat([b.x for b in batches]).numpy(), x)
        assert torch.cat([b.y for b in batches]).tolist() == y.tolist()


DAMAGE = [
    (lambda p: p.unlink(), "is missing: copy the band again"),
    (lambda p: os.truncate(p, 700), "is cut short: copy it again"),
    (lambda p: p.write_bytes(p.read_bytes()[:-2600] + b"!" + p.read_bytes()[-2599:]), "was altered"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
@pytest.mark.parametrize("workers", [0, 2])
def test_bad_shards_stop_training_by_name(
    sub4: Path, tmp_path: Path, damage: object, message: str, workers: int
) -> None:
    band = Path(shutil.copytree(sub4 / "00", tmp_path / "00"))
    damage(band / "train-000002.tar")  # type: ignore[operator]
    with pytest.raises(ShardError, match=rf"train-000002\.tar {message}"):
        list(read_ahead(stream_of(band, 9, range(1)), workers, pin_memory=False))


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
@pytest.mark.parametrize("workers", [0, 2])
def test_bad_shards_can_be_skipped(sub4: Path, tmp_path: Path, damage: object, message: str, workers: int) -> None:
    band = Path(shutil.copytree(sub4 / "00", tmp_path / "00"))
    whole = list(stream_of(band, 9, range(1)))
    damage(band / "train-000002.tar")  # type: ignore[operator]
    batches = list(read_ahead(stream_of(band, 9, range(1), skip=True), workers, pin_memory=False))
    assert [len(b.y) for b in batches] == [9] * 9
    lost = [entry for batch in batches for entry in batch.lost]
    assert lost
    assert all("train-000002.tar" in sentence and message in sentence for sentence, _ in lost)
    x, y = (torch.cat([getattr(b, name) for b in batches]) for name in "xy")
    other_x, other_y = (torch.cat([getattr(b, name) for b in whole]) for name in "xy")
    changed = (x != other_x).flatten(1).any(1)
    assert 0 < int(changed.sum()) <= sum(count for _, count in lost)
    known = {bytes(row): label for row, label in zip(other_x.numpy().reshape(81, -1), other_y.tolist(), strict=True)}
    assert [known[bytes(row)] for row in x.numpy().reshape(81, -1)] == y.tolist()  # real samples with their labels
    evaluated = list(EvalStream(blocks_of(band), [range(4), range(4, 11)], skip=True))
    missing = sum(count for batch in evaluated for _, count in batch.lost)
    assert sum(len(batch.y) for batch in evaluated) + missing == 81
    assert 0 < missing <= 24


def test_nothing_left_to_read(sub4: Path, tmp_path: Path) -> None:
    band = Path(shutil.copytree(sub4 / "00", tmp_path / "00"))
    for path in band.glob("train-*.tar"):
        path.unlink()
    with pytest.raises(ShardError, match=r"no block of train of .* can be read"):
        list(stream_of(band, 9, range(1), skip=True))


def test_what_is_not_a_band(tmp_path: Path, sub4: Path) -> None:
    with pytest.raises(FormatError, match="or one that is not finished"):
        open_band(str(tmp_path))
    with pytest.raises(FormatError, match="is a whole split, not one band"):
        open_band(str(sub4))
    with pytest.raises(StoreError, match="choose a local path or s3:"):
        open_band("ftp://host/sub4/00")


def test_a_missing_shard_is_made_up_for_by_many_others(sub4: Path, tmp_path: Path) -> None:
    band = Path(shutil.copytree(sub4 / "00", tmp_path / "00"))
    whole = list(stream_of(band, 9, range(1)))
    (band / "train-000001.tar").unlink()
    for ranks in (1, 3):
        shares = [list(stream_of(band, 9, range(1), span=Span(0, 9).share(r, ranks), skip=True)) for r in range(ranks)]
        lost = sum(count for share in shares for batch in share for _, count in batch.lost)
        x = torch.cat([torch.cat([share[n].x for share in shares]) for n in range(9)])
        changed = (x != torch.cat([b.x for b in whole])).flatten(1).any(1)
        assert lost == 24  # each sample once, whatever the ranks
        assert int(changed.sum()) <= 24
    stand_ins = {bytes(row) for row in x[changed].numpy().reshape(int(changed.sum()), -1)}
    assert len(stand_ins) > 8  # of more than one block


def test_labels_of_no_class_are_refused(sub4: Path, tmp_path: Path) -> None:
    band = Path(shutil.copytree(sub4 / "00", tmp_path / "00"))
    text = (band / "manifest.json").read_text()
    (band / "manifest.json").write_text(text.replace(' "bee",\n', "").replace(' "cat"\n', ' "bee"\n'))
    assert open_band(str(band))[1].classes == ("ant", "bee")
    with pytest.raises(ShardError, match=r"train-00000\d\.tar holds the label 2, but there are 2 classes"):
        list(stream_of(band, 9, range(1)))


def test_what_the_disk_refuses_is_a_bad_shard(sub4: Path, tmp_path: Path) -> None:
    band = Path(shutil.copytree(sub4 / "00", tmp_path / "00"))
    (band / "train-000002.tar").unlink()
    (band / "train-000002.tar").mkdir()
    for workers in (0, 1):
        with pytest.raises(ShardError, match=r"train-000002\.tar cannot be read \(Is a directory\)"):
            list(read_ahead(stream_of(band, 9, range(1)), workers, pin_memory=False))
    assert len(list(stream_of(band, 9, range(1), skip=True))) == 9


def test_readers_stop_when_no_more_is_wanted(sub4: Path) -> None:
    before = set(threading.enumerate())
    with closing(read_ahead(stream_of(sub4 / "00", 9, range(1000)), 2, pin_memory=False)) as batches:
        next(batches)
        assert len(set(threading.enumerate()) - before) == 2
    assert set(threading.enumerate()) <= before


def test_what_a_reader_raises_is_raised_where_its_batch_is_awaited(sub4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    before = set(threading.enumerate())
    stream = stream_of(sub4 / "00", 9, range(2))
    monkeypatch.setattr(BlockReader, "decoded", fail)
    for workers in (0, 1, 3):
        with pytest.raises(ZeroDivisionError):
            list(read_ahead(stream, workers, pin_memory=False))
    assert set(threading.enumerate()) <= before


def test_a_reader_is_a_few_batches_ahead(sub4: Path) -> None:
    made = []

    class Counted:
        def share(self, number: int, count: int) -> Generator[Batch, None, None]:
            for batch in stream_of(sub4 / "00", 9, range(1000)).share(number, count):
                made.append(number)
                yield batch

    with closing(read_ahead(Counted(), 2, pin_memory=False)) as batches:
        for taken in range(1, 6):
            next(batches)
            wait_for(lambda taken=taken: len(made) == 2 * (taken + AHEAD))  # type: ignore[misc]
            assert len(made) == 2 * (taken + AHEAD)


@pytest.mark.parametrize("open_files", [1, 3])
def test_few_open_files_are_enough(open_files: int, sub4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = list(stream_of(sub4 / "00", 9, range(2)))
    monkeypatch.setattr("spectral_shards.shards_manifest.shard.reader.MOST_OPEN", open_files)
    assert same(list(read_ahead(stream_of(sub4 / "00", 9, range(2)), 2, pin_memory=False)), wanted)


def test_the_length_is_exact(sub4: Path) -> None:
    for epochs, first in ((range(1), 0), (range(2, 5), 3)):
        stream = stream_of(sub4 / "00", 20, epochs, first)
        assert len(stream) == len(list(stream)) == 4 * len(epochs) - first


def test_large_seeds_are_seeds_of_their_own() -> None:
    plans = [EpochSampler(np.full(4, 64), 16, 8, seed) for seed in (0, 2**63 - 1, 2**63 - 2)]
    assert len({tuple(plan.rows(0, 1).tolist()) for plan in plans}) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_web_server_gives_the_same_batches(sub4: Path, workers: int) -> None:
    server = WebServer(sub4)
    try:
        remote = read_ahead(stream_of(f"{server.url}/01", 9, range(2)), workers, pin_memory=False)
        assert same(list(remote), list(stream_of(sub4 / "01", 9, range(2))))
    finally:
        server.close()


def test_a_web_server_without_ranges_is_refused_before_it_sends_much(sub4: Path) -> None:
    server = WebServer(sub4, ranges=False)
    try:
        with pytest.raises(StoreError, match="the server sends whole files only: fetch it, and name the copy"):
            list(stream_of(f"{server.url}/01", 9, range(1)))
        assert server.asked <= 64  # what was asked for ahead; of each only the head is read
    finally:
        server.close()


def test_what_is_altered_on_the_way_is_fetched_again(sub4: Path) -> None:
    server = WebServer(sub4)
    try:
        server.spoil = 1
        assert same(list(stream_of(f"{server.url}/01", 9, range(1))), list(stream_of(sub4 / "01", 9, range(1))))
        server.spoil = 1000
        with pytest.raises(ShardError, match=r"train-00000\d\.tar was altered"):
            list(stream_of(f"{server.url}/01", 9, range(1)))
    finally:
        server.close()
