"""Choosing the members of an ensemble, from arrays alone."""

import numpy as np
import pytest
import torch

from spectral_shards.train.ensemble import rules, selection
from spectral_shards.train.ensemble.hits import cross_hits, prefix_hits
from spectral_shards.train.ensemble.rules import RankedOutputs

CLASSES = 5
Outputs = tuple[torch.Tensor, torch.Tensor]


def outputs(*strengths: float, samples: int = 400, seed: int = 0) -> Outputs:
    """Log-probabilities of members that know the class the better the larger their strength is, and the labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, samples)
    noise = random.normal(0, 1, (len(strengths), samples, CLASSES))
    logits = noise + np.array(strengths)[:, None, None] * np.eye(CLASSES)[labels]
    return torch.from_numpy(logits).float().log_softmax(2), torch.from_numpy(labels)


def ranked(found: Outputs, rows: int | None = None) -> RankedOutputs:
    logits, labels = found[0].half().numpy(), found[1].numpy()
    order = np.argsort(-(logits.argmax(2) == labels).mean(1), kind="stable")
    return RankedOutputs(order, list(logits), labels, np.arange(rows or len(labels)))


def top1(weights: object, found: Outputs) -> float:
    fused = np.tensordot(np.asarray(weights, np.float32), found[0].numpy(), 1)
    return float((fused.argmax(1) == found[1].numpy()).mean())


@pytest.mark.parametrize("rule", rules.RULES.values(), ids=lambda rule: rule.name)
def test_every_rule_gives_a_weight_to_every_member(rule: rules.FusingRule) -> None:
    found = outputs(2, 1, 1.5)
    weights = rule.weights(ranked(found))
    assert weights.shape == (3,)
    assert weights.dtype == np.float64
    assert np.isfinite(weights).all()
    assert weights.argmax() == 0
    swapped = rule.weights(ranked((found[0][[2, 0, 1]], found[1])))
    assert np.allclose(swapped, weights[[2, 0, 1]], atol=1e-3)
    some = rule.weights(ranked(found, 100))
    assert np.allclose(some, rule.weights(ranked((found[0][:, :100], found[1][:100]))), atol=1e-6)


def test_geometric_weights_follow_the_ranks() -> None:
    assert np.allclose(rules.geometric(ranked(outputs(1, 3, 2))), [0.3 * 0.49, 0.3, 0.3 * 0.7])


def test_weak_members_are_not_chosen() -> None:
    found, rest = outputs(2, 2, 0.1, 0, samples=300), outputs(2, 2, 0.1, 0, samples=5000, seed=1)
    weights = rules.selected(ranked(found))
    assert (weights[:2] > 0).all()
    assert list(weights[2:]) == [0, 0]
    assert top1(weights, rest) > top1(np.eye(4)[0], rest) + 0.05
    assert top1(weights, rest) > top1(np.ones(4), rest) + 0.01


def test_a_member_may_be_drawn_more_than_once() -> None:
    weights = selection.greedy(*outputs(2, 1.2))
    scales = [float(selection.scale(member, outputs(2, 1.2)[1])) for member in outputs(2, 1.2)[0]]
    draws = weights / scales  # of which the first member has more
    assert np.isclose(draws.sum(), 1)
    assert draws[0] > draws[1] > 0


def test_bold_and_cautious_members_are_chosen_alike() -> None:
    """Four times the logits are the same member: with many samples neither the choice nor what is fused changes."""
    logp, labels = outputs(2, 1.5, 1, samples=4000)
    factors = torch.tensor([1.0, 4.0, 0.5])[:, None, None]
    other = (logp * factors).log_softmax(2)
    first, second = selection.greedy(logp, labels), selection.greedy(other, labels)
    assert np.allclose(first, second * factors[:, 0, 0].numpy(), atol=0.1)  # a draw is 0.05
    assert top1(first, (logp, labels)) == pytest.approx(top1(second, (other, labels)), abs=0.01)


def test_the_scale_has_the_least_cross_entropy() -> None:
    logp, labels = outputs(1.5)
    best = float(selection.scale(3 * logp[0], labels))

    def loss(factor: float) -> float:
        fit = torch.nn.functional.cross_entropy(factor * 3 * logp[0], labels)
        return float(fit) + selection.CAUTION * (factor - 1) ** 2 / (2 * len(labels))

    assert loss(best) < min(loss(best * 1.02), loss(best / 1.02))
    always = torch.eye(CLASSES)[labels].mul(50).log_softmax(1)  # no loss at all: nothing grows without bounds
    assert float(selection.scale(always, labels)) == pytest.approx(1, abs=0.01)
    assert float(selection.scale(-always, labels)) == pytest.approx(selection.SCALES[0])


def test_the_best_member_is_taken_alone_where_nothing_shows_that_more_are_better() -> None:
    logp, labels = outputs(2, samples=300)
    noisy = (logp + 0.7 * torch.randn(logp.shape, generator=torch.Generator().manual_seed(0))).log_softmax(2)
    weights = rules.selected(ranked((torch.cat([noisy, logp]), labels)))
    assert weights[0] == 0
    assert weights[1] > 0


@pytest.mark.parametrize("seed", [7, 12, 27, 39])
def test_of_equal_members_the_order_decides_nothing(seed: int) -> None:
    logp, labels = outputs(2, 2, 2, samples=12, seed=seed)
    logp[1] = (4 * logp[0]).log_softmax(1)  # the same answers, but bolder
    swapped = [1, 0, 2]
    first, second = selection.select(logp, labels, 0), selection.select(logp[swapped], labels, 1)
    assert np.allclose(first, second[swapped])


@pytest.mark.parametrize("samples", [1, 2, 3, 7])
def test_a_handful_of_samples(samples: int) -> None:
    weights = rules.selected(ranked(outputs(2, 1, 1, samples=samples)))
    assert np.isfinite(weights).all()
    assert weights.max() > 0
    assert samples > 1 or np.count_nonzero(weights) == 1


def test_few_samples_do_not_lose_to_the_best_member() -> None:
    """On 96 samples the chosen set is hardly ever worse than the member that they rank first."""
    rest = outputs(1.6, 1.5, 0.5, 0.3, samples=3000, seed=99)
    lost = []
    for seed in range(20):
        found = ranked(outputs(1.6, 1.5, 0.5, 0.3, samples=96, seed=seed))
        lost.append(top1(np.eye(4)[found.order[0]], rest) - top1(rules.selected(found), rest))
    assert np.mean(np.array(lost) > 0) <= 0.05
    assert max(lost) < 0.02


def test_rows_are_thinned_out_where_outputs_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    found = outputs(2, 1, 1.5)
    monkeypatch.setattr(rules, "FIT_BYTES", 4 * 3 * CLASSES * 100)
    every_fourth = (found[0][:, ::4], found[1][::4])
    for rule in (rules.fitted, rules.selected):
        assert np.allclose(rule(ranked(found)), rule(ranked(every_fourth)), atol=1e-6)
    monkeypatch.setattr(rules, "FIT_BYTES", 10**9)
    monkeypatch.setattr(rules, "SELECT_ROWS", 100)
    assert np.allclose(rules.selected(ranked(found)), rules.selected(ranked(every_fourth)), atol=1e-6)


@pytest.mark.parametrize("in_log", [True, False])
def test_prefixes_add_members_by_weight(in_log: bool) -> None:
    logp, labels = outputs(2, 1, 1.5, samples=50)
    rows, weights = np.arange(0, 50, 2), np.array([0.2, 0.0, 0.5])
    hits = prefix_hits(list(logp.half().numpy()), labels.numpy(), rows, weights, in_log)
    each = logp.half().float() if in_log else logp.half().float().exp()
    both = (0.5 * each[2] + 0.2 * each[0]).argmax(1)
    assert hits.shape == (3, 25, 2)
    assert np.array_equal(hits[0, :, 0], (each[2].argmax(1) == labels).numpy()[rows])
    assert np.array_equal(hits[1, :, 0], (both == labels).numpy()[rows])
    assert np.array_equal(hits[2], hits[1])
    assert hits[:, :, 1].all()  # five classes


def test_each_half_is_scored_by_the_other() -> None:
    def score(chosen: np.ndarray, scored: np.ndarray) -> np.ndarray:
        assert not set(chosen) & set(scored)
        return np.repeat(scored % 2 == 0, 2).reshape(1, -1, 2)

    assert cross_hits(7, score)[0, :, 0].tolist() == [True, False] * 3 + [True]
