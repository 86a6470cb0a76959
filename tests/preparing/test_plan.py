import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectral_shards.preprocess.config import (
    SplitConfig,
    hold_out,
    parse_bands,
    part_entries,
    permutation,
    rows,
    shard_size,
    stored_order,
)
from spectral_shards.preprocess.errors import ConfigError
from spectral_shards.preprocess.listing import Entries, EntriesBuilder, Listing


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
    plan = SplitConfig(
        4,
        size=8,
        seed=seed,
        samples_per_shard=shard,
        samples_per_block=block,
        limit=limit,
        val_per_class=-1 if val is None else 0,
    ).resolved()
    planned = rows(stored_order(source, plan), plan)
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
def test_held_out_images_are_few_and_fair(train: list[int], seed: int, per_class: int) -> None:
    label = listing(train).parts["train"].label
    names = tuple(map(str, range(len(train))))
    if per_class > 0 and any(0 < count <= per_class for count in train):
        with pytest.raises(ConfigError, match="leaves nothing to train on in class"):
            hold_out(label, names, per_class, seed)
        return
    held = hold_out(label, names, per_class, seed)
    assert np.array_equal(held, hold_out(label, names, per_class, seed))
    for index, count in enumerate(train):
        wanted = min(int(count * 0.05 + 0.5), 50) if per_class < 0 else min(per_class, count)
        assert held[label == index].sum() == wanted


def test_the_held_out_share_stops_at_fifty() -> None:
    held = hold_out(np.zeros(5000, np.int32), ("a",), -1, 0)
    assert held.sum() == 50


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


def test_bands() -> None:
    assert parse_bands("0-3,7") == (0, 1, 2, 3, 7)
    assert parse_bands("35, 2,2") == (2, 35)
    for wrong in ("", "a", "1-", "-1", "1,,2", "1.5", "3-0", "0-9999999999", "36"):
        with pytest.raises(ConfigError, match="--bands"):
            parse_bands(wrong)


def test_defaults() -> None:
    plan = SplitConfig(36).resolved()
    assert (plan.size, plan.step, plan.geometry.plane, len(plan.bands)) == (336, 6.0, 56, 36)
    assert SplitConfig(16).resolved().geometry.plane == 56
    assert SplitConfig(4, size=224, margin=32).resolved().geometry.plane == 128
    assert SplitConfig(1).resolved().step == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 9}, "--factor 9"),
        ({"factor": 36, "size": 224}, "--size 224 does not divide by 6: take 222"),
        ({"factor": 4, "margin": 3}, "--margin 3 does not divide by 2"),
        ({"factor": 4, "margin": -2}, "--margin -2"),
        ({"factor": 36, "size": 2}, "--size 2 is too small: take 6 or more"),
        ({"factor": 4, "samples_per_block": 10**12}, "a block in all bands would take"),
        ({"factor": 4, "size": 9000}, "at most 4096"),
        ({"factor": 4, "step": 0.1}, "--quant-step 0.1"),
        ({"factor": 4, "step": float("nan")}, "--quant-step nan"),
        ({"factor": 4, "dtype": "float16", "step": 4.0}, "--quant-step does not apply"),
        ({"factor": 4, "bands": (0, 4)}, "--bands: choose from 0 to 3"),
        ({"factor": 4, "fit": "pad"}, "--fit pad: choose squash, crop"),
        ({"factor": 4, "transform": "fft"}, "--transform fft: choose dct, dct2, none"),
        ({"factor": 4, "color": "lab"}, "--color lab"),
        ({"factor": 4, "dtype": "int4"}, "--dtype int4"),
        ({"factor": 4, "samples_per_block": 0}, "--samples-per-block"),
        ({"factor": 4, "val_per_class": -2}, "--val-per-class -2"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SplitConfig(**options).resolved()  # type: ignore[arg-type]
