"""Every system of the published table takes a step at its own size, with its own classes and recipe."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spectral_shards.shards_manifest.manifest import MANIFEST, load_band
from spectral_shards.train import recipes
from spectral_shards.train.config import TrainPlan
from spectral_shards.train.networks import NetworkOptions

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from published import ROWS, Row
from support.trainings import train_step


def test_the_table_is_whole() -> None:
    assert len(ROWS) == 17
    assert len({row.name for row in ROWS}) == 17
    assert {row.plane for row in ROWS} == {224, 112, 56}


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_step_of_every_row(row: Row, sub4: Path) -> None:
    manifest = load_band((sub4 / "00" / MANIFEST).read_bytes(), "m")
    geometry = replace(manifest.geometry, factor=row.factor, size=row.size, margin=0)
    classes = tuple(map(str, range(row.classes)))
    step = train_step(
        replace(manifest, geometry=geometry, classes=classes),
        TrainPlan(NetworkOptions(row.network), recipes.load(row.recipe)),
    )
    parameter = next(step.model.network.parameters())
    random = torch.Generator().manual_seed(0)
    x = torch.randint(-50, 50, (2, 3, row.plane, row.plane), dtype=torch.int8, generator=random)
    before = parameter.detach().clone()
    loss, correct = step(x, torch.tensor([1, row.classes - 1]), 0, 0.01)
    assert torch.isfinite(loss)
    assert 0 <= int(correct) <= 2
    assert not torch.equal(before, parameter)
