import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shards_manifest import FormatError, ShardError, StoreError, open_band
from train.order import epoch_windows, train_batches
from train.reader import EvalStream, PartReader, TrainStream, loader

sizes = st.lists(st.integers(1, 70), max_size=200).map(lambda s: np.array(s, np.int64))


@given(sizes, st.integers(0, 2**40), st.integers(0, 99), st.integers(1, 70))
def test_every_sample_once_an_epoch(blocks: np.ndarray, seed: int, epoch: int, window: int) -> None:
    seen = []
    for chosen, order in epoch_windows(blocks, seed, epoch, window):
        assert len(chosen) <= window
        assert sorted(order.tolist()) == list(range(int(blocks[chosen].sum())))
        seen += chosen.tolist()
    assert sorted(seen) == list(range(len(blocks)))


def test_the_order_is_a_promise() -> None:
    """The same seed gives the same samples on any machine and NumPy release."""
    (blocks, order), (last, _) = epoch_windows(np.array([2, 2, 1, 2]), 5, 3, window=3)
    assert (blocks.tolist(), order.tolist(), last.tolist()) == ([1, 3, 2], [0, 4, 1, 2, 3], [0])


def test_epochs_and_seeds_differ() -> None:
    blocks = np.full(50, 8)
    orders = {
        tuple(np.concatenate([b for b, _ in epoch_windows(blocks, seed, epoch)]).tolist())
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9


@given(st.integers(0, 10**7), st.integers(1, 5000))
def test_batches(samples: int, batch_size: int) -> None:
    batches, size = train_batches(samples, batch_size)
    assert size <= batch_size
    assert 0 <= samples - batches * size < max(size, 1)


def reader(folder: Path, part: str = "train") -> PartReader:
    store, manifest = open_band(str(folder))
    return PartReader(store, manifest, part)


def stored(part: PartReader) -> tuple[np.ndarray, np.ndarray]:
    blocks = [part.read(number) for number in range(len(part.block_samples))]
    return np.concatenate([x for x, _ in blocks]), np.concatenate([y for _, y in blocks])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_delivers_the_stored_samples(sub4: Path, workers: int) -> None:
    x, y = stored(reader(sub4 / "01"))
    assert (x.shape, x.dtype, len(y)) == ((81, 3, 12, 12), np.int8, 81)
    stream = TrainStream(reader(sub4 / "01"), 9, seed=0, first_epoch=0, epochs=2)
    batches = list(loader(stream, workers, pin=False))
    assert len(batches) == 2 * stream.batches == 18
    for epoch in (batches[:9], batches[9:]):
        got = torch.cat([b for b, _ in epoch]).numpy().reshape(81, -1)
        assert sorted(map(bytes, got)) == sorted(map(bytes, x.reshape(81, -1)))
        labels = dict(zip(map(bytes, x.reshape(81, -1)), y.tolist(), strict=True))
        assert [labels[bytes(row)] for row in got] == torch.cat([b for _, b in epoch]).tolist()
    first, second = (torch.cat([b for _, b in epoch]).tolist() for epoch in (batches[:9], batches[9:]))
    assert first != second


def test_epochs_can_be_entered_in_the_middle(sub4: Path) -> None:
    whole = list(TrainStream(reader(sub4 / "00"), 20, 3, 0, 3))
    late = list(TrainStream(reader(sub4 / "00"), 20, 3, 2, 3))
    assert len(late) == 4
    for (x, y), (other_x, other_y) in zip(whole[8:], late, strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)


def test_evaluation_keeps_the_stored_order(sub4: Path) -> None:
    for size in (1, 8, 10, 1000):
        batches = list(EvalStream(reader(sub4 / "03", "val"), size))
        x, y = stored(reader(sub4 / "03", "val"))
        assert np.array_equal(torch.cat([b for b, _ in batches]).numpy(), x)
        assert torch.cat([b for _, b in batches]).tolist() == y.tolist()
        assert y.tolist() == sorted(y.tolist())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.unlink(), "is missing: copy the band again"),
        (lambda p: os.truncate(p, p.stat().st_size - 512), "bytes, its manifest says"),
        (lambda p: p.write_bytes(p.read_bytes()[:-600] + b"!" + p.read_bytes()[-599:]), "was altered"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_bad_shards_stop_training_by_name(
    sub4: Path, tmp_path: Path, damage: object, message: str, workers: int
) -> None:
    band = Path(shutil.copytree(sub4 / "00", tmp_path / "00"))
    damage(band / "train-000002.tar")  # type: ignore[operator]
    stream = TrainStream(reader(band), 9, 0, 0, 1)
    with pytest.raises(ShardError, match=rf"train-000002\.tar .*{message}|train-000002\.tar {message}"):
        list(loader(stream, workers, pin=False))


def test_what_is_not_a_band(tmp_path: Path, sub4: Path) -> None:
    with pytest.raises(FormatError, match="not a data set, or its split is not finished"):
        open_band(str(tmp_path))
    with pytest.raises(FormatError, match="is a whole split, not one band"):
        open_band(str(sub4))
    with pytest.raises(StoreError, match="choose a local path or s3:"):
        open_band("ftp://host/sub4/00")
