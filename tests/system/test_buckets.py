"""Splits in a bucket of a real S3 server: the bytes of a local one, whatever happens on the way."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.buckets import BUCKET, FaultProxy, Server, environment, free_ports, wait_for
from support.programs import fails, program
from support.splits import make_split, tree

OPTIONS = {"factor": 4, "size": 48, "samples_per_shard": 8, "samples_per_block": 3}
ARGUMENTS = [text for name, value in OPTIONS.items() for text in (f"--{name.replace('_', '-')}", str(value))]
TINY = ("--network", "cnn", "--recipe", "quick", "--epochs", "1", "--batch-size", "16", "--resident", "off")


@pytest.fixture(scope="module")
def local(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The split that every bucket has to hold."""
    return make_split(photos, tmp_path_factory.mktemp("local") / "out", **OPTIONS)


@pytest.fixture(scope="module")
def wanted(local: Path) -> dict[str, bytes]:
    return tree(local)


@pytest.fixture(scope="module")
def whole(server: Server, photos: Path) -> str:
    """A finished split in the bucket. Not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        reach(patch, server.port)
        done = program(*command(photos, "whole", jobs=2))
        assert done.returncode == 0, done.stderr
    return "whole"


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    proxy = FaultProxy(server.port)
    yield proxy
    proxy.close()


def reach(patch: pytest.MonkeyPatch, port: int, **options: object) -> None:
    for name, value in environment(port, **options).items():  # type: ignore[arg-type]
        patch.setenv(name, value)


def command(photos: Path, name: str, jobs: int = 1) -> list[str]:
    return ["spectral-prep", "split", *ARGUMENTS, str(photos), "--out", url(name), "--jobs", str(jobs)]


def url(name: str) -> str:
    return f"s3://{BUCKET}/{name}"


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """A program in a process group of its own."""
    path = Path(sys.executable).with_name(arguments[0])
    return subprocess.Popen(
        [str(path), *arguments[1:]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def one_sentence(errors: str) -> str:
    assert "Traceback" not in errors, errors
    sentence = errors.splitlines()[-1]
    assert re.fullmatch(r"Error: [^\n{}]+", sentence), errors
    return sentence


def continued(photos: Path, name: str, tries: int = 8) -> list[str]:
    """Run the split until it is finished. Returns what was said at every end before that, a sentence each."""
    said: list[str] = []
    while (done := program(*command(photos, name))).returncode:
        assert done.returncode == 2, done.stderr
        said.append(one_sentence(done.stderr))
        assert len(said) < tries, said
    return said


def test_a_bucket_holds_what_a_folder_holds(
    server: Server, whole: str, photos: Path, wanted: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.tree(whole) == wanted
    reach(monkeypatch, server.port)
    again = program(*command(photos, whole))
    assert "13 of 13 shard rows were there already: nothing to do" in again.stdout
    assert server.tree(whole) == wanted
    other = command(photos, whole)
    other[other.index("48")] = "24"
    assert "holds another split (size 48 there, 24 here)" in fails(*other)
    assert f"s3://{BUCKET} is not empty (it holds " in fails(*command(photos, ""))


def test_commands_on_a_bucket(
    server: Server, whole: str, local: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach(monkeypatch, server.port)
    here, there = (program("spectral-prep", "info", where).stdout for where in (local, url(whole)))
    assert here.replace(str(local), "") == there.replace(url(whole), "") != ""
    checked = program("spectral-prep", "verify", url(whole), "--jobs", "2", "--against", photos, "--samples", "5")
    assert checked.returncode == 0, checked.stderr
    assert "52 shards, 96 samples a band" in checked.stdout
    assert "5 images rebuilt from all bands" in checked.stdout
    for where in (local, url(whole)):
        name = "there.png" if "://" in str(where) else "here.png"
        assert program("spectral-prep", "preview", where, "--out", tmp_path / name, "--images", "2").returncode == 0
    assert (tmp_path / "here.png").read_bytes() == (tmp_path / "there.png").read_bytes()
    assert f"{url('none')} has no manifest.json" in fails("spectral-prep", "info", url("none"))


def test_what_is_damaged_in_a_bucket_is_named_and_mended(
    server: Server, photos: Path, wanted: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    import obstore

    reach(monkeypatch, server.port)
    assert continued(photos, "damaged") == []
    client = server.client("damaged")
    obstore.delete(client, "02/train-000003.tar")
    obstore.put(client, "01/train-000005.tar", wanted["01/train-000005.tar"][:1024])
    obstore.put(client, "03/train-000001.tar", wanted["03/train-000002.tar"])
    obstore.put(client, "00/extra.tar", b"")
    done = program("spectral-prep", "verify", url("damaged"), "--jobs", "1")
    assert done.returncode == 1
    for problem in (
        "02/train-000003.tar is missing",
        "01/train-000005.tar has 1024 bytes",
        f"{url('damaged')}/03/train-000001.tar",
        "00/extra.tar is not listed",
    ):
        assert problem in done.stderr
    obstore.delete(client, ["00/extra.tar", "03/train-000001.tar"])
    assert "10 of 13 shard rows were there already" in program(*command(photos, "damaged")).stdout
    assert server.tree("damaged") == wanted


@pytest.mark.slow
def test_killed_five_times_and_continued(
    server: Server, photos: Path, wanted: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    reach(monkeypatch, server.port, lease=1)
    client = server.client("killed")
    chance = random.Random(5)
    kills = 0
    while kills < 5:
        before = rows_in(server, "killed")
        process = start(command(photos, "killed", jobs=2))
        # a row is at work whenever one more has been committed; then at a random moment of the next
        wait_for(lambda: process.poll() is not None or rows_in(server, "killed") > min(before, 10))  # noqa: B023
        time.sleep(chance.uniform(0, 0.15))
        if process.poll() is not None:  # too late: take some rows away again
            assert process.returncode == 0, process.communicate()[1]
            drop_rows(client, 6)
        else:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.communicate()
    assert continued(photos, "killed") == []
    assert server.tree("killed") == wanted


def rows_in(server: Server, name: str) -> int:
    return sum(entry.startswith("rows/train-") for entry in names(server, name))


def names(server: Server, name: str) -> list[str]:
    import obstore

    return [entry["path"] for batch in obstore.list(server.client(name)) for entry in batch]


def drop_rows(client: object, count: int) -> None:
    import obstore

    found = sorted(e["path"] for batch in obstore.list(client, "rows") for e in batch if "train-" in e["path"])  # type: ignore[call-overload]
    obstore.delete(client, found[:count])  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_server_that_stops_in_the_middle(
    photos: Path, wanted: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    server = Server(tmp_path / "data")
    try:
        server.start()
        for name, retry in (("waits", 40), ("gives-up", 1)):
            reach(monkeypatch, server.port, lease=1, retry=retry)
            process = start(command(photos, name))
            wait_for(lambda: process.poll() is not None or rows_in(server, name) >= 3)  # noqa: B023
            assert process.poll() is None
            server.stop()
            if name == "gives-up":
                _, errors = process.communicate(timeout=60)
                assert process.returncode == 2
                assert "run the same command again to go on" in one_sentence(errors)
            else:
                time.sleep(1)
            server.start()
            _, errors = process.communicate(timeout=100)
            if name == "waits":
                assert process.returncode == 0, errors
            else:
                reach(monkeypatch, server.port, lease=1)
                assert continued(photos, name) == []
            assert server.tree(name) == wanted
    finally:
        server.kill()


@pytest.mark.slow
def test_faults_on_the_way(
    server: Server, proxy: FaultProxy, photos: Path, wanted: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    reach(monkeypatch, proxy.port)
    continued(photos, "faults")
    assert server.tree("faults") == wanted
    assert set(proxy.seen) == {"pass", *FaultProxy.FATES}
    checked = program("spectral-prep", "verify", url("faults"), "--jobs", "2")
    assert checked.returncode == 0, checked.stderr


def test_two_at_once_on_one_bucket(
    server: Server, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach(monkeypatch, server.port)
    arguments = command(photos, "twice")
    arguments[arguments.index("8")] = "1"  # a shard for each image: long enough for the two to meet
    both = [start(arguments) for _ in range(2)]
    ended = [(process.communicate(timeout=120)[1], process.returncode) for process in both]
    assert sorted(code for _, code in ended) == [0, 2]
    refused = next(errors for errors, code in ended if code == 2)
    assert f"{url('twice')} is being written by another process" in one_sentence(refused)
    assert server.tree("twice") == tree(make_split(photos, tmp_path / "out", **{**OPTIONS, "samples_per_shard": 1}))


def test_what_cannot_work_is_said_in_time(
    server: Server, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*arguments: str | Path) -> str:
        started = time.monotonic()
        sentence = one_sentence(fails(*arguments))
        assert time.monotonic() - started < 20
        return sentence

    reach(monkeypatch, server.port, secret="wrong", retry=90)
    for arguments in (command(photos, "x"), ["spectral-prep", "info", url("whole")]):
        assert "access was denied (SignatureDoesNotMatch): check AWS_ACCESS_KEY_ID and" in said(*arguments)
    reach(monkeypatch, server.port, retry=90)
    for arguments in (
        ["spectral-prep", "split", *ARGUMENTS, str(photos), "--out", "s3://no-such-bucket/x"],
        ["spectral-prep", "info", "s3://no-such-bucket/x"],
    ):
        assert "s3://no-such-bucket/x: there is no such bucket" in said(*arguments)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
    assert "cannot be reached, or breaks off" in said(*command(photos, "x"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://bucket.invalid")
    assert "bucket.invalid cannot be reached" in said("spectral-prep", "verify", url("x"))
    monkeypatch.setenv("AWS_ALLOW_HTTP", "false")
    assert "set AWS_ALLOW_HTTP=true" in said("spectral-prep", "info", url("x"))
    assert "can only be read" in said("spectral-prep", "split", *ARGUMENTS, photos, "--out", "http://127.0.0.1:1/x")
    assert "runs are kept in local folders" in said("spectral-ensemble", url("x"))


@pytest.mark.slow
def test_training_from_a_bucket_is_training_from_disk(
    server: Server, whole: str, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spectral_shards.train.errors import TrainError
    from spectral_shards.train.runs.run_folder import local_folder, run_path, split_runs_path

    reach(monkeypatch, server.port)
    metrics = []
    for shards, workers in ((str(local / "00"), "0"), (f"{url(whole)}/00", "1")):
        done = program("spectral-train", "--shards", shards, *TINY, "--workers", workers, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        metrics.append(json.loads((tmp_path / run_path(shards) / "metrics.jsonl").read_text()))
    for key in ("train_loss", "val_loss", "train_top1", "val_top1"):
        assert metrics[0][key] == metrics[1][key]
    assert run_path("s3://sub36/07") == Path("runs/sub36/07")
    assert split_runs_path("s3://bucket/sub36/") == Path("runs/sub36")
    with pytest.raises(TrainError, match="runs are kept in local folders"):
        local_folder("s3://bucket/runs")
