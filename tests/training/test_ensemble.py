"""Fusing finished runs."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from spectral_shards.shards_manifest.manifest import canonical_json
from spectral_shards.train.engine.trainer import train_network
from spectral_shards.train.ensemble import report, rules
from spectral_shards.train.ensemble.members import FinishedRun, Outputs, find_runs
from spectral_shards.train.ensemble.report import markdown
from spectral_shards.train.ensemble.scoring import fuse_runs, score_ensemble
from spectral_shards.train.errors import EnsembleError
from support.programs import fails, program
from support.splits import make_split
from support.trainings import quick


def test_the_ensemble(runs: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs, tmp_path / "runs"))
    done = program("spectral-ensemble", copy)
    assert done.returncode == 0, done.stderr
    report = json.loads((copy / "ensemble.json").read_text())
    labels = np.load(copy / "00" / "val-labels.npy")
    logits = np.stack([np.load(copy / f"{b:02d}" / "val-logits.npy").astype(np.float64) for b in range(4)])
    logp = logits - np.log(np.exp(logits).sum(2, keepdims=True))
    rules = {(rule["rule"], rule["space"]): rule for rule in report["rules"]}
    assert set(rules) == {
        ("mean", "log"),
        ("mean", "probability"),
        ("geometric", "log"),
        ("geometric", "probability"),
        ("fitted", "log"),
        ("selected", "log"),
    }
    assert math.isclose(rules["mean", "log"]["top1"], (logp.sum(0).argmax(1) == labels).mean())
    assert math.isclose(rules["mean", "probability"]["top1"], (np.exp(logp).sum(0).argmax(1) == labels).mean())
    hits = logits.argmax(2) == labels
    right = 0
    for scored, chosen in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        losses = -logp[:, np.arange(len(labels)), labels][:, chosen].mean(1)
        order = np.lexsort((losses, -hits[:, chosen].mean(1)))  # of equal ones by cross-entropy
        fused = sum(0.3 * 0.7**rank * logp[band] for rank, band in enumerate(order))
        right += (fused[scored].argmax(1) == labels[scored]).sum()  # type: ignore[index]
    assert math.isclose(rules["geometric", "log"]["top1"], right / len(labels))
    assert [member["name"] for member in report["members"]] == ["00", "01", "02", "03"]
    assert [member["bands"] for member in report["members"]] == [[0], [1], [2], [3]]
    assert np.allclose([member["top1"] for member in report["members"]], hits.mean(1))
    assert report["default"] == "selected"
    weights = rules["selected", "log"]["weights"]
    shares = {f"{band:02d}": weight / sum(weights) for band, weight in enumerate(weights) if weight}
    assert {member["name"]: member["share"] for member in report["chosen"]} == pytest.approx(shares)
    assert [member["share"] for member in report["chosen"]] == sorted(shares.values(), reverse=True)
    assert report["curve"][-1]["top1"] == rules["selected", "log"]["top1"] == report["costs"]["chosen"]["top1"]
    assert len(report["curve"]) <= 4
    assert report["costs"]["every"]["top1"] == rules["mean", "log"]["top1"]
    assert report["costs"]["chosen"]["multiply_adds"] == len(shares) * report["costs"]["best"]["multiply_adds"]
    best = [hits[hits[:, 1 - half :: 2].mean(1).argmax(), half::2] for half in (0, 1)]
    assert math.isclose(report["costs"]["best"]["top1"], np.concatenate(best).mean())
    assert json.loads(canonical_json(fuse_runs(runs).to_json())) == report
    gains = {entry["name"]: entry for entry in report["classes"]}
    assert math.isclose(sum(entry["best"] * entry["samples"] for entry in gains.values()), np.concatenate(best).sum())
    text = (copy / "ensemble.md").read_text()
    assert f"| best member, by the other half of val | {report['costs']['best']['top1']:.2%} |" in text
    assert "differ in" not in text
    assert f"| selected members (default) | {len(shares)} | log-probabilities |" in text
    assert "each half of val is scored with members ranked, chosen and weighted on the other half; " in text
    assert "what is exported is chosen on all 15 samples.\n" in text
    assert f"| all 4 members, equal weights | {rules['mean', 'log']['top1']:.2%} |" in text
    assert f"| chosen set, {len(shares)} of 4 members | {rules['selected', 'log']['top1']:.2%} |" in text
    assert "| chosen set | bands | share of the weights |" in text
    assert f"ensemble of {len(shares)} of 4 members: top-1 " in done.stdout
    best_text = f"best member, by the other half of val: {report['costs']['best']['top1']:.2%};"
    assert best_text in done.stdout
    with Image.open(copy / "ensemble.png") as plot:
        assert plot.width > 800


@pytest.mark.parametrize("options", [(), ("--rank-on", "train")])
@pytest.mark.parametrize("part", ["val", "holdout"])
def test_outputs_that_are_not_finite_are_refused(
    part: str, options: tuple[str, ...], with_holdout: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(with_holdout / "runs", tmp_path / "runs"))
    logits = np.load(copy / "03" / f"{part}-logits.npy")
    logits[7, 1] = np.inf
    np.save(copy / "03" / f"{part}-logits.npy", logits)
    if part == "holdout" and options:  # which it does not look at
        assert program("spectral-ensemble", copy, *options).returncode == 0
    else:
        assert f"{copy}/03 holds outputs that are not finite numbers" in fails("spectral-ensemble", copy, *options)


@pytest.mark.parametrize("rank_on", ["train", "val"])
def test_other_ranking_data(runs: Path, rank_on: str) -> None:
    report = score_ensemble(find_runs(runs), rank_on)
    assert report.rank_on == rank_on
    assert report.rank_samples == (None if rank_on == "train" else report.samples)
    by = {each.name: each.train_top1 if rank_on == "train" else each.top1 for each in report.members}
    assert list(report.order) == sorted(by, key=lambda name: -by[name])
    assert any(score.rule == "fitted" for score in report.rules) == (rank_on == "val")
    assert report.default.rule == ("selected" if rank_on == "val" else "geometric")
    assert rank_on == "val" or [each.name for each in report.chosen] == list(report.order)
    top1 = {each.name: each.top1 for each in report.members}
    assert report.costs.best.name == f"best member, {report.order[0]}"
    assert report.costs.best.top1 == top1[report.order[0]]


def test_a_rule_is_one_entry(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is added to the registry is scored in its space and shown in the report; the default stays."""
    first = rules.FusingRule(
        "first", "first member alone", lambda members: np.eye(len(members.order))[members.order[0]], (rules.LOG,)
    )
    before = score_ensemble(find_runs(runs), "val")
    monkeypatch.setitem(rules.RULES, first.name, first)
    after = score_ensemble(find_runs(runs), "val")
    assert after.rules[:-1] == before.rules
    assert after.rules[-1].space == "log"
    assert after.rules[-1].top1 == after.costs.best.top1
    assert after.members[after.rules[-1].weights.index(1.0)].name == after.order[0]
    assert f"| first member alone | 1 | log-probabilities | {after.costs.best.top1:.2%} |" in markdown(after)
    assert after.default == before.default


