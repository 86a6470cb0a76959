"""Which sample goes into which shard."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectral_shards.preprocess.config import SplitConfig
from spectral_shards.preprocess.errors import ConfigError
from spectral_shards.preprocess.listing import Entries, EntriesBuilder, Listing
from spectral_shards.preprocess.split.sharding import (
    choose_val,
    part_entries,
    permutation,
    plan_rows,
    shard_size,
    stored_order,
)


def listing(counts: list[int], val: list[int] | None = None) -> Listing:
    def entries(counts: list[int]) -> Entries:
        builder = EntriesBuilder()
        for label, count in enumerate(counts):
            builder.add(label, [(b"%d.jpg" % i, -1, -1) for i in range(count)])
        return builder.build()

    parts = {"train": entries(counts)}
    if val is not None:
        parts["val"] = entries(val)
    return Listing(tuple(f"c{i}" for i in range(len(counts))), parts, ())


counts = st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(lambda c: sum(c) > 0)


@given(counts, st.none() | counts, st.integers(0, 9), st.integers(0, 50), st.integers(1, 9), st.integers(0, 60))
def test_rows_cover_every_sample_once(
    train: list[int], val: list[int] | None, seed: int, shard: int, block: int, limit: int
) -> None:
    source = listing(train, None if val is None else (val + [0] * len(train))[: len(train)])
    config = SplitConfig(
        4,
        size=8,
        seed=seed,
        samples_per_shard=shard,
        samples_per_block=block,
        limit=limit,
        val_per_class=-1 if val is None else 0,
    ).resolved()
    planned = plan_rows(stored_order(source, config), config)
    seen: dict[str, list[int]] = {"train": [], "val": []}
    for row in planned:
        origin, _ = part_entries(source, row.part)
        seen[origin].extend(row.indices.tolist())
        assert len(row.indices) > 0
    for part, entries in source.parts.items():
        assert len(set(seen[part])) == len(seen[part])
        assert len(seen[part]) == min(len(entries), limit or len(entries))
    for part in ("train", "val"):
        sizes = [len(row.indices) for row in planned if row.part == part]
        assert len(set(sizes[:-1])) <= 1
        assert sizes == sorted(sizes, reverse=True)
        assert [row.number for row in planned if row.part == part] == list(range(len(sizes)))


@given(counts, st.integers(0, 2**40), st.integers(-1, 3))
def test_val_takes_the_same_share_of_each_class(train: list[int], seed: int, per_class: int) -> None:
    label = listing(train).parts["train"].label
    names = tuple(map(str, range(len(train))))
    if per_class > 0 and any(0 < count <= per_class for count in train):
        with pytest.raises(ConfigError, match="leaves nothing to train on in class"):
            choose_val(label, names, per_class, seed)
        return
    is_val = choose_val(label, names, per_class, seed)
    assert np.array_equal(is_val, choose_val(label, names, per_class, seed))
    for index, count in enumerate(train):
        wanted = min(int(count * 0.05 + 0.5), 50) if per_class < 0 else min(per_class, count)
        assert is_val[label == index].sum() == wanted


def test_val_takes_at_most_fifty_of_a_class() -> None:
    assert choose_val(np.zeros(5000, np.int32), ("a",), -1, 0).sum() == 50


def test_val_keeps_the_order_of_the_source_and_train_does_not() -> None:
    order = stored_order(listing([200, 200]), SplitConfig(4, size=8).resolved())
    assert order["val"].tolist() == sorted(order["val"].tolist())
    train = order["train"]
    assert train.tolist() != sorted(train.tolist())
    first = (train[:190] < 200).mean()
    assert 0.35 < first < 0.65  # the classes are mixed


def test_the_permutation_is_a_promise() -> None:
    """Bytes of every split ever made depend on these numbers."""
    assert permutation(0, 2, 8).tolist() == [0, 4, 6, 3, 5, 7, 1, 2]
    assert permutation(7, 0, 5).tolist() == [3, 4, 0, 2, 1]


@given(st.integers(1, 20_000_000), st.integers(1, 4096), st.integers(0, 100_000))
def test_shard_sizes(samples: int, block: int, asked: int) -> None:
    size = shard_size(samples, SplitConfig(4, samples_per_block=block, samples_per_shard=asked))
    if asked:
        assert size == asked
        return
    assert size % block == 0
    assert size <= 32_768
    assert -(-samples // size) <= max(64, -(-samples // (32_768 - block)))


@pytest.mark.parametrize(("samples", "shards"), [(500, 8), (25_000, 56), (1_281_167, 64), (14_197_122, 434)])
def test_shard_counts_of_known_sets(samples: int, shards: int) -> None:
    assert -(-samples // shard_size(samples, SplitConfig(36).resolved())) == shards
