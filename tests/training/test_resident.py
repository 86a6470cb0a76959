"""Parts in memory: the same batches as from the shards, each block fetched once."""

import gc
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spectral_shards.shards_manifest.dataset import open_bands
from spectral_shards.shards_manifest.errors import ShardError
from spectral_shards.shards_manifest.manifest import dump
from spectral_shards.shards_manifest.shard.reader import BlockReader
from spectral_shards.train.data.loader import BandLoader, LoaderOptions
from spectral_shards.train.data.resident import content_name
from spectral_shards.train.data.shared_memory import SharedMemory, open_files
from spectral_shards.train.errors import TrainError
from support.hubs import Hub
from support.splits import SUB4, make_split

Pairs = list[tuple[torch.Tensor, torch.Tensor]]
HERE = LoaderOptions(resident="memory")
Fetches = list[tuple[str, int]]


def same(first: Pairs, second: Pairs) -> bool:
    return all(torch.equal(x, a) and torch.equal(y, b) for (x, y), (a, b) in zip(first, second, strict=True))


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    """Give back the memory of earlier tests, which would be shared."""
    gc.collect()


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
@pytest.mark.parametrize("where", ["memory", "cpu"])
def test_the_same_batches_in_every_epoch(data: str, workers: int, last_batch: str, where: str, sub4: Path) -> None:
    options = LoaderOptions(last_batch=last_batch)
    for part in ("train", "val"):
        stream, resident = (
            BandLoader(sub4 / data, part, 20, 3, workers=workers, options=each)
            for each in (options, replace(options, resident=where))
        )
        for _ in range(3):
            assert same(list(resident), list(stream))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_block_is_fetched_once(workers: int, photos: Path, tmp_path: Path, fetched: Fetches) -> None:
    split = make_split(photos, tmp_path / "sub4", **SUB4, seed=1 + workers)  # that no other test has in memory
    options = replace(HERE, epochs=3)
    train = BandLoader(split / "01", "train", 20, workers=workers, options=options)
    val = BandLoader(split / "01", "val", 4, workers=workers, options=options)
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


@pytest.mark.parametrize("where", ["memory", "cpu"])
def test_ranks_and_a_state_in_the_middle(where: str, sub4: Path) -> None:
    whole = BandLoader(sub4, batch_size=20, seed=1)
    wanted = [list(whole) for _ in range(3)]
    whole.set_epoch(1)
    next(iter(whole))
    state = whole.state_dict()
    loaders = [BandLoader(sub4, "train", 20, 1, rank, 3, rank % 2, LoaderOptions(resident=where)) for rank in range(3)]
    for loader in loaders:
        loader.load_state_dict(state)
    for rest in (wanted[1][1:], wanted[2]):
        parts = zip(*(list(loader) for loader in loaders), strict=True)
        assert same([(torch.cat([x for x, _ in each]), torch.cat([y for _, y in each])) for each in parts], rest)


@pytest.mark.parametrize("where", ["memory", "cpu"])
def test_batches_are_copies(where: str, sub4: Path) -> None:
    for part in ("train", "val"):
        loader = BandLoader(sub4 / "01", part, 20, options=LoaderOptions(resident=where))
        first = [(x.clone(), y.clone()) for x, y in loader]
        loader.set_epoch(0)
        for x, y in loader:
            x.zero_()
            y.zero_()
        loader.set_epoch(0)
        assert same(list(loader), first)