def test_a_column_is_one_entry(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    column = report.ReportColumn("wrong", "{:.0f}", lambda entry: entry.samples * (1 - entry.fused))
    monkeypatch.setattr(report, "CLASSES", (*report.CLASSES, column))
    text = markdown(score_ensemble(find_runs(runs), "val"))
    assert "| class | samples | best member | fused | gain | wrong |\n|---|---|---|---|---|---|\n" in text


def test_options_that_differ_are_named(runs: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs, tmp_path / "runs"))
    raw = json.loads((copy / "02" / "run.json").read_text())
    raw["options"] |= {
        "network": {**raw["options"]["network"], "name": "resnet18"},
        "precision": "bfloat16",
        "recipe": {**raw["options"]["recipe"], "lr": 0.5},
    }
    (copy / "02" / "run.json").write_text(json.dumps(raw))
    done = program("spectral-ensemble", copy)
    assert done.returncode == 0, done.stderr
    assert "The members differ in lr, network." in done.stdout.splitlines()


def test_missing_bands_are_named(runs: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs, tmp_path / "runs"))
    shutil.rmtree(copy / "01")
    (copy / "03" / "run.json").unlink()
    done = program("spectral-ensemble", copy)
    assert done.returncode == 0
    assert "Missing bands: 1, 3." in done.stdout


