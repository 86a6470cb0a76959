"""Images in a bucket of a real S3 server, or on its web server: the split of the same images on a disk."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import obstore
import pytest

from spectral_shards.preprocess.config import SourceOptions
from spectral_shards.preprocess.errors import RejectedImage, SourceError
from spectral_shards.preprocess.listing import Entries, EntriesBuilder, Listing
from spectral_shards.preprocess.pipeline.images import EncodedImages
from spectral_shards.preprocess.sources import Source, find_source
from spectral_shards.preprocess.sources.base import OnProgress, no_progress
from spectral_shards.preprocess.sources.path import SourcePath
from spectral_shards.preprocess.sources.tar_reader import open_range
from spectral_shards.shards_manifest.storage.object_store import RemoteStore
from spectral_shards.shards_manifest.storage.prefetch import AHEAD, AHEAD_BYTES
from support import forms
from support.buckets import BUCKET, FaultProxy, Server, environment, wait_for
from support.forms import MAKERS, OPTIONS, SPLIT, WNIDS, ilsvrc
from support.pictures import encode, picture
from support.programs import fails, program
from support.splits import make_split, split_of

ALL: dict[str, Callable[[Path, Path], Path]] = {
    "class-folders": lambda folders, out: Path(shutil.copytree(folders, out / "set")),
    **MAKERS,
}


@pytest.fixture
def cloud(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, with the environment that reaches it."""
    for name, value in environment(server.port).items():
        monkeypatch.setenv(name, value)
    return server


def test_every_form_in_a_bucket_gives_the_same_split(
    cloud: Server, folders: Path, wanted: dict[str, bytes], tmp_path: Path
) -> None:
    for kind, maker in ALL.items():
        (tmp_path / kind).mkdir()
        source = maker(folders, tmp_path / kind)
        url = f"s3://{BUCKET}/forms/{kind}/{source.name}"
        cloud.put(source, f"forms/{kind}/{source.name}")
        scratch = SourceOptions(scratch=tmp_path / kind / "scratch")
        assert find_source(url, scratch).describe() == find_source(source, scratch).describe()
        done = program(*SPLIT, url, "--out", tmp_path / kind / "out")
        assert done.returncode == 0, (kind, done.stderr)
        assert split_of(tmp_path / kind / "out") == wanted, kind
        saved = (tmp_path / kind / "out" / "rows" / "scan.bin").exists()
        assert saved == (kind != "class-folders")  # whose list is all that there is
        again = program(*SPLIT, url, "--out", tmp_path / kind / "out")
        assert "nothing to do" in again.stdout, (kind, again.stderr)


def test_from_bucket_to_bucket_with_two_workers(
    cloud: Server, folders: Path, wanted: dict[str, bytes], tmp_path: Path
) -> None:
    cloud.put(forms.tar_of_tars(folders, tmp_path / "set.tar"), "pair/set.tar")
    source, out = f"s3://{BUCKET}/pair/set.tar", f"s3://{BUCKET}/pair/out"
    command = [*SPLIT, source, "--out", out]
    command[command.index("--jobs") + 1] = "2"
    done = program(*command)
    assert done.returncode == 0, done.stderr
    there = cloud.tree("pair/out")
    assert {n: d for n, d in there.items() if not n.endswith(("plan.json", "scan.bin", "t.json"))} == wanted
    checked = program("spectral-prep", "verify", out, "--against", source, "--samples", "5")
    assert checked.returncode == 0, checked.stderr
    assert "5 images rebuilt from all bands" in checked.stdout
    within = fails(*SPLIT, f"s3://{BUCKET}/pair", "--out", out)
    assert f"--out {out} lies within the source" in within


@pytest.mark.parametrize("labels", ["wnids", "devkit"])
def test_ilsvrc_in_a_bucket_and_on_a_web_server(labels: str, cloud: Server, folders: Path, tmp_path: Path) -> None:
    if labels == "devkit":
        pytest.importorskip("scipy")
    source, same = ilsvrc(folders, tmp_path, labels)
    options = {**OPTIONS, "val_per_class": -1}
    wanted = split_of(make_split(same, tmp_path / "wanted", **options))
    cloud.put(source, f"{labels}/ilsvrc")
    for number, root in enumerate((f"s3://{BUCKET}", cloud.web)):
        out = make_split(f"{root}/{labels}/ilsvrc", tmp_path / str(number), **options)  # type: ignore[arg-type]
        assert split_of(out) == wanted
    elsewhere = SourceOptions(val_labels=f"s3://{BUCKET}/{labels}/none")
    with pytest.raises(SourceError, match=f"--val-labels s3://{BUCKET}/{labels}/none does not exist"):
        find_source(f"s3://{BUCKET}/{labels}/ilsvrc", elsewhere)


