"""Mixup and cutmix: what is mixed with what, and by how much."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectral_shards.train.augment.mixup import TRIES, Mixing, beta, box
from spectral_shards.train.data.sampler import EpochSampler, Span
from support.shuffling import ours


def batch(size: int, side: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Every sample has a value of its own, which is its label."""
    y = torch.arange(size)
    return y.float().view(-1, 1, 1, 1).expand(size, 3, side, side).contiguous(), y


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5, 1.0])
def test_shares_are_of_a_beta_distribution(alpha: float) -> None:
    uniform = 1 - np.random.default_rng(0).random((100_000, 2 * TRIES))
    drawn = beta(uniform, alpha).astype(np.float64)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert abs(drawn.mean() - 0.5) < 0.005
    assert abs(drawn.var() - 1 / (4 * (2 * alpha + 1))) < 0.003
    third = (alpha + 2) * (alpha + 1) * alpha / ((2 * alpha + 2) * (2 * alpha + 1) * 2 * alpha)  # of moments
    assert abs((drawn**3).mean() - third) < 0.005


def test_mixup_mixes_neighbours_with_each_other() -> None:
    x, y = batch(8)
    mixed = Mixing(3, mixup=0.4, cutmix=0.0)(x, y, step=5, first=0, total=8)
    assert mixed.other.tolist() == [1, 0, 3, 2, 5, 4, 7, 6]
    assert torch.equal(mixed.share[::2], mixed.share[1::2])
    assert len(set(mixed.share.tolist())) == 4
    wanted = mixed.share * y + (1 - mixed.share) * mixed.other
    assert torch.allclose(mixed.x, wanted.view(-1, 1, 1, 1).expand_as(x))


def test_cutmix_shares_are_counts_of_pixels() -> None:
    x, y = batch(64, side=12)
    mixed = Mixing(3, mixup=0.0, cutmix=1.0)(x, y, step=5, first=0, total=64)
    own = (mixed.x == x).float().mean((1, 2, 3))
    assert torch.allclose(own, mixed.share)
    assert torch.equal(mixed.x == x, ~(mixed.x == mixed.other.view(-1, 1, 1, 1)))
    assert 0.3 < float(mixed.share.mean()) < 0.8


def test_boxes_leave_the_share_where_they_fit() -> None:
    share = np.array([0.0, 0.36, 0.75, 1.0], np.float32)
    assert box(share, np.full((4, 2), 0.5), 10).T.tolist() == [
        [0, 10, 0, 10],
        [1, 9, 1, 9],
        [2, 8, 2, 8],
        [5, 5, 5, 5],
    ]
    assert box(share[1:2], np.array([[0.0, 1.0]]), 10).T.tolist() == [[0, 4, 6, 10]]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(0, 2**31),
    st.integers(1, 20),
    st.integers(0, 20),
    st.sampled_from([(0.2, 0.0), (0.0, 1.0), (0.2, 1.0)]),
)
def test_a_rank_mixes_its_part_as_one_process_would(
    seed: int, step: int, size: int, cut: int, alphas: tuple[float, float]
) -> None:
    x, y = batch(2 * size)
    mixing = Mixing(seed, *alphas)
    whole = mixing(x, y, step, 0, 2 * size)
    again = mixing(x, y, step, 0, 2 * size)
    assert torch.equal(whole.x, again.x)
    cut = 2 * (cut % (size + 1))
    parts = [mixing(x[:cut], y[:cut], step, 0, 2 * size), mixing(x[cut:], y[cut:], step, cut, 2 * size)]
    assert torch.equal(torch.cat([part.x for part in parts]), whole.x)
    assert torch.equal(torch.cat([part.share for part in parts]), whole.share)


def test_one_without_its_neighbour_stays_as_it_is() -> None:
    x, y = batch(5)
    for alphas in ((0.4, 0.0), (0.0, 1.0)):
        mixing = Mixing(0, *alphas)
        first = mixing(x, y, 0, 3, 8)  # positions 3 to 7: the neighbour of 3 is elsewhere
        last = mixing(x, y, 0, 0, 5)
        for mixed, alone in ((first, 0), (last, 4)):
            assert mixed.share[alone] == 1
            assert torch.equal(mixed.x[alone], x[alone])
            assert int(mixed.other[alone]) == alone


def test_with_both_a_step_does_one_of_them() -> None:
    x, y = batch(64, side=8)
    kinds = set()
    for step in range(20):
        mixed = Mixing(1, 0.4, 1.0)(x, y, step, 0, 64)
        kinds.add(bool((mixed.x.reshape(64, -1).std(1) > 0).any()))
    assert kinds == {True, False}


def test_samples_of_one_block_are_not_mixed() -> None:
    """Over some epochs a sample meets as many others as it would in batches drawn at random."""
    plan = EpochSampler(np.full(400, 64), 256, 32, 0)
    assert sorted(plan.partners.tolist()) == list(range(256))
    met: set[int] = set()
    for epoch in range(40):
        order = ours(plan, epoch).reshape(-1, 256)
        pairs = np.stack([order, order[:, plan.partners]], -1).reshape(-1, 2)
        assert (pairs[:, 0] // 64 != pairs[:, 1] // 64).mean() > 0.99  # as by chance
        met |= set(pairs[pairs[:, 0] == 5, 1].tolist())
    assert len(met) == 40
    x, y = batch(256)
    mixed = Mixing(0, 0.4, 0.0, plan.partners)(x, y, 3, 0, 256)
    assert mixed.other.tolist() == plan.partners.tolist()
    half = Mixing(0, 0.4, 0.0, plan.partners)(x[:128], y[:128], 3, 0, 256)  # of two ranks
    assert torch.equal(half.x, mixed.x[:128])


@given(st.integers(2, 300), st.integers(1, 32))
def test_partners_are_of_the_slot_beside(size: int, slots: int) -> None:
    plan = EpochSampler(np.full(10, 64), size, min(slots, size), 0)
    partners, edges = plan.partners, plan.edges
    assert (partners[partners] == np.arange(size)).all()
    slot = np.searchsorted(edges, np.arange(size), side="right") - 1
    mixed = partners != np.arange(size)
    assert (np.abs(slot[partners] - slot)[mixed] == 1).all()
    alone = np.bincount(slot[~mixed], minlength=plan.slots)
    widths = np.diff(edges)
    assert (alone[: plan.slots // 2 * 2] <= 1).all()
    assert alone[plan.slots // 2 * 2 :].tolist() == widths[plan.slots // 2 * 2 :].tolist()


@pytest.mark.parametrize("ranks", [3, 5, 32, 64])
def test_what_borders_of_ranks_cut_is_mixed_within_them(ranks: int) -> None:
    epochs = EpochSampler.of(np.full(1000, 64), 1024, 3 * 56 * 56 * 64, seed=0)
    mixing = Mixing(3, 0.4, 1.0, epochs.partners)
    x, y = batch(1024)
    for rank in range(ranks):
        span = Span(0, 1024).share(rank, ranks)
        at = slice(span.first, span.last)
        part = mixing(x[at], y[at], 7, span.first, 1024)
        again = mixing(x[at], y[at], 7, span.first, 1024)
        assert part.share is not None
        assert torch.equal(part.x, again.x)
        own = y[at]
        assert torch.equal(part.other[part.other - span.first], own)  # pairs, within the rank
        assert torch.equal(part.share[part.other - span.first], part.share)
        assert int((part.other == own).sum()) <= (0 if ranks >= 32 else 1)  # an odd one