def test_runs_that_do_not_belong_together(runs: Path, tmp_path: Path) -> None:
    def changed(edit: object) -> str:
        copy = Path(shutil.copytree(runs, tmp_path / "runs", dirs_exist_ok=True))
        edit(copy)  # type: ignore[operator]
        sentence = fails("spectral-ensemble", copy)
        shutil.rmtree(copy)
        return sentence

    def another_order(copy: Path) -> None:
        raw = json.loads((copy / "02" / "run.json").read_text())
        raw["data"]["order"]["val"] = "0" * 64
        (copy / "02" / "run.json").write_text(json.dumps(raw))

    assert "runs/02 and " in changed(another_order)
    assert "differ in their sample order" in changed(another_order)
    assert "has no readable val-logits.npy" in changed(lambda copy: (copy / "01" / "val-logits.npy").unlink())
    assert "has no readable" in changed(lambda copy: (copy / "01" / "val-logits.npy").write_bytes(b"junk"))
    assert "has no readable" in changed(lambda copy: (copy / "01" / "val-labels.npy").write_bytes(b""))
    assert "run.json is damaged" in changed(lambda copy: (copy / "01" / "run.json").write_text("{}"))
    with pytest.raises(EnsembleError, match="is not a folder"):
        find_runs(tmp_path / "nowhere")
    with pytest.raises(EnsembleError, match="holds no finished runs"):
        find_runs(tmp_path)
    with pytest.raises(EnsembleError, match="--rank-on test: choose"):
        score_ensemble(find_runs(runs), "test")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough tiny images for holdout samples."""
    root = tmp_path_factory.mktemp("many")
    random = np.random.default_rng(0)
    for number, name in enumerate(("ant", "bee")):
        (root / name).mkdir()
        for i in range(620):
            pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            pixels[:, :, number] //= 2
            Image.fromarray(pixels).save(root / name / f"{i:03d}.png")
    return root


@pytest.fixture(scope="module")
def with_holdout(many: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split of `many`, and runs of its bands with holdout samples."""
    root = tmp_path_factory.mktemp("holdout")
    make_split(many, root / "sub4", factor=4, size=8, samples_per_block=8, val_per_class=50)
    for band in range(4):
        train_network(str(root / "sub4" / f"{band:02d}"), root / "runs" / f"{band:02d}", quick(epochs=1), quiet=True)
    return root