def test_files_on_a_web_server(cloud: Server, folders: Path, wanted: dict[str, bytes], tmp_path: Path) -> None:
    cloud.put(forms.tar_of_tars(folders, tmp_path / "set.tar"), "web/set.tar")
    cloud.put(forms.shards(folders, tmp_path / "set"), "web/set")
    cloud.put(forms.parquet(folders, tmp_path / "parquet"), "web/parquet/set")
    for number, name in enumerate(
        ("set.tar", "set/set-{000..003}.tar", "parquet/set/train-{00000..00001}-of-00002.parquet")
    ):
        source = f"{cloud.web}/web/{name}"
        assert find_source(source).describe()["name"] == "set"
        assert split_of(make_split(source, tmp_path / str(number), **OPTIONS)) == wanted  # type: ignore[arg-type]
    assert find_source(tmp_path / "set" / "set-{000..003}.tar").scan().digest() == find_source(folders).scan().digest()
    for name, sentence in {
        "set": "web/set is no .tar or .tar.gz or .tgz or .parquet file, and web servers list no folders: name one file",
        "set/set-{000..004}.tar": "web/set/set-004.tar, one of the 5 files of ",
        "set/set-{000..004.tar": "does not exist, and is no pattern: braces are written in pairs",
        "none.tar": "web/none.tar does not exist",
    }.items():
        with pytest.raises(SourceError) as caught:
            find_source(f"{cloud.web}/web/{name}")
        assert sentence in str(caught.value)


def test_a_web_server_that_sends_whole_files_only(folders: Path, tmp_path: Path) -> None:
    forms.tar_of_tars(folders, tmp_path / "set.tar")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            sentence = fails(*SPLIT, f"http://127.0.0.1:{server.server_port}/set.tar", cwd=tmp_path)
        finally:
            server.shutdown()
            thread.join()
    assert "set.tar: the server sends whole files only: fetch it, and name the copy" in sentence


def test_odd_names_and_what_is_left_out(cloud: Server, tmp_path: Path) -> None:
    source = tmp_path / "odd"
    names = ["with space.jpg", "café ☕.jpg", "50%25#x.jpg", "a+b&c=d.jpg", "deep/er/image.jpg", f"{'n' * 240}.jpg"]
    for class_name in ("class one", "ünï"):
        for number, name in enumerate(names):
            path = source / class_name / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(picture(number, 40, 50)))
    (source / "ünï" / ".hidden").write_bytes(b"x")
    (source / "ünï" / "empty.jpg").write_bytes(b"")
    (source / "notes.txt").write_bytes(b"x")
    cloud.put(source, "odd")
    obstore.put(cloud.client(), "odd/class one/", b"")  # what some programs leave for a folder
    options = {**OPTIONS, "val_per_class": 0}
    there = make_split(f"s3://{BUCKET}/odd", tmp_path / "there", **options)  # type: ignore[arg-type]
    assert split_of(there) == split_of(make_split(source, tmp_path / "here", **options))
    rejects = [json.loads(line) for line in (there / "rejects.jsonl").read_text().splitlines()]
    assert {reject["source"]: reject["reason"] for reject in rejects} == {
        "notes.txt": "not in a class",
        "ünï/.hidden": "hidden file",
        "ünï/empty.jpg": "empty file",
    }


