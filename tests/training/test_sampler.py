"""The order of an epoch, without a disk: exact cover, equal batches, the same for any ranks and workers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spectral_shards.shards_manifest.manifest import BandManifest, Shard
from spectral_shards.train.data import philox, sampler
from spectral_shards.train.data.sampler import (
    LEAST_HOLDOUT,
    EpochSampler,
    Span,
    evaluation_batches,
    holdout_size,
    rank_blocks,
    slot_count,
    slots_of,
    trained_blocks,
)

Sample = tuple[int, int]


@st.composite
def plans(draw: st.DrawFn) -> EpochSampler:
    samples = np.array(draw(st.lists(st.integers(1, 9), min_size=1, max_size=60)), np.int64)
    size = draw(st.integers(1, int(samples.sum())))
    slots = draw(st.integers(1, min(size, 12)))
    return EpochSampler(samples, size, slots, draw(st.integers(0, 2**40)), draw(st.sampled_from(["drop", "wrap"])))


def dealt(plan: EpochSampler, epoch: int, span: Span, first_batch: int = 0) -> list[list[Sample | None]]:
    """The (block, row) at every position of the span in every batch, as the placements say."""
    batches: list[list[Sample | None]] = [[None] * (span.last - span.first) for _ in range(plan.batches)]
    need = (0, 0)
    for read in plan.block_reads(epoch, span, first_batch):
        assert need <= (read.batch, read.slot)
        need = read.batch, read.slot
        rows = plan.rows(epoch, read.block)[read.first : read.last].tolist()
        assert rows
        placed = 0
        for batch, first_position, first_row, count in plan.placements(read):
            assert batch >= read.batch
            assert batch == read.batch or placed
            assert (first_row, count > 0) == (placed, True)
            placed += count
            for position, row in enumerate(rows[first_row : first_row + count], first_position):
                assert plan.edges[read.slot] <= position < plan.edges[read.slot + 1]
                if span.first <= position < span.last:
                    assert batches[batch][position - span.first] is None
                    batches[batch][position - span.first] = read.block, row
        assert placed == len(rows)
    return batches


@settings(max_examples=150, deadline=None)
@given(plans(), st.integers(0, 50), st.data())
def test_samples_by_their_numbers_are_those_of_the_blocks(plan: EpochSampler, epoch: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 5))
    span = Span(0, plan.batch_size).share(data.draw(st.integers(0, count - 1)), count)
    first = data.draw(st.integers(0, plan.batches))
    starts = np.cumsum(plan.samples) - plan.samples
    wanted = [
        [int(starts[sample[0]]) + sample[1] for sample in batch if sample is not None]
        for batch in dealt(plan, epoch, span, first)[first:]
    ]
    at_once = sampler.CHUNK
    try:
        sampler.CHUNK = data.draw(st.sampled_from([1, 20, at_once]))
        assert [batch.tolist() for batch in plan.sample_batches(epoch, span, first)] == wanted
    finally:
        sampler.CHUNK = at_once


@given(
    st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
    st.integers(0, 3),
    st.lists(st.integers(0, 2**40), max_size=5),
    st.integers(0, 70),
)
def test_philox_is_that_of_numpy(key: tuple[int, int], third: int, fourth: list[int], count: int) -> None:
    found = philox.words(key, third, np.array(fourth, np.uint64), count)
    assert found.shape == (len(fourth), count)
    for row, number in zip(found, fourth, strict=True):
        bits = np.random.Philox(key=np.array(key, np.uint64), counter=np.array([0, 0, third, number], np.uint64))
        assert row.tolist() == bits.random_raw(count).tolist()


@settings(max_examples=150, deadline=None)
@given(plans(), st.integers(0, 50))
def test_every_batch_is_full_and_every_sample_comes_once(plan: EpochSampler, epoch: int) -> None:
    total = int(plan.samples.sum())
    batches = dealt(plan, epoch, Span(0, plan.batch_size))
    seen = [sample for batch in batches for sample in batch]
    assert None not in seen
    every = {(b, r) for b, count in enumerate(plan.samples.tolist()) for r in range(count)}
    if plan.last_batch == "drop":
        assert len(seen) == len(set(seen)) == total - total % plan.batch_size
        assert set(seen) <= every
    else:
        assert set(seen) == every
        assert 0 <= len(seen) - total < plan.batch_size


@settings(max_examples=150, deadline=None)
@given(plans(), st.integers(0, 9), st.integers(1, 7), st.integers(1, 4), st.data())
def test_ranks_workers_and_a_resumed_run_see_the_same_batches(
    plan: EpochSampler, epoch: int, ranks: int, workers: int, data: st.DataObject
) -> None:
    whole = dealt(plan, epoch, Span(0, plan.batch_size))
    resumed = data.draw(st.integers(0, plan.batches))
    parts = []
    for rank in range(ranks):
        for worker in range(workers):
            span = Span(0, plan.batch_size).share(rank, ranks).share(worker, workers)
            parts.append(dealt(plan, epoch, span, resumed))
    for batch, wanted in enumerate(whole):
        together = [sample for part in parts for sample in part[batch]]
        assert together == (wanted if batch >= resumed else [None] * plan.batch_size)


@given(st.integers(0, 5000), st.integers(1, 64))
def test_shares_are_even(size: int, count: int) -> None:
    shares = [Span(0, size).share(i, count) for i in range(count)]
    assert [s.first for s in shares[1:]] == [s.last for s in shares[:-1]]
    sizes = [s.last - s.first for s in shares]
    assert max(sizes) - min(sizes) <= 1
    assert sum(sizes) == size


@given(st.integers(0, 300), st.integers(1, 40))
def test_evaluation_sees_each_block_once(blocks: int, ranks: int) -> None:
    chosen = [block for rank in range(ranks) for block in rank_blocks(range(5, 5 + blocks), rank, ranks)]
    assert chosen == list(range(5, 5 + blocks))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=60), st.integers(1, 40), st.data())
def test_evaluation_batches_are_whole_blocks_that_fill_them(sizes: list[int], size: int, data: st.DataObject) -> None:
    samples = np.array(sizes, np.int64)
    first = data.draw(st.integers(0, len(sizes)))
    blocks = range(first, data.draw(st.integers(first, len(sizes))))
    batches = evaluation_batches(samples, blocks, size)
    assert [block for batch in batches for block in batch] == list(blocks)
    counts = [int(samples[batch.start : batch.stop].sum()) for batch in batches]
    assert all(count >= size for count in counts[:-1])
    assert all(count - samples[batch[-1]] < size for count, batch in zip(counts, batches, strict=True))


@given(st.lists(st.integers(1, 64), min_size=1, max_size=200), st.integers(0, 400))
def test_the_holdout_is_small_and_of_whole_blocks(sizes: list[int], wanted: int) -> None:
    samples = np.array(sizes, np.int64)
    trained = trained_blocks(samples, wanted)
    holdout, most = int(samples[trained:].sum()), min(wanted, int(samples.sum()) // 20)
    assert holdout == 0 or LEAST_HOLDOUT <= holdout <= most
    if most >= LEAST_HOLDOUT + 63 and trained:  # as much as whole blocks allow
        assert holdout + samples[trained - 1] > most


@given(st.lists(st.integers(1, 300), min_size=1, max_size=20), st.integers(1, 64), st.integers(0, 400))
def test_the_manifest_says_how_large_the_holdout_is(counts: list[int], block: int, wanted: int) -> None:
    shards = tuple(Shard(f"train-{n}.tar", count, -(-count // block), 0, "") for n, count in enumerate(counts))
    part = SimpleNamespace(shards=shards)
    band = cast(BandManifest, SimpleNamespace(block=block, parts={"train": part}))
    samples = np.array(
        [len(range(count)[first : first + block]) for count in counts for first in range(0, count, block)]
    )
    assert holdout_size(band, wanted) == samples[trained_blocks(samples, wanted) :].sum()


def test_a_block_is_read_once_by_one_rank_but_at_the_cuts() -> None:
    plan = EpochSampler(np.full(2000, 64), 256, 32, 0)
    for ranks in (1, 2, 3, 8):
        loads = [load.block for rank in range(ranks) for load in plan.block_reads(0, Span(0, 256).share(rank, ranks))]
        shared = 2000 // 32 if ranks == 3 else 0  # a slot that two ranks share
        assert 2000 <= len(loads) <= 2000 + plan.slots + ranks + 2 * shared


def test_the_order_is_a_promise() -> None:
    """The same seed gives the same samples on any machine and NumPy release."""
    plan = EpochSampler(np.array([3, 3, 2, 3]), 4, 2, 5)
    assert plan.block_order(3).tolist() == [1, 3, 2, 0]
    assert plan.rows(3, 1).tolist() == [2, 0, 1]
    assert dealt(plan, 3, Span(0, 4)) == [[(1, 2), (1, 0), (3, 1), (3, 2)], [(1, 1), (3, 0), (2, 1), (2, 0)]]


def test_epochs_and_seeds_differ() -> None:
    samples = np.full(50, 8)
    orders = {
        (tuple(plan.block_order(epoch).tolist()), tuple(plan.rows(epoch, 7).tolist()))
        for plan in (EpochSampler(samples, 16, 8, seed) for seed in range(3))
        for epoch in range(3)
    }
    assert len({line for line, _ in orders}) == len({rows for _, rows in orders}) == 9


def test_sizes_are_within_what_there_is() -> None:
    samples = np.array([64, 10])
    assert EpochSampler.of(samples, 256, 600_000, 0).batch_size == 74
    assert EpochSampler.of(samples, 256, 600_000, 0).batches == 1
    assert EpochSampler.of(samples, 10, 600_000, 0).slots == 10
    assert EpochSampler.of(np.empty(0, np.int64), 256, 600_000, 0).batches == 0
    assert slot_count(256, 600_000) == 32
    assert slot_count(256, 10_000_000) == 16
    assert list(slots_of(np.array([0, 2, 4, 6]), Span(1, 4))) == [0, 1]
    assert list(slots_of(np.array([0, 2, 4, 6]), Span(2, 2))) == []