def test_bands_are_ranked_and_weighted_on_holdout_samples(with_holdout: Path) -> None:
    from spectral_shards.shards_manifest.dataset import open_band
    from spectral_shards.shards_manifest.shard.reader import BlockReader

    store, manifest = open_band(str(with_holdout / "sub4" / "02"))
    part = BlockReader(store, manifest, "train")
    labels = np.concatenate([part.read(block)[1] for block in range(len(part.samples))])
    run = with_holdout / "runs" / "02"
    kept = np.load(run / "holdout-labels.npy")
    assert len(labels) == 1140
    assert 50 <= len(kept) <= 57
    assert np.array_equal(kept, labels[-len(kept) :])
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["samples"] == (1140 - len(kept)) // 16 * 16
    logits = np.load(run / "holdout-logits.npy")
    result = json.loads((run / "run.json").read_text())["result"]
    assert math.isclose(result["holdout_top1"], (logits.argmax(1) == kept).mean())
    assert line["holdout_top1"] == result["holdout_top1"]

    report = score_ensemble(find_runs(with_holdout / "runs"))
    assert report.rank_on == "holdout"
    each = np.stack(
        [np.load(with_holdout / "runs" / f"{b:02d}" / "holdout-logits.npy").astype(np.float64) for b in range(4)]
    )
    order = np.argsort(-(each.argmax(2) == kept).mean(1), kind="stable")
    assert [int(name) for name in report.order] == order.tolist()
    vals = np.stack(
        [np.load(with_holdout / "runs" / f"{b:02d}" / "val-logits.npy").astype(np.float64) for b in range(4)]
    )
    truth = np.load(run / "val-labels.npy")
    logp = vals - np.log(np.exp(vals).sum(2, keepdims=True))
    fused = sum(0.3 * 0.7**rank * logp[band] for rank, band in enumerate(order))
    rules = {(score.rule, score.space): score for score in report.rules}
    assert math.isclose(rules["geometric", "log"].top1, (fused.argmax(1) == truth).mean())  # type: ignore[attr-defined]
    fitted = rules["fitted", "log"]
    weighted = np.einsum("k,knc->nc", np.array(fitted.weights), logp)
    assert math.isclose(fitted.top1, (weighted.argmax(1) == truth).mean())
    weighted = np.einsum("k,knc->nc", np.array(report.default.weights), logp)
    assert math.isclose(report.default.top1, (weighted.argmax(1) == truth).mean())
    assert report.rank_samples == len(kept)
    assert f"members are ranked, chosen and weighted on {len(kept)} samples kept from training." in markdown(report)


def test_members_of_the_same_bands(runs: Path, tmp_path: Path) -> None:
    """A second run of a band is a member of its own, beside the first; so is a run in a folder of any name."""
    copy = Path(shutil.copytree(runs, tmp_path / "runs"))
    shutil.copytree(copy / "00", copy / "00x2")
    (copy / "03").rename(copy / "another")
    found = find_runs(copy)
    assert [(run.name, run.bands) for run in found] == [
        ("00", (0,)),
        ("00x2", (0,)),
        ("01", (1,)),
        ("02", (2,)),
        ("another", (3,)),
    ]
    report = score_ensemble(found, "val")
    assert [(member.name, member.bands) for member in report.members] == [(run.name, run.bands) for run in found]
    assert report.missing == ()
    assert f"| another | {report.members[4].top1:.2%} |" in markdown(report)
    assert score_ensemble([replace(run, bands=(0, 2)) for run in found[:2]], "val").missing == (1, 3)


def with_outputs(run: FinishedRun, logits: NDArray[np.float64], labels: NDArray[np.int64]) -> FinishedRun:
    outputs = Outputs(logits.astype(np.float16), labels)
    return replace(run, val=outputs, holdout=Outputs(outputs.logits[::2], labels[::2]))


@pytest.fixture
def made_up(runs: Path) -> Callable[..., list[FinishedRun]]:
    """Makes runs with outputs that know the class by so much, each in other noise."""

    def make(*strengths: float, alike: float = 0.0) -> list[FinishedRun]:
        random = np.random.default_rng(1)
        labels = random.integers(0, 3, 192)
        common = random.normal(0, 1, (192, 3))
        found = find_runs(runs)[: len(strengths)]
        logits = [
            strength * np.eye(3)[labels] + alike * common + (1 - alike) * random.normal(0, 1, (192, 3))
            for strength in strengths
        ]
        return [with_outputs(run, each, labels) for run, each in zip(found, logits, strict=True)]

    return make


def test_weak_members_are_left_out(made_up: Callable[..., list[FinishedRun]]) -> None:
    report = score_ensemble(made_up(1.5, 1.4, 0.0, -0.3), "holdout")
    assert {member.name for member in report.chosen} == {"00", "01"}
    assert not report.fell_back
    assert report.default.weights[2:] == (0, 0)
    costs = report.costs
    assert costs.chosen.name == "chosen set, 2 of 4 members"
    assert costs.chosen.top1 > costs.best.top1 > costs.every.top1
    assert costs.chosen.seconds < costs.every.seconds
    assert len(report.curve) == 2
    text = markdown(report)
    assert "taken alone" not in text
    assert f"\n| {report.chosen[0].name} | {report.chosen[0].bands[0]} | {report.chosen[0].share:.1%} |\n" in text
    assert text.count("\n| 02 | ") == 1  # as a member, not as a chosen one