def test_what_is_not_there(cloud: Server, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"s3://{BUCKET}/nothing does not exist" in fails(*SPLIT, f"s3://{BUCKET}/nothing", cwd=tmp_path)
    assert "there is no such bucket" in fails(*SPLIT, "s3://nobucket/x", cwd=tmp_path)
    assert "choose a local path or s3://" in fails(*SPLIT, "ftp://host/x", cwd=tmp_path)
    cloud.put(folders, "goes")
    source = find_source(f"s3://{BUCKET}/goes")
    listing = source.scan()
    obstore.delete(cloud.client("goes"), f"{WNIDS[0]}/{WNIDS[0]}_003.JPEG")
    images = EncodedImages(source, "train", listing.classes, listing.parts["train"])
    with pytest.raises(SourceError, match=f"cannot read {WNIDS[0]}/{WNIDS[0]}_003.JPEG of the source"):
        list(images)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "access was denied" in fails(*SPLIT, f"s3://{BUCKET}/goes", cwd=tmp_path)


def test_a_changed_file_is_scanned_again(cloud: Server, folders: Path, tmp_path: Path) -> None:
    tar = forms.tar_of_tars(folders, tmp_path / "set.tar")
    cloud.put(tar, "changes/set.tar")
    command = [*SPLIT, f"s3://{BUCKET}/changes/set.tar", "--out", tmp_path / "out"]
    assert program(*command).returncode == 0
    (folders.parent / "more").mkdir(exist_ok=True)
    more = Path(shutil.copytree(folders, tmp_path / "more"))
    (more / WNIDS[0] / "new.JPEG").write_bytes(encode(picture(99)))
    cloud.put(forms.tar_of_tars(more, tmp_path / "more.tar"), "changes/set.tar")
    assert "the source's list of images has changed" in fails(*command)


def test_through_faults_and_a_server_that_is_away(
    cloud: Server, folders: Path, wanted: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.put(folders, "broken/folders/set")
    cloud.put(forms.shards(folders, tmp_path / "set"), "broken/shards/set")
    proxy = FaultProxy(cloud.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    for kind in ("folders", "shards"):
        done = program(*SPLIT, f"s3://{BUCKET}/broken/{kind}/set", "--out", tmp_path / f"{kind}-out")
        assert done.returncode == 0, done.stderr
        assert split_of(tmp_path / f"{kind}-out") == wanted
    assert len(set(proxy.seen)) > 4, proxy.seen
    proxy.close()
    monkeypatch.setenv("SPECTRAL_RETRY_SECONDS", "2")
    assert "cannot be reached" in fails(*SPLIT, f"s3://{BUCKET}/broken/folders/set", cwd=tmp_path)


def test_headers_are_read_with_what_lies_between_them_or_alone(
    cloud: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small members in a few large pieces, large ones by their headers."""
    asked: list[int] = []
    fetch = RemoteStore._fetch

    def counted(self: RemoteStore, name: str, start: int, length: int, in_parts: bool = False) -> tuple[bytes, int]:
        asked.append(length)
        return fetch(self, name, start, length, in_parts)

    monkeypatch.setattr(RemoteStore, "_fetch", counted)
    for size, count, requests, largest in ((20_000, 300, 8, 7_000_000), (3_000_000, 5, 7, 200_000)):
        members = {f"{i:03d}.jpg": bytes(size) for i in range(count)}
        forms.flat_tar(members, tmp_path / "a.tar")
        cloud.put(tmp_path / "a.tar", "windows/a.tar")
        asked.clear()
        with open_range(SourcePath.of(f"s3://{BUCKET}/windows/a.tar")) as file:
            from spectral_shards.preprocess.sources.tar_reader import list_images

            rejects: list[tuple[str, str]] = []
            assert len(list_images(file, "a.tar", "", rejects)) == count
        assert len(asked) <= requests
        assert sum(asked) <= largest


class Numbered(Source):
    """A source of `sizes`, read by many threads; image i is i as text, number 7 is refused."""

    def __init__(self, sizes: list[int], threads: int) -> None:
        self.sizes, self._threads, self.open = sizes, threads, 0
        self.most, self.lock = 0, threading.Lock()

    def scan(self, found: OnProgress = no_progress) -> Listing:
        builder = EntriesBuilder()
        builder.add_rows((0, b"%d" % i, 0, size) for i, size in enumerate(self.sizes))
        return Listing(("a",), {"train": builder.build()}, ())

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        with self.lock:
            self.open += self.sizes[i]
            self.most = max(self.most, self.open)
        if i == 7:
            raise RejectedImage("seven")
        return b"%d" % i

    def describe(self) -> dict[str, str]:
        return {}

    def files(self) -> Iterator[SourcePath]:
        return iter(())

    @property
    def threads(self) -> int:
        return self._threads


def workers(before: set[threading.Thread]) -> list[threading.Thread]:
    """The threads that read ahead, but for those of before: another test's may still try a server that has gone."""
    return [thread for thread in threading.enumerate() if "_answer" in thread.name and thread not in before]


@pytest.mark.parametrize("threads", [1, 5])
def test_images_are_read_ahead_in_order(threads: int) -> None:
    sizes = [1000] * 20 + [AHEAD_BYTES * 2, 5, AHEAD_BYTES // 2, AHEAD_BYTES // 2, AHEAD_BYTES // 2] + [10] * 200
    source = Numbered(sizes, threads)
    listing = source.scan()
    images = EncodedImages(source, "train", listing.classes, listing.parts["train"])
    found, before = [], set(threading.enumerate())
    for i, data in enumerate(images):
        found.append(data if isinstance(data, bytes) else str(data).encode())
        with source.lock:
            source.open -= sizes[i]
    assert found == [b"seven" if i == 7 else b"%d" % i for i in range(len(sizes))]
    # the one that is larger than the limit, what was asked for before it, and the one that was just handed out
    assert source.most <= AHEAD_BYTES * 2 + 1000 * AHEAD * threads + AHEAD_BYTES
    wait_for(lambda: not workers(before), 10)
    half_way = iter(images)
    next(half_way)
    assert len(workers(before)) == (threads if threads > 1 else 0)
    del half_way  # whoever stops early leaves no thread behind
    wait_for(lambda: not workers(before), 10)


def test_interrupting_a_split_from_a_bucket_ends_at_once(cloud: Server, folders: Path, tmp_path: Path) -> None:
    cloud.put(folders, "interrupt/set")
    path = Path(sys.executable).with_name(SPLIT[0])
    with subprocess.Popen(
        [str(path), *SPLIT[1:], f"s3://{BUCKET}/interrupt/set", "--out", str(tmp_path / "out")],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for((tmp_path / "out" / "rows").exists)
        process.send_signal(2)
        _, errors = process.communicate(timeout=20)
    assert "Traceback" not in errors
    done = program(*SPLIT, f"s3://{BUCKET}/interrupt/set", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
