"""Fusing finished runs."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spectral_shards.shards_manifest.manifest import canonical_json
from spectral_shards.train.engine.trainer import train_network
from spectral_shards.train.ensemble import report, rules
from spectral_shards.train.ensemble.members import find_runs
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
    }
    assert math.isclose(rules["mean", "log"]["top1"], (logp.sum(0).argmax(1) == labels).mean())
    assert math.isclose(rules["mean", "probability"]["top1"], (np.exp(logp).sum(0).argmax(1) == labels).mean())
    hits = logits.argmax(2) == labels
    right = 0
    for scored, chosen in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        order = np.argsort(-hits[:, chosen].mean(1), kind="stable")
        fused = sum(0.3 * 0.7**rank * logp[band] for rank, band in enumerate(order))
        right += (fused[scored].argmax(1) == labels[scored]).sum()  # type: ignore[index]
    assert math.isclose(rules["geometric", "log"]["top1"], right / len(labels))
    assert [band["band"] for band in report["bands"]] == [0, 1, 2, 3]
    assert np.allclose([band["top1"] for band in report["bands"]], hits.mean(1))
    assert len(rules["mean", "log"]["curve"]) == 4
    best = [hits[hits[:, 1 - half :: 2].mean(1).argmax(), half::2] for half in (0, 1)]
    assert math.isclose(report["costs"]["best"]["top1"], np.concatenate(best).mean())
    assert json.loads(canonical_json(fuse_runs(runs).to_json())) == report
    gains = {entry["name"]: entry for entry in report["classes"]}
    assert math.isclose(sum(entry["best"] * entry["samples"] for entry in gains.values()), np.concatenate(best).sum())
    text = (copy / "ensemble.md").read_text()
    assert f"| best band of the other half | {report['costs']['best']['top1']:.2%} |" in text
    assert "differ in" not in text
    assert "| fitted log-linear (default) | log-probabilities |" in text
    assert "ranks and fitted weights come from the other half of val" in text
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
    by = {band.band: band.train_top1 if rank_on == "train" else band.top1 for band in report.bands}
    assert list(report.order) == sorted(by, key=lambda band: -by[band])
    assert any(score.rule == "fitted" for score in report.rules) == (rank_on == "val")
    assert report.default.rule == ("fitted" if rank_on == "val" else "geometric")
    top1 = {band.band: band.top1 for band in report.bands}
    assert report.costs.best.name == f"band {report.order[0]}"
    assert report.costs.best.top1 == top1[report.order[0]]


def test_a_rule_is_one_entry(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is added to the registry is scored in its space and shown in the report; the default stays."""
    first = rules.FusingRule("first", "first band alone", lambda bands: np.eye(len(bands.order))[0], (rules.LOG,))
    before = score_ensemble(find_runs(runs), "val")
    monkeypatch.setitem(rules.RULES, first.name, first)
    after = score_ensemble(find_runs(runs), "val")
    assert after.rules[:-1] == before.rules
    assert after.rules[-1].space == "log"
    assert after.rules[-1].top1 == after.costs.best.top1
    assert [after.rules[-1].weights.index(1.0)] == list(after.order[:1])
    assert f"| first band alone | log-probabilities | {after.costs.best.top1:.2%} |" in markdown(after)
    assert after.default == before.default


def test_a_column_is_one_entry(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    column = report.ReportColumn("wrong", "{:.0f}", lambda entry: entry.samples * (1 - entry.fused))
    monkeypatch.setattr(report, "CLASSES", (*report.CLASSES, column))
    text = markdown(score_ensemble(find_runs(runs), "val"))
    assert "| class | samples | best band | fused | gain | wrong |\n|---|---|---|---|---|---|\n" in text


def test_options_that_differ_are_named(runs: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs, tmp_path / "runs"))
    raw = json.loads((copy / "02" / "run.json").read_text())
    raw["options"] |= {
        "network": "resnet18",
        "precision": "bfloat16",
        "recipe": {**raw["options"]["recipe"], "lr": 0.5},
    }
    (copy / "02" / "run.json").write_text(json.dumps(raw))
    done = program("spectral-ensemble", copy)
    assert done.returncode == 0, done.stderr
    assert "The runs of the bands differ in lr, network." in done.stdout.splitlines()


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
    assert "holds two runs of band 0" in changed(lambda copy: shutil.copytree(copy / "00", copy / "07"))
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
    assert list(report.order) == order.tolist()
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
    baseline, best, fused = (report["costs"][name] for name in ("baseline", "best", "fused"))
    one = json.loads((with_holdout / "runs" / "00" / "run.json").read_text())["result"]
    assert baseline["name"] == "baseline"
    assert fused["parameter_bytes"] == 4 * one["parameter_bytes"]
    assert fused["multiply_adds"] == 4 * one["multiply_adds"]
    assert baseline["multiply_adds"] > 3 * best["multiply_adds"]
    assert [entry["samples"] for entry in report["classes"]] == [50, 50]
    mean = np.mean([entry["fused"] for entry in report["classes"]])
    assert math.isclose(mean, next(score["top1"] for score in report["rules"] if score["rule"] == "fitted"))
    text = (with_holdout / "runs" / "ensemble.md").read_text()
    assert "| baseline | " in text
    assert "| ant | 50 | " in text
    other = make_split(photos, tmp_path / "other", factor=1, size=24)
    train_network(str(other / "00"), tmp_path / "wrong", quick(epochs=1), quiet=True)
    sentence = fails("spectral-ensemble", with_holdout / "runs", "--baseline", tmp_path / "wrong")
    assert "was evaluated on other images" in sentence
