"""Ways to choose and weight the members of an ensemble, on few and on many samples of real outputs.

    python benchmarks/fusing.py runs/cifar4/00 runs/cifar4/01 runs/cifar4/02 runs/cifar4/03

Of the val samples some are drawn to choose on, and others are scored; again and again. What each way gives is compared
with the best single member by the same draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from spectral_shards.train.ensemble import rules
from spectral_shards.train.ensemble.members import open_run
from spectral_shards.train.ensemble.selection import greedy

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Rule = Callable[[Array, Labels], Array]  # log-probabilities (members, n, classes) and labels (n,) to weights (members,)

STRENGTHS = (0.3, 3.0, 30.0, 300.0)
FOLDS = 5
ROUNDS = 20
BAGS = 5
SCORED = 5000  # samples at most, of those that are not drawn


def losses(weights: Array, outputs: Array, labels: Labels) -> Array:
    """The cross-entropy of each sample: (n,)."""
    fused = np.tensordot(weights, outputs, 1)
    top = fused.max(1)
    return np.asarray(top + np.log(np.exp(fused - top[:, None]).sum(1)) - fused[np.arange(len(labels)), labels])


def fit(outputs: Array, labels: Labels, strength: float) -> Array:
    """Weights of least cross-entropy, with a normal prior around equal weights, by Newton's method."""
    members, samples, _ = outputs.shape
    right = outputs[:, np.arange(samples), labels]
    weights = np.full(members, 1 / members)

    def cost(of: Array) -> float:
        return float(losses(of, outputs, labels).mean() + strength * ((of - 1 / members) ** 2).sum() / (2 * samples))

    for _ in range(30):
        fused = np.tensordot(weights, outputs, 1)
        chances = np.exp(fused - fused.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        mean = (outputs * chances).sum(2)
        spread = ((outputs - mean[:, :, None]) * np.sqrt(chances)).reshape(members, -1)
        slope = (mean - right).mean(1) + strength * (weights - 1 / members) / samples
        step = np.linalg.solve(spread @ spread.T / samples + (strength / samples + 1e-9) * np.eye(members), slope)
        size = 1.0
        while size > 1e-4 and cost(weights - size * step) > cost(weights):
            size /= 2
        weights = weights - size * step
        if slope @ step < 1e-9:
            break
    return weights


def fit_positive(outputs: Array, labels: Labels) -> Array:
    """The same with strength 1, without members of negative weights: the most negative one goes first."""
    kept = list(range(len(outputs)))
    while True:
        found = fit(outputs[kept], labels, 1.0)
        if found.min() >= 0 or len(kept) == 1:
            weights = np.zeros(len(outputs))
            weights[kept] = found
            return weights
        kept.pop(int(found.argmin()))


def draw(outputs: Array, labels: Labels, by_accuracy: bool) -> Array:
    """Greedy selection with replacement, of members as they are."""
    counts, total, best, lowest = np.zeros(len(outputs)), np.zeros_like(outputs[0]), np.zeros(len(outputs)), np.inf
    for _ in range(ROUNDS):
        fused = (total + outputs) / (counts.sum() + 1)
        if by_accuracy:
            found = (fused.argmax(2) != labels).mean(1)
        else:
            found = np.array([losses(np.ones(1), each[None], labels).mean() for each in fused])
        place = int(found.argmin())
        counts[place] += 1
        total += outputs[place]
        if found[place] < lowest:
            best, lowest = counts / counts.sum(), found[place]
    return best


def draw_bagged(outputs: Array, labels: Labels) -> Array:
    """The mean of greedy selections, each on samples drawn with replacement."""
    random = np.random.default_rng(0)
    bags = [random.integers(0, len(labels), len(labels)) for _ in range(BAGS)]
    return np.asarray(np.mean([draw(outputs[:, bag], labels[bag], False) for bag in bags], axis=0))


def cross_validated(choices: Sequence[Rule]) -> Rule:
    """The rule of least cross-entropy on samples that it did not see; weights of each are calibrated for that."""

    def score(rule: Rule, outputs: Array, labels: Labels) -> float:
        fold, found = np.arange(len(labels)) % FOLDS, 0.0
        for number in range(FOLDS):
            rest, kept = fold != number, fold == number
            fused = np.tensordot(rule(outputs[:, rest], labels[rest]), outputs, 1)[None]
            found += losses(fit(fused[:, rest], labels[rest], 1.0), fused[:, kept], labels[kept]).sum()
        return found

    def chosen(outputs: Array, labels: Labels) -> Array:
        best = min(choices, key=lambda rule: score(rule, outputs, labels))
        return best(outputs, labels)

    return chosen


def with_strength(strength: float) -> Rule:
    return lambda outputs, labels: fit(outputs, labels, strength)


def ranked(outputs: Array, labels: Labels) -> NDArray[np.int64]:
    """The places of the members by accuracy, best first; of equal ones by cross-entropy."""
    each = np.array([losses(np.ones(1), member[None], labels).mean() for member in outputs])
    return np.lexsort((each, -(outputs.argmax(2) == labels).mean(1)))


def best_member(outputs: Array, labels: Labels) -> Array:
    return np.asarray(np.eye(len(outputs))[ranked(outputs, labels)[0]])


def ours(rule: rules.FusingRule) -> Rule:
    """A rule of spectral-ensemble."""

    def weights(outputs: Array, labels: Labels) -> Array:
        logits = [each.astype(np.float16) for each in outputs]  # as they are stored
        return rule.weights(rules.RankedOutputs(ranked(outputs, labels), logits, labels, np.arange(len(labels))))

    return weights


def without_fallback(outputs: Array, labels: Labels) -> Array:
    return greedy(torch.from_numpy(outputs).float(), torch.from_numpy(labels))


COMPARED: dict[str, Rule] = {
    "best member": best_member,
    "mean": ours(rules.MEAN),
    "geometric": ours(rules.GEOMETRIC),
    "fitted": ours(rules.FITTED),
    "fitted, strength by cross-validation": cross_validated([with_strength(each) for each in STRENGTHS]),
    "fitted, not negative": fit_positive,
    "greedy by accuracy": lambda outputs, labels: draw(outputs, labels, True),
    "greedy by cross-entropy": lambda outputs, labels: draw(outputs, labels, False),
    "the same, bagged": draw_bagged,
    "the same, of calibrated members": without_fallback,
    "the same, or the best member: `selected`": ours(rules.SELECTED),
    "rule by cross-validation": cross_validated(
        [best_member, ours(rules.MEAN), ours(rules.GEOMETRIC), with_strength(1.0), without_fallback]
    ),
}


def compare(outputs: Array, labels: Labels, count: int, repeats: int) -> dict[str, str]:
    """Cells of a table row for each rule, for one number of samples to choose on."""
    random = np.random.default_rng(count)
    scores: dict[str, list[float]] = {name: [] for name in COMPARED}
    sizes: dict[str, list[int]] = {name: [] for name in COMPARED}
    for _ in range(repeats):
        places = random.permutation(len(labels))
        seen, scored = places[:count], places[count : count + SCORED]
        there, right = outputs[:, scored].astype(np.float32), labels[scored]
        for name, rule in COMPARED.items():
            weights = rule(np.ascontiguousarray(outputs[:, seen]), labels[seen])
            fused = np.tensordot(weights.astype(np.float32), there, 1)
            scores[name].append(100 * float((fused.argmax(1) == right).mean()))
            sizes[name].append(int(np.count_nonzero(weights)))
    least = np.array(scores["best member"])
    cells = {}
    for name, found in scores.items():
        gain = np.array(found) - least
        lost = (gain < -0.005).mean()
        cells[name] = f"{np.mean(found):.2f} ({lost:.0%}, {gain.min():+.2f}; {np.mean(sizes[name]):.1f})"
    return cells


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--counts", default="50,96,200,500,1000,2000", show_default=True, help="Samples to choose on.")
@click.option("--repeats", default=200, show_default=True, help="Draws of each.")
def main(runs: tuple[Path, ...], counts: str, repeats: int) -> None:
    """Print a table of run folders RUNS, which have the same val samples.

    A cell is the mean top-1 in percent; in brackets in how many draws the best member was better, the worst difference
    to it in points, and the mean number of members.
    """
    torch.set_num_threads(1)
    opened = [open_run(path) for path in runs]
    labels = opened[0].val.labels
    if any(not np.array_equal(run.val.labels, labels) for run in opened):
        raise click.ClickException("these runs were not evaluated on the same samples in the same order")
    raw = np.stack([np.asarray(run.val.logits, np.float64) for run in opened])
    raw -= raw.max(2, keepdims=True)
    outputs = raw - np.log(np.exp(raw).sum(2, keepdims=True))
    alone = (outputs.argmax(2) == labels).mean(1)
    each = ", ".join(f"{run.name} {top1:.1%}" for run, top1 in zip(opened, alone, strict=True))
    click.echo(f"{len(labels)} val samples, {repeats} draws; members: {each}\n")
    numbers = [int(number) for number in counts.split(",")]
    cells = [compare(outputs, labels, number, repeats) for number in numbers]
    click.echo("| rule | " + " | ".join(map(str, numbers)) + " |")
    click.echo("|---" * (len(numbers) + 1) + "|")
    for name in COMPARED:
        click.echo(f"| {name} | " + " | ".join(column[name] for column in cells) + " |")


if __name__ == "__main__":
    main()
