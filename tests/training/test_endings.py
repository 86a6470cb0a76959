"""Whatever ends a training, and wherever: the program ends soon, says why, and leaves nothing behind."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from spectral_shards.train.runs import checkpoint
from support.buckets import BUCKET, Server, WebServer, environment, wait_for
from support.programs import program
from support.slow_runs import OPTIONS, alive, under_way

SCRIPT = str(Path(__file__).parents[1] / "support" / "failing.py")
SOON = 60  # seconds for what takes three on a machine that does nothing else: only a program that hangs needs more


def run(shards: str | Path, out: Path, workers: int, fail_at: str = "", ranks: int = 1) -> tuple[int, str]:
    """The exit code, and what was said, of a training that is to fail; nothing of it may be left."""
    launcher = [sys.executable]
    if ranks > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [*launcher, SCRIPT, "--shards", str(shards), "--out", str(out), *OPTIONS, "--workers", str(workers)]
    return ended(command, out, fail_at)


def ended(command: list[str], out: Path, fail_at: str) -> tuple[int, str]:
    """The same of any command."""
    before = set(os.listdir("/dev/shm"))
    environment = {**os.environ, "FAIL_AT": fail_at, "SPECTRAL_RETRY_SECONDS": "2"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
    )
    try:
        said, _ = process.communicate(timeout=2 * SOON)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        pytest.fail(f"it hangs, after it said: {process.communicate()[0]}")
    wait_for(lambda: not alive(process.pid), 20)
    ours = {name for name in set(os.listdir("/dev/shm")) - before if str(process.pid) in name}
    assert not ours
    assert not list(out.glob("*.tmp"))
    return process.returncode, said


def spoilt(sub4: Path, tmp_path: Path, pattern: str) -> Path:
    """A copy of a band in which the last shard of a part is damaged."""
    band = Path(shutil.copytree(sub4 / "01", tmp_path / "01"))
    shard = sorted(band.glob(pattern))[-1]
    data = bytearray(shard.read_bytes())
    data[600:604] = b"\0\1\2\3"
    shard.write_bytes(data)
    return band


@contextmanager
def address(folder: Path, remote: bool) -> Iterator[str]:
    """Where a folder is read from: a disk, or a web server."""
    if not remote:
        yield str(folder)
        return
    server = WebServer(folder.parent)
    try:
        yield f"{server.url}/{folder.name}"
    finally:
        server.close()


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize(("part", "workers"), [("val", 0), ("val", 1), ("val", 2), ("train", 0), ("train", 2)])
def test_a_damaged_shard_ends_a_run(part: str, workers: int, remote: bool, sub4: Path, tmp_path: Path) -> None:
    with address(spoilt(sub4, tmp_path, f"{part}-*.tar"), remote) as band:
        code, said = run(band, tmp_path / "run", workers)
    assert code == 2, said
    assert re.search(rf"Error: .*{part}-00000\d\.tar was altered", said.splitlines()[-1])
    assert "Traceback" not in said
    if part == "val":  # what was trained is kept, and the run goes on when the shard is mended
        found = checkpoint.load_checkpoint(tmp_path / "run" / "checkpoint.pt").progress.loader
        assert found == {"seed": 0, "epoch": 0, "samples": 80}


BUG, FULL = "ZeroDivisionError: a bug", "No space left on device"
PLACES = {
    "network": BUG,
    "evaluation": BUG,
    "step": BUG,
    "report": BUG,
    "reader": BUG,
    "memory": "MemoryError",
    "checkpoint": FULL,
    "log": FULL,
    "outputs": FULL,
    "result": FULL,
    "resident reader": BUG,
    "resident memory": "MemoryError",
}


@pytest.mark.parametrize("fail_at", PLACES)
def test_an_error_ends_a_run_wherever_it_is_raised(fail_at: str, sub4: Path, tmp_path: Path) -> None:
    number = list(PLACES).index(fail_at)
    with address(sub4 / "01", remote=number % 4 in (1, 2)) as band:
        code, said = run(band, tmp_path / "run", 1 + number % 2, fail_at)
    assert code == 2, said
    assert PLACES[fail_at] in said.splitlines()[-1]
    assert "Traceback" not in said
    assert (tmp_path / "run" / "error.log").exists() == (PLACES[fail_at] != FULL)


def test_an_unexpected_exit_ends_a_run(sub4: Path, tmp_path: Path) -> None:
    assert run(sub4 / "01", tmp_path / "run", 2, "exit")[0] == 3
    assert run(sub4 / "01", tmp_path / "run", 0)[0] == 0  # nothing holds the run's folder


@pytest.mark.parametrize(
    ("fail_at", "code"), [("progress bug", 1), ("progress", 2), ("exit", 3), ("manifests", 2), ("scan bug", 1)]
)
def test_an_error_ends_a_split(fail_at: str, code: int, photos: Path, tmp_path: Path) -> None:
    """Rows are under way in two other processes, or have just been."""
    script = str(Path(__file__).parents[1] / "support" / "failing_split.py")
    command = [sys.executable, script, "split", "--factor", "4", "--jobs", "2", "--samples-per-shard", "64"]
    out = tmp_path / "out"
    found, said = ended([*command, str(photos), "--out", str(out)], out, fail_at)
    assert found == code, said
    assert ("Traceback" in said) == (code == 1)
    if code == 2:
        assert re.search(r"^Error: .*No space left on device", said.splitlines()[-1])
    again = program("spectral-prep", "split", "--factor", "4", "--samples-per-shard", "64", photos, "--out", out)
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_an_error_of_one_rank_ends_all(sub4: Path, tmp_path: Path) -> None:
    cases = [("other rank", sub4 / "01"), ("", spoilt(sub4, tmp_path, "val-*.tar"))]
    for number, (fail_at, shards) in enumerate(cases):
        code, said = run(shards, tmp_path / f"run-{number}", 1, fail_at, ranks=2)
        assert code != 0
        assert (BUG if fail_at else "val-000000.tar was altered") in said
        reader = checkpoint.load_checkpoint(tmp_path / f"run-{number}" / "checkpoint.pt").progress.loader
        assert reader["samples"] == 80


@pytest.mark.parametrize("workers", [0, 2])
def test_a_server_that_dies_ends_a_run(
    workers: int, sub4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    server = Server(tmp_path / "data")
    for name, value in {**environment(server.port), "SPECTRAL_RETRY_SECONDS": "2"}.items():
        monkeypatch.setenv(name, value)
    try:
        server.start()
        server.put(sub4 / "01", "band")
        shards = f"s3://{BUCKET}/band"
        options = ("--epochs", "1000", "--save-every", "60", "--resident", "off")
        with under_way(shards, tmp_path / "run", workers, *options) as process:
            server.stop()
            _, said = process.communicate(timeout=SOON)
            assert process.returncode == 2, said
            assert "cannot be reached, or breaks off" in said.splitlines()[-1]
            assert "Traceback" not in said
            wait_for(lambda: not alive(process.pid), 20)
    finally:
        server.kill()
    assert checkpoint.load_checkpoint(tmp_path / "run" / "checkpoint.pt").progress.loader["samples"] > 0


def without_shared_memory(script: str, cwd: Path, options: str = "size=64k") -> subprocess.CompletedProcess[str]:
    """Run a shell script where /dev/shm is another, as small as in a container."""
    mounted = ["unshare", "--mount", "bash", "-c"]
    mount = f"mount -t tmpfs -o {options} tmpfs /dev/shm"
    if subprocess.run([*mounted, mount], capture_output=True).returncode:
        pytest.skip("only root can give a process another /dev/shm")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONWARNINGS": "ignore"}
    command = [*mounted, f"set -e; {mount}; {script}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=5 * SOON, env=environment, cwd=cwd)


@pytest.mark.slow
def test_everything_works_with_little_shared_memory(photos: Path, tmp_path: Path) -> None:
    """Batches of 2.4 MB and 9.6 MB where there are 64 kB."""
    train = f"{sys.executable} {SCRIPT} --network cnn --recipe quick --epochs 1"
    done = without_shared_memory(
        f"spectral-prep split --factor 1 --size 224 --jobs 2 {photos}; spectral-prep verify sub1 --jobs 2;"
        f"{train} --shards sub1/00 --batch-size 64; {train} --shards sub1/00 --batch-size 16 --workers 3 --out other;"
        f"spectral-prep split --factor 4 --size 24 {photos}; {train} --shards sub4 --jobs 2",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "other" / "run.json").exists()
    assert len(list((tmp_path / "runs" / "sub4").glob("*/run.json"))) == 4


@pytest.mark.slow
def test_no_shared_memory_at_all(sub4: Path, photos: Path, tmp_path: Path) -> None:
    train = f"{sys.executable} {SCRIPT} --network cnn --recipe quick --epochs 1 --shards {sub4}"
    split = f"spectral-prep split --factor 4 --size 24 --jobs 2 {photos}"
    script = f"{split}; {train}/00 --out run --workers 2; {train} --jobs 2"
    done = without_shared_memory(script, tmp_path, "ro")
    assert done.returncode == 2, done.stderr
    assert (tmp_path / "run" / "run.json").exists()
    said = "Error: this machine lets no processes work side by side, perhaps for lack of a /dev/shm: leave out --jobs"
    assert done.stderr.splitlines()[-1] == said
