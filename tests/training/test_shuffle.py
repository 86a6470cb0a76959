"""An epoch's order is nearly as good as a full permutation, and measurably better than shards with a buffer."""

import numpy as np
import pytest

from spectral_shards.train.data.sampler import EpochSampler
from support import shuffling

SAMPLES, BATCH = 51_200, 256
EPOCHS = range(12)


@pytest.fixture(scope="module")
def orders() -> dict[str, list[shuffling.Order]]:
    plan = EpochSampler.of(np.full(SAMPLES // 64, 64, np.int64), BATCH, 64 * 3 * 56 * 56, seed=1)
    return {
        "permuted": [shuffling.permuted(SAMPLES, epoch) for epoch in EPOCHS],
        "ours": [shuffling.ours(plan, epoch) for epoch in EPOCHS],
        "shards": [shuffling.shards_and_buffer(SAMPLES, 6400, 1000, epoch) for epoch in EPOCHS],
    }


def test_orders_are_whole(orders: dict[str, list[shuffling.Order]]) -> None:
    for each in orders.values():
        assert all(np.array_equal(np.sort(order), np.arange(SAMPLES)) for order in each)
        assert len({order.tobytes() for order in each}) == len(EPOCHS)


def test_batches_mix_the_classes_as_random_draws_do(orders: dict[str, list[shuffling.Order]]) -> None:
    label = np.random.default_rng(0).permutation(SAMPLES) % 100  # samples are stored in random order
    for each in orders.values():
        assert shuffling.class_mix(each[0], label, BATCH) == pytest.approx(1, abs=0.03)
    by_class = np.arange(SAMPLES) * 100 // SAMPLES
    ours, shards = (shuffling.class_mix(orders[name][0], by_class, BATCH) for name in ("ours", "shards"))
    assert ours < 9
    assert ours < shards / 3  # of a tenth of the shards that ImageNet has


def test_pairs_of_a_batch_part_in_the_next_epoch(orders: dict[str, list[shuffling.Order]]) -> None:
    again = {name: shuffling.met_again(each[0], each[1], BATCH) for name, each in orders.items()}
    assert again["permuted"] == pytest.approx(1, abs=0.05)
    assert again["ours"] < 3
    assert again["ours"] < again["shards"] / 3


def test_a_sample_comes_anywhere_in_an_epoch(orders: dict[str, list[shuffling.Order]]) -> None:
    for name in ("permuted", "ours"):
        assert shuffling.spread(orders[name], SAMPLES) == pytest.approx(1, abs=0.1)


def test_the_figures_see_a_bad_order() -> None:
    stored = np.arange(SAMPLES)
    assert shuffling.class_mix(stored, stored * 100 // SAMPLES, BATCH) > 50
    assert shuffling.met_again(stored, stored, BATCH) == pytest.approx((SAMPLES - 1) / (BATCH - 1))
    assert shuffling.spread([stored] * 12, SAMPLES) > 5