def test_where_no_gain_shows_the_best_member_is_taken(made_up: Callable[..., list[FinishedRun]]) -> None:
    """Members that differ in nothing but noise: none helps another."""
    report = score_ensemble(made_up(1.5, 1.0, 0.2, alike=1.0), "holdout")
    assert report.fell_back
    assert [member.name for member in report.chosen] == [report.order[0]] == ["00"]
    assert report.default.top1 == report.costs.best.top1 == report.costs.chosen.top1
    assert (
        "96 samples do not show that fusing helps: by cross-validation on them a chosen set is no better than 00, "
        "which is taken alone."
    ) in markdown(report).splitlines()
    assert json.loads(canonical_json(report.to_json()))["fell_back"] is True


def test_of_equal_members_the_one_of_the_lower_cross_entropy_is_best(runs: Path) -> None:
    labels = np.arange(60) % 3
    right = np.eye(3)[labels]
    found = [with_outputs(run, each * right, labels) for run, each in zip(find_runs(runs), (1, 3, 2, -1), strict=True)]
    report = score_ensemble(found, "holdout")
    assert report.order == ("01", "02", "00", "03")
    assert report.costs.best.name == "best member, 01"


def test_one_member_alone_is_no_fallback(runs: Path) -> None:
    report = score_ensemble(find_runs(runs)[:1], "val")
    assert [member.share for member in report.chosen] == [1]
    assert not report.fell_back


def test_halves_of_val_serve_without_holdout_samples(with_holdout: Path, runs: Path) -> None:
    assert score_ensemble(find_runs(runs)).rank_on == "halves"
    with pytest.raises(EnsembleError, match="has no holdout samples"):
        score_ensemble(find_runs(runs), "holdout")
    assert score_ensemble(find_runs(with_holdout / "runs"), "halves").rank_on == "halves"


def test_costs_and_classes_beside_a_baseline(many: Path, with_holdout: Path, tmp_path: Path, photos: Path) -> None:
    make_split(many, tmp_path / "sub1", factor=1, size=8, samples_per_block=8, val_per_class=50)
    train_network(str(tmp_path / "sub1" / "00"), tmp_path / "base" / "00", quick(epochs=1), quiet=True)
    done = program("spectral-ensemble", with_holdout / "runs", "--baseline", tmp_path / "base")
    assert done.returncode == 0, done.stderr
    report = json.loads((with_holdout / "runs" / "ensemble.json").read_text())
    baseline, best, every = (report["costs"][name] for name in ("baseline", "best", "every"))
    one = json.loads((with_holdout / "runs" / "00" / "run.json").read_text())["result"]
    assert baseline["name"] == "baseline"
    assert every["parameter_bytes"] == 4 * one["parameter_bytes"]
    assert every["multiply_adds"] == 4 * one["multiply_adds"]
    assert baseline["multiply_adds"] > 3 * best["multiply_adds"]
    assert [entry["samples"] for entry in report["classes"]] == [50, 50]
    mean = np.mean([entry["fused"] for entry in report["classes"]])
    assert math.isclose(mean, next(score["top1"] for score in report["rules"] if score["rule"] == "selected"))
    text = (with_holdout / "runs" / "ensemble.md").read_text()
    assert "| baseline | " in text
    assert "| ant | 50 | " in text
    other = make_split(photos, tmp_path / "other", factor=1, size=24)
    train_network(str(other / "00"), tmp_path / "wrong", quick(epochs=1), quiet=True)
    sentence = fails("spectral-ensemble", with_holdout / "runs", "--baseline", tmp_path / "wrong")
    assert "was evaluated on other images" in sentence