@pytest.mark.parametrize("data", ["01", ""])
@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_lost_is_made_up_for_as_from_the_shards(data: str, workers: int, photos: Path, tmp_path: Path) -> None:
    copy = make_split(
        photos, tmp_path / "sub4", **SUB4, seed=20 + workers + len(data)
    )  # no other test has it in memory
    for name in ("train-000001.tar", "val-000000.tar"):
        (copy / "01" / name).unlink()
    with pytest.raises(ShardError, match=r"train-000001\.tar is missing"):
        list(BandLoader(copy / data, batch_size=20, workers=workers, options=HERE))
    for part in ("train", "val"):
        stream, resident = (
            BandLoader(
                copy / data, part, 20, workers=workers, options=LoaderOptions(skip_bad_shards=True, resident=where)
            )
            for where in ("off", "cpu" if workers else "memory")
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


SHARER = """
import sys
from spectral_shards.shards_manifest.shard.reader import BlockReader
from spectral_shards.train.data.loader import BandLoader, LoaderOptions

fetched = []
attempt = BlockReader.attempt
BlockReader.attempt = lambda self, block: (fetched.append(block), attempt(self, block))[1]
loader = BandLoader(sys.argv[1], batch_size=20, options=LoaderOptions(resident='memory', epochs=2))
for line in sys.stdin:
    sums = [int(x.long().sum()) for x, _ in loader]
    print(len(fetched), sums, flush=True)
"""


@contextmanager
def killed(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Kill a process in the end."""
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="memory is shared on Linux")
def test_processes_share_memory_that_outlives_none_of_them(photos: Path, tmp_path: Path) -> None:
    split = make_split(photos, tmp_path / "sub4", **SUB4, seed=7)
    link = f"/memfd:spectral-{content_name(open_bands(split / '03'), 'train')} (deleted)"

    def holders() -> int:
        count = 0
        for path in open_files():
            with suppress(OSError):  # closed meanwhile, or not to be seen
                count += os.readlink(path) == link
        return count  # of open files, one for each process

    def sharer() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SHARER, str(split / "03")]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return stack.enter_context(killed(process))

    def epoch(process: subprocess.Popen[str]) -> tuple[int, list[int]]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        fetched, _, sums = process.stdout.readline().partition(" ")
        return int(fetched), json.loads(sums)

    wanted = [int(x.long().sum()) for x, _ in BandLoader(split / "03", batch_size=20)]
    with ExitStack() as stack:
        first = sharer()
        assert epoch(first) == (11, wanted)
        second = sharer()
        assert epoch(second) == (0, wanted)
        assert holders() == 2
        first.kill()
        first.wait()
        third = sharer()  # finds it at the second one, which did not make it
        assert epoch(third) == (0, wanted)
        assert epoch(second)[0] == epoch(third)[0] == 0
    assert holders() == 0


def test_pages_are_got_in_the_order_of_reading(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block's bytes, in every band, once, and in the order in which the first epoch needs the blocks."""
    asked: list[slice] = []
    monkeypatch.setattr(SharedMemory, "populate", lambda memory, places: asked.extend(places))
    split = make_split(photos, tmp_path / "sub4", **{**SUB4, "seed": 77})  # which no other process has in memory
    loader = BandLoader(open_bands(split), batch_size=16, seed=5, options=LoaderOptions(resident="memory"))
    x, _ = next(iter(loader))
    sample, bands = x[0, 0].numpy().nbytes, x.shape[1]
    asked = list(
        {(place.start, place.stop): place for place in asked}.values()
    )  # pieces of a block come at several times
    sizes = [(place.stop - place.start) // sample for place in asked]
    blocks = sizes[::bands]
    assert sizes == [size for size in blocks for _ in range(bands)]
    assert sum(blocks) == loader.samples
    starts = [(place.start - min(each.start for each in asked)) // sample for place in asked[::bands]]
    assert len({*starts}) == len(starts)
    assert starts != sorted(starts)  # shuffled, as the blocks of the epoch are


def test_places_that_there_are_not(sub4: Path) -> None:
    for where in ("cuda:99", "nowhere"):
        with pytest.raises(TrainError, match=f"train of .* cannot stay in {where} \\(.*: use --resident off"):
            BandLoader(sub4 / "01", options=LoaderOptions(resident=where))


@pytest.mark.parametrize("where", ["memory", "cpu"])
def test_train_and_the_holdout_are_one_part(where: str, photos: Path, tmp_path: Path) -> None:
    split = make_split(photos, tmp_path / "sub4", **SUB4, seed=9)
    one, other = (
        BandLoader(split / "02", part, 20, options=LoaderOptions(resident=where)) for part in ("train", "val")
    )
    again = BandLoader(split / "02", "train", 16, options=LoaderOptions(resident=where))
    assert one._resident is again._resident is not other._resident


def test_a_part_without_samples(sub4: Path) -> None:
    data = open_bands(sub4 / "01")
    empty = replace(data.first.parts["val"], samples=0, shards=(), index=hashlib.sha256(b"").hexdigest())
    manifest = replace(data.first, parts={**data.first.parts, "val": empty})
    copy = Path(sub4.parent / "empty-val")
    shutil.copytree(sub4 / "01", copy)
    (copy / "manifest.json").write_bytes(dump(manifest))
    (copy / "val.index").write_bytes(b"")
    assert list(BandLoader(copy, "val", 4, options=HERE)) == []
    shutil.rmtree(copy)
