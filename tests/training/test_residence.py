"""Where samples are kept: the rule, what is free, and that a run is the same wherever it is."""

from pathlib import Path

import pytest

from spectral_shards.shards_manifest.dataset import open_bands
from spectral_shards.train.data.residence import decompressed_bytes, free_memory, in_memory
from spectral_shards.train.errors import TrainError
from support.programs import fails, program
from support.slow_runs import close, killed, train
from support.trainings import QUICK

GB = 10**9
BAND = 3 * 56 * 56 + 8  # bytes of a sample of ImageNet in one of 16 bands of 224, or of 36 of 336, with its label
IMAGENET_1K, IMAGENET_21K = 1_331_167 * BAND, 11_060_223 * BAND


@pytest.mark.parametrize(
    ("needed", "choices"),
    [  # with 16, 64 and 256 GB, of which nine tenths are free
        (IMAGENET_1K, (False, True, True)),
        (4 * IMAGENET_1K, (False, False, True)),
        (IMAGENET_21K, (False, False, True)),
        (4 * IMAGENET_21K, (False, False, False)),
    ],
)
def test_what_auto_chooses(needed: int, choices: tuple[bool, ...]) -> None:
    assert tuple(in_memory("auto", needed, int(0.9 * memory * GB)) for memory in (16, 64, 256)) == choices


def test_the_rule() -> None:
    assert in_memory("auto", 70, 100)
    assert not in_memory("auto", 71, 100)
    assert in_memory("auto", 35, 100, networks=2)
    assert not in_memory("auto", 36, 100, networks=2)
    assert not in_memory("auto", 1, 100, networks=0)  # on a cluster
    assert not in_memory("auto", 1, None)
    assert in_memory("memory", 100, 100, networks=0)
    assert in_memory("memory", 100, None)
    assert not in_memory("off", 1, 100)
    with pytest.raises(TrainError, match=r"--resident memory needs 2\.0 GB and 1\.0 GB are free: leave it out, or"):
        in_memory("memory", 2 * GB, GB)


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
                "sys/fs/cgroup/job/step/memory.max": "max\n",
                "sys/fs/cgroup/job/step/memory.current": "900\n",
                "proc/meminfo": "MemAvailable: 8 kB\n",
            },
            4000,
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
    assert "is not one of 'auto', 'memory', 'off'" in fails(*command[:3], "--resident", "gpu")


@pytest.mark.slow
def test_killed_and_gone_on_with_in_another_mode(sub4: Path, tmp_path: Path) -> None:
    band = sub4 / "01"
    train(band, tmp_path / "whole", 1, more=("--resident", "off"))
    for first, then, ranks in (("memory", "off", 1), ("off", "memory", 1), ("memory", "memory", 2)):
        out = tmp_path / f"{first}-{then}-{ranks}"
        killed(band, out, ranks, 2, 1, ("--resident", first))
        assert "going on after" in train(band, out, 1, more=("--resident", then))
        close(out, tmp_path / "whole", exactly=ranks == 1)
