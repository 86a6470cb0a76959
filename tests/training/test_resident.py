"""Parts in memory: the same batches as from the shards, each block fetched once."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spectral_shards.shards_manifest.errors import ShardError
from spectral_shards.shards_manifest.shard.reader import BlockReader
from spectral_shards.train.data.loader import BandLoader, LoaderOptions
from support.hubs import Hub

Pairs = list[tuple[torch.Tensor, torch.Tensor]]
HERE = LoaderOptions(resident=True)
Fetches = list[tuple[str, int]]


def same(first: Pairs, second: Pairs) -> bool:
    return all(torch.equal(x, a) and torch.equal(y, b) for (x, y), (a, b) in zip(first, second, strict=True))


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> Fetches:
    """The blocks that are fetched: the part, and the number of the block."""
    found: Fetches = []
    attempt: Callable[[BlockReader, int], bytes | ShardError] = BlockReader.attempt

    def counted(self: BlockReader, block: int) -> bytes | ShardError:
        found.append((self.name, block))
        return attempt(self, block)

    monkeypatch.setattr(BlockReader, "attempt", counted)
    return found


@pytest.mark.parametrize("data", ["02", ""])
@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("last_batch", ["drop", "wrap"])
def test_the_same_batches_in_every_epoch(data: str, workers: int, last_batch: str, sub4: Path) -> None:
    options = LoaderOptions(last_batch=last_batch)
    for part in ("train", "val"):
        stream, resident = (
            BandLoader(sub4 / data, part, 20, 3, workers=workers, options=each)
            for each in (options, replace(options, resident=True))
        )
        for _ in range(3):
            assert same(list(resident), list(stream))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_block_is_fetched_once(workers: int, sub4: Path, fetched: Fetches) -> None:
    options = replace(HERE, epochs=3)
    train = BandLoader(sub4 / "01", "train", 20, workers=workers, options=options)
    val = BandLoader(sub4 / "01", "val", 4, workers=workers, options=options)
    for loader in (train, val):
        for _ in range(3):
            list(loader)
        if not workers:  # two threads may fetch the block where their shares meet
            assert len(fetched) == len(set(fetched))
        before = len(fetched)
        loader.set_epoch(0)
        list(loader)
        assert len(fetched) == before
    assert len(set(fetched)) == 11 + 2


def test_ranks_and_a_state_in_the_middle(sub4: Path) -> None:
    whole = BandLoader(sub4, batch_size=20, seed=1)
    wanted = [list(whole) for _ in range(3)]
    whole.set_epoch(1)
    next(iter(whole))
    state = whole.state_dict()
    loaders = [BandLoader(sub4, "train", 20, 1, rank, 3, rank % 2, HERE) for rank in range(3)]
    for loader in loaders:
        loader.load_state_dict(state)
    for rest in (wanted[1][1:], wanted[2]):
        parts = zip(*(list(loader) for loader in loaders), strict=True)
        assert same([(torch.cat([x for x, _ in each]), torch.cat([y for _, y in each])) for each in parts], rest)


def test_batches_are_copies(sub4: Path) -> None:
    for part in ("train", "val"):
        loader = BandLoader(sub4 / "01", part, 20, options=HERE)
        first = [(x.clone(), y.clone()) for x, y in loader]
        loader.set_epoch(0)
        for x, y in loader:
            x.zero_()
            y.zero_()
        loader.set_epoch(0)
        assert same(list(loader), first)


@pytest.mark.parametrize("data", ["01", ""])
@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_lost_is_made_up_for_as_from_the_shards(data: str, workers: int, sub4: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(sub4, tmp_path / "sub4"))
    for name in ("train-000001.tar", "val-000000.tar"):
        (copy / "01" / name).unlink()
    with pytest.raises(ShardError, match=r"train-000001\.tar is missing"):
        list(BandLoader(copy / data, batch_size=20, workers=workers, options=HERE))
    for part in ("train", "val"):
        stream, resident = (
            BandLoader(
                copy / data, part, 20, workers=workers, options=LoaderOptions(skip_bad_shards=True, resident=kept)
            )
            for kept in (False, True)
        )
        for _ in range(2):
            assert same(list(resident), list(stream))
            assert resident.lost == stream.lost > 0


def test_from_a_web_server(sub4: Path) -> None:
    with Hub(sub4.parent) as hub:
        loader = BandLoader(f"{hub.url}/sub4/01", batch_size=20, options=replace(HERE, epochs=3))
        epochs = [list(loader)]
        list(loader)  # fetches the few samples that the first epoch left out
        asked = len(hub.asked)
        list(loader)
        assert len(hub.asked) - asked <= 2  # of blocks that two epochs left out
        assert same(epochs[0], list(BandLoader(sub4 / "01", batch_size=20)))
