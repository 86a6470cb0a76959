"""What a step does to the weights."""

import math
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from spectral_shards.shards_manifest.dataset import open_band
from spectral_shards.shards_manifest.manifest import MANIFEST, BandManifest, load_band
from spectral_shards.shards_manifest.shard.reader import BlockReader
from spectral_shards.train import networks, recipes
from spectral_shards.train.augment.mixup import Mixing
from spectral_shards.train.augment.planes import BandAugmentation, draws
from spectral_shards.train.config import ReadOptions, TrainPlan
from spectral_shards.train.engine.train_step import TrainStep
from spectral_shards.train.engine.trainer import train_network
from spectral_shards.train.networks import NetworkOptions
from spectral_shards.train.runs import checkpoint
from support.trainings import train_step
from support.without_norm import plain


@pytest.fixture
def manifest(sub4: Path, monkeypatch: pytest.MonkeyPatch) -> BandManifest:
    monkeypatch.setattr(
        "spectral_shards.train.networks.cnn.cnn", plain
    )  # what is compared depends on the samples alone
    return load_band((sub4 / "00" / MANIFEST).read_bytes(), "m")


def step_of(manifest: BandManifest, **fields: object) -> TrainStep:
    still = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0, **fields}
    return train_step(manifest, TrainPlan(NetworkOptions("cnn"), recipes.load("quick", **still), precision="float32"))


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    x = torch.randint(-50, 50, (16, 3, 12, 12), dtype=torch.int8, generator=random)
    return x, torch.randint(0, 3, (16,), generator=random)


def weights(step: TrainStep) -> torch.Tensor:
    return torch.cat([p.detach().ravel() for p in step.model.network.parameters()])


def test_a_batch_in_parts_is_the_batch(manifest: BandManifest) -> None:
    for mixing in ({}, {"mixup": 0.4}, {"cutmix": 1.0}):
        whole, parts = step_of(manifest, **mixing), step_of(manifest, grad_accum_steps=4, **mixing)
        before = weights(whole)
        results = [each(*batch(), 3, 0.1) for each in (whole, parts)]
        assert torch.allclose(*(result[0] for result in results))
        assert torch.equal(*(result[1] for result in results))
        assert not torch.allclose(before, weights(whole), atol=1e-4)
        assert torch.allclose(weights(whole), weights(parts), atol=1e-6)


def test_gradients_are_clipped_to_a_norm(manifest: BandManifest) -> None:
    free, clipped = step_of(manifest), step_of(manifest, clip_grad=0.01)
    before = weights(free)
    for each in (free, clipped):
        each(*batch(), 0, 1.0)
    assert float((weights(free) - before).norm()) > 0.1
    assert abs(float((weights(clipped) - before).norm()) - 0.01) < 1e-5
    moves = [weights(each) - before for each in (free, clipped)]
    assert torch.allclose(moves[0] / moves[0].norm(), moves[1] / moves[1].norm(), atol=1e-4)


def test_averaged_weights_follow(manifest: BandManifest) -> None:
    follower = step_of(manifest, ema=0.75)
    seen = []
    for step in range(3):
        follower(*batch(step), step, 0.1)
        seen.append(weights(follower))
    average = seen[0]
    for later in seen[1:]:
        average = 0.75 * average + 0.25 * later
    found = torch.cat([p.detach().ravel() for p in follower.model.eval_model.parameters()])
    assert torch.allclose(found, average, atol=1e-6)
    assert follower.model.eval_model is not follower.model.network
    without = step_of(manifest)
    assert without.model.eval_model is without.model.network


def test_averaged_weights_are_what_is_evaluated_and_kept(sub4: Path, tmp_path: Path) -> None:
    recipe = recipes.load("quick", epochs=2, batch_size=16, ema=0.95)
    train_network(
        str(sub4 / "02"),
        tmp_path / "run",
        TrainPlan(NetworkOptions("cnn"), recipe, reading=ReadOptions(workers=0)),
        quiet=True,
    )
    network = checkpoint.load_network(tmp_path / "run" / "checkpoint.pt")
    store, manifest = open_band(str(sub4 / "02"))
    val = BlockReader(store, manifest, "val")
    x = torch.from_numpy(np.concatenate([val.read(block)[0] for block in range(len(val.samples))]))
    with torch.inference_mode():
        logits = network(BandAugmentation(manifest).eval()(x))
        raw = networks.build_network("cnn", 12, 3)
        raw.load_state_dict(checkpoint.load_checkpoint(tmp_path / "run" / "checkpoint.pt").state["network"])
        others = raw.eval()(BandAugmentation(manifest).eval()(x))
    kept = np.load(tmp_path / "run" / "val-logits.npy")
    assert np.allclose(logits.numpy(), kept, atol=0.02)
    assert not np.allclose(others.numpy(), kept, atol=0.02)


def test_mixed_labels_count_by_their_share(manifest: BandManifest) -> None:
    step, (x, y) = step_of(manifest, mixup=0.4, label_smoothing=0.0), batch()
    network = deepcopy(step.model.network)
    found, _ = step(x, y, 1, 0.1)
    mixed = Mixing(0, 0.4, 0.0)(step.model.augmentation(x, draws(0, 1, len(y))), y, 1, 0, len(y))
    assert mixed.share is not None
    with torch.no_grad():
        logits = network(mixed.x)
        own, other = (nn.functional.cross_entropy(logits, labels, reduction="none") for labels in (y, mixed.other))
    wanted = (mixed.share * own + (1 - mixed.share) * other).sum()
    assert math.isclose(float(found), float(wanted), rel_tol=1e-5)
    assert not math.isclose(float(found), float(own.sum()), rel_tol=1e-3)


def test_adamw_takes_a_step(manifest: BandManifest) -> None:
    adam = step_of(manifest, optimizer="adamw", momentum=0.9)
    before = weights(adam)
    adam(*batch(), 0, 0.01)
    moved = (weights(adam) - before).abs()
    assert 0.009 < float(moved.max()) < 0.011  # the first step of Adam is the rate, whatever the gradient
