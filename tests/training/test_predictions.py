"""What ranks compute comes whole and in order into the first one's files, however many batches each has."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing

from spectral_shards.train.distributed import SINGLE_PROCESS, Ranks
from spectral_shards.train.runs.predictions import PredictionWriter
from spectral_shards.train.runs.run_folder import RunFolder

COUNTS = ((), (3, 2, 3), (4,))  # samples of the batches of each rank
CLASSES = 5


def logits(rows: slice) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
    return np.arange(12 * CLASSES, dtype=np.float16).reshape(12, CLASSES)[rows]


def record(ranks: Ranks, counts: tuple[tuple[int, ...], ...], folder: Path) -> None:
    """Record as `evaluate` does."""
    recorder = PredictionWriter(ranks, torch.device("cpu"))
    starts = np.cumsum([0, *map(sum, counts)]).tolist()

    def add() -> None:
        recorder.begin(starts[:-1])
        first = starts[ranks.rank]
        for count in counts[ranks.rank]:
            rows = slice(first, first + count)
            assert recorder.add((logits(rows), np.arange(12)[rows]))
            first += count
        recorder.end()

    if not ranks.is_rank0:
        add()
        return
    with RunFolder(folder).predictions("val", starts[-1], CLASSES) as (recorder.logits, recorder.labels):
        add()


def one_of_three(rank: int, folder: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=3)
    record(Ranks(rank, 3, rank), COUNTS, folder / "run")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_three_ranks_with_none_three_and_one_batch(tmp_path: Path) -> None:
    multiprocessing.spawn(one_of_three, (tmp_path,), nprocs=3)  # type: ignore[no-untyped-call]
    assert np.array_equal(np.load(tmp_path / "run" / "val-logits.npy"), logits(slice(12)))
    assert np.array_equal(np.load(tmp_path / "run" / "val-labels.npy"), np.arange(12))


def test_the_files_are_those_that_numpy_writes(tmp_path: Path) -> None:
    record(SINGLE_PROCESS, ((7, 5),), tmp_path / "run")
    np.save(tmp_path / "logits.npy", logits(slice(12)))
    np.save(tmp_path / "labels.npy", np.arange(12))
    assert (tmp_path / "run" / "val-logits.npy").read_bytes() == (tmp_path / "logits.npy").read_bytes()
    assert (tmp_path / "run" / "val-labels.npy").read_bytes() == (tmp_path / "labels.npy").read_bytes()


def test_nothing_is_left_of_an_evaluation_that_breaks_off(tmp_path: Path) -> None:
    def breaks_off() -> None:
        with RunFolder(tmp_path / "run").predictions("val", 12, CLASSES) as (column, _):
            column.write(0, logits(slice(5)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        breaks_off()
    assert not list((tmp_path / "run").iterdir())
