"""Where samples are kept: the rule, what is free, and that a run is the same wherever it is."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spectral_shards.shards_manifest.dataset import open_bands
from spectral_shards.shards_manifest.runtime.cli_runner import human_bytes
from spectral_shards.train.config import ReadOptions, TrainPlan
from spectral_shards.train.data.loader import BandLoader, LoaderOptions
from spectral_shards.train.data.residence import FreeMemory, decompressed_bytes, free_memory, residence
from spectral_shards.train.distributed import SINGLE_PROCESS
from spectral_shards.train.engine import part_loaders as module
from spectral_shards.train.engine.part_loaders import part_loaders
from spectral_shards.train.errors import TrainError
from support.programs import fails, program
from support.slow_runs import close, killed, train
from support.splits import SUB4, make_split
from support.trainings import QUICK, quick

GB = 10**9
BAND = 3 * 56 * 56 + 8  # bytes of a sample of ImageNet in one of 16 bands of 224, or of 36 of 336, with its label
IMAGENET_1K, IMAGENET_21K = 1_331_167 * BAND, 11_060_223 * BAND


MACHINES = [(16, None), (64, None), (256, None), (64, 24), (256, 80)]  # GB of memory, and of a GPU


@pytest.mark.parametrize(
    ("needed", "choices"),
    [  # nine tenths are free
        (IMAGENET_1K, ("off", "memory", "memory", "device", "device")),
        (4 * IMAGENET_1K, ("off", "off", "memory", "off", "device")),
        (IMAGENET_21K, ("off", "off", "memory", "off", "memory")),
        (4 * IMAGENET_21K, ("off", "off", "off", "off", "off")),
    ],
)
def test_what_auto_chooses(needed: int, choices: tuple[str, ...]) -> None:
    machines = [FreeMemory(int(0.9 * memory * GB), int(0.9 * gpu * GB) if gpu else None) for memory, gpu in MACHINES]
    assert tuple(residence("auto", needed, machine) for machine in machines) == choices


def test_the_rule() -> None:
    assert residence("auto", 70, FreeMemory(100)) == "memory"
    assert residence("auto", 71, FreeMemory(100)) == "off"
    assert residence("auto", 35, FreeMemory(100, networks=2)) == "memory"
    assert residence("auto", 36, FreeMemory(100, networks=2)) == "off"
    assert residence("auto", 1, FreeMemory(100, 100, networks=None)) == "off"  # on a cluster
    assert residence("auto", 35, FreeMemory(100, 100, networks=8, networks_on_device=2)) == "device"
    assert residence("auto", 36, FreeMemory(288, 100, networks=8, networks_on_device=2)) == "off"
    assert residence("auto", 1, FreeMemory(None)) == "off"
    assert residence("auto", 70, FreeMemory(100, 100)) == "device"
    assert residence("auto", 70, FreeMemory(100, 99)) == "memory"
    assert residence("memory", 100, FreeMemory(100, 100, networks=None)) == "memory"
    assert residence("memory", 100, FreeMemory(None)) == "memory"
    assert residence("device", 100, FreeMemory(None, 100, networks=None)) == "device"
    assert residence("auto", 100, FreeMemory(0, 100, shared=100)) == "memory"  # a GPU has a copy of its own
    assert residence("memory", 100, FreeMemory(50, networks=2, shared=150)) == "memory"
    assert residence("off", 1, FreeMemory(100, 100)) == "off"
    with pytest.raises(TrainError, match=r"--resident memory needs 2\.0 GB and 1\.0 GB are free: leave it out, or"):
        residence("memory", 2 * GB, FreeMemory(GB))
    with pytest.raises(TrainError, match=r"--resident device needs 2\.0 GB and 1\.0 GB are free: leave it out, or"):
        residence("device", 2 * GB, FreeMemory(9 * GB, GB))
    with pytest.raises(TrainError, match="needs 60 B and 50 B are free"):
        residence("memory", 30, FreeMemory(50, networks=2))
    with pytest.raises(TrainError, match="--resident device needs a GPU: choose memory, or leave it out"):
        residence("device", 1, FreeMemory(100))


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, None),
        ({"proc/meminfo": "MemTotal: 9 kB\n"}, None),
        ({"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   8 kB\n"}, 8192),
        (
            {
                "proc/self/cgroup": "0::/job/step\n",
                "sys/fs/cgroup/job/memory.max": "5000\n",
                "sys/fs/cgroup/job/memory.current": "1000\n",
                "sys/fs/cgroup/job/memory.stat": "anon 900\ninactive_file 100\n",
                "sys/fs/cgroup/job/step/memory.max": "max\n",
                "sys/fs/cgroup/job/step/memory.current": "900\n",
                "proc/meminfo": "MemAvailable: 8 kB\n",
            },
            4100,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/x\n2:memory:/docker/1\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "3000\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "3001\n",
                "proc/meminfo": "MemAvailable: 8 kB\n",
            },
            0,
        ),
    ],
    ids=["nothing", "old", "machine", "group", "old group"],
)
def test_what_is_free(files: dict[str, str], free: int | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert free_memory(tmp_path) == free


def test_what_parts_take(sub4: Path) -> None:
    bands = open_bands(sub4, [0, 2])
    assert decompressed_bytes(bands, ["train", "val"]) == 96 * (2 * 3 * 12 * 12 + 8)


def test_a_run_is_the_same_wherever_its_samples_are(sub4: Path, tmp_path: Path) -> None:
    logits = []
    for number, resident in enumerate(("off", "memory", "auto")):
        out = tmp_path / resident
        command = ("spectral-train", "--shards", sub4 / "01", *QUICK[:-1], str(number), "--resident", resident)
        done = program(*command, "--out", out)
        assert done.returncode == 0, done.stderr
        assert ("samples stay in memory from the first epoch on: " in done.stdout) == (resident != "off")
        logits.append((out / "val-logits.npy").read_bytes())
    assert logits[0] == logits[1] == logits[2]
    if not torch.cuda.is_available():
        assert "--resident device needs a GPU" in fails(*command[:3], *QUICK, "--resident", "device")
    assert "is not one of 'auto', 'device', 'memory', 'off'" in fails(*command[:3], "--resident", "gpu")


@pytest.fixture
def automatic() -> TrainPlan:
    """A plan that chooses by itself where samples stay."""
    return replace(quick(), reading=ReadOptions(workers=0, resident="auto"))


def test_what_others_have_in_memory_counts_as_free(
    automatic: TrainPlan, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    band = make_split(photos, tmp_path / "sub4", **SUB4, seed=30) / "01"  # that no other test has in memory
    monkeypatch.setattr(module, "free_memory", lambda: 1000)
    assert part_loaders(open_bands(band), automatic, SINGLE_PROCESS)[1] == ""
    others = [BandLoader(band, part, options=LoaderOptions(resident="memory")) for part in ("train", "val")]
    _, said = part_loaders(open_bands(band), automatic, SINGLE_PROCESS)
    assert said == f"samples stay in memory from the first epoch on: {human_bytes(96 * (3 * 12 * 12 + 8))}"
    del others


def test_memory_that_is_gone_meanwhile(automatic: TrainPlan, sub4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("spectral_shards.train.data.loader.resident_part", refused)
    bands = open_bands(sub4 / "01")
    loaders, said = part_loaders(bands, automatic, SINGLE_PROCESS)
    assert said == ""
    assert sum(len(y) for _, y in loaders["val"]) == 15
    asked = replace(automatic, reading=ReadOptions(workers=0, resident="memory"))
    with pytest.raises(TrainError, match=r"cannot stay in memory \(.*Cannot allocate memory\): use --resident off"):
        part_loaders(bands, asked, SINGLE_PROCESS)


@pytest.mark.slow
def test_killed_and_gone_on_with_in_another_mode(sub4: Path, tmp_path: Path) -> None:
    band = sub4 / "01"
    train(band, tmp_path / "whole", 1, more=("--resident", "off"))
    for first, then, ranks in (("memory", "off", 1), ("off", "memory", 1), ("memory", "memory", 2)):
        out = tmp_path / f"{first}-{then}-{ranks}"
        killed(band, out, ranks, 2, 1, ("--resident", first))
        assert "going on after" in train(band, out, 1, more=("--resident", then))
        close(out, tmp_path / "whole", exactly=ranks == 1)
