"""One contract for folders and buckets."""

from __future__ import annotations

import errno
import http.server
import os
import pickle
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from spectral_shards.shards_manifest.dataset import open_band
from spectral_shards.shards_manifest.errors import FormatError, StoreError
from spectral_shards.shards_manifest.storage.base import Store
from spectral_shards.shards_manifest.storage.local import LocalStore
from spectral_shards.shards_manifest.storage.opening import open_store
from support.buckets import BUCKET, FaultProxy, Server, environment, wait_for

LARGE = 12_000_000  # bytes: more than two parts of an upload, more than one piece of a download


@pytest.fixture
def cloud(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The bucket's URL, with the environment that reaches it."""
    for name, value in environment(server.port).items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}"


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store(tmp_path / "root")
    return open_store(f"{request.getfixturevalue('cloud')}/contract/{tmp_path.name}/")


def test_what_is_written_is_read(store: Store) -> None:
    data = os.urandom(100_000)
    store.write("00/a.tar", data)
    store.write("00/empty", b"")
    assert store.read("00/a.tar") == data == bytes(store.view("00/a.tar"))
    assert store.read("00/empty") == b"" == bytes(store.view("00/empty"))
    assert (store.size("00/a.tar"), store.size("00/empty")) == (100_000, 0)
    assert store.exists("00/a.tar")
    assert not store.exists("00")
    assert store.view("00/a.tar").readonly
    store.write("00/a.tar", b"other")
    assert store.read("00/a.tar") == b"other"
    store.remove("00/a.tar")
    store.remove("00/a.tar")
    assert not store.exists("00/a.tar")
    store.flush(["", "00"])


def test_what_is_missing(store: Store) -> None:
    for ask in (store.read, store.view, store.size, store.open, lambda name: store.range(name, 0, 1)):
        with pytest.raises(FileNotFoundError) as caught:
            ask("00/none.tar")
        assert str(caught.value.filename).endswith("00/none.tar")
    assert store.names("none") == store.folders("none") == []
    assert store.sizes("none") == {}


def test_folders_at_any_depth(store: Store) -> None:
    names = ["a/x", "a/y", "a/b/z", "a/b/c/w", "other/v", "a.b/u"]
    for name in names:
        store.write(name, name.encode())
    assert sorted(name for name, _ in store.walk("a")) == ["a/b/c/w", "a/b/z", "a/x", "a/y"]
    assert sorted(name for name, _ in store.walk("")) == sorted(names)
    assert {size for _, size in store.walk("a/b")} <= {-1, len("a/b/z"), len("a/b/c/w")}
    assert [store.is_folder(name) for name in ("", "a", "a/b", "a/x", "none")] == [True, True, True, False, False]
    stamp = store.stamp("a/x")
    assert stamp == store.stamp("a/x") != store.stamp("a/b/c/w")
    store.write("a/x", b"changed")
    assert store.stamp("a/x") != stamp


def test_walking_goes_on_page_by_page(cloud: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from spectral_shards.shards_manifest.storage import object_store as remote

    monkeypatch.setattr(remote, "PAGE", 3)
    store = open_store(f"{cloud}/pages")
    for i in range(8):
        store.write(f"d/{i}", b"")
    pages = remote.obstore.list
    broken: list[str | None] = []

    def fails_after_one(client: object, prefix: str, offset: str | None, chunk_size: int) -> Iterator[object]:
        broken.append(offset)
        for number, page in enumerate(pages(client, prefix, offset=offset, chunk_size=chunk_size)):
            if number == 1:
                raise remote.BaseError("HTTP error: the answer broke off")
            yield page

    monkeypatch.setattr(remote.obstore, "list", fails_after_one)
    assert sorted(name for name, _ in store.walk("d")) == [f"d/{i}" for i in range(8)]
    assert broken == [None, "d/2", "d/5"]


def test_ranges_and_readers(store: Store) -> None:
    store.write("x", bytes(range(100)))
    assert store.range("x", 10, 5) == bytes(range(10, 15))
    assert store.range("x", 95, 50) == bytes(range(95, 100))
    assert store.range("x", 100, 5) == store.range("x", 3, 0) == b""
    with store.open("x") as file:
        assert file.read(3) == bytes(range(3))
        assert file.seek(-2, os.SEEK_END) == 98
        assert file.read() == bytes((98, 99))
        file.seek(50)
        file.seek(1, os.SEEK_CUR)
        assert (file.tell(), file.read(2)) == (51, bytes((51, 52)))


def test_listing(store: Store) -> None:
    for name in ("b.txt", "a.txt", "01/x", "00/y", "00/deep/z"):
        store.write(name, name.encode())
    assert store.names() == ["a.txt", "b.txt"]
    assert store.folders() == ["00", "01"]
    assert store.names("00") == ["00/y"]
    assert store.folders("00") == ["00/deep"]
    assert store.sizes("00") == {"00/y": 4}
    assert list(store.sizes()) == ["a.txt", "b.txt"]


def test_several_files_at_once_or_none(store: Store) -> None:
    large = os.urandom(LARGE)
    with store.writing(["00/l.tar", "01/s.tar"]) as (one, two):
        for start in range(0, LARGE, 1_000_000):
            one.write(large[start : start + 1_000_000])
        two.write(b"small")
        assert not store.exists("00/l.tar")
    assert (store.read("00/l.tar"), store.read("01/s.tar")) == (large, b"small")
    assert store.range("00/l.tar", LARGE - 10, 20) == large[-10:]
    with suppress(ZeroDivisionError), store.writing(["00/n.tar", "01/n.tar"]) as (one, two):
        one.write(large)
        two.write(b"small")
        raise ZeroDivisionError
    assert (store.names("00"), store.names("01")) == (["00/l.tar"], ["01/s.tar"])


def test_creating_never_replaces(store: Store) -> None:
    store.create("rows/plan.json", b"mine")
    with pytest.raises(FileExistsError):
        store.create("rows/plan.json", b"other")
    assert store.read("rows/plan.json") == b"mine"
    assert store.names("rows") == ["rows/plan.json"]


def test_stores_pickle(store: Store) -> None:
    store.write("x", b"1")
    again = pickle.loads(pickle.dumps(store))
    assert again.read("x") == b"1"


def test_one_run_at_a_time(store: Store) -> None:
    store.write("x", b"1")
    with store.owning("rows"):
        with pytest.raises(BlockingIOError), pickle.loads(pickle.dumps(store)).owning("rows"):
            pass
        with store.working("rows"):
            store.write("rows/a.json", b"1")
    assert store.names("rows") == ["rows/a.json"]
    with store.owning("rows"):
        pass


def test_large_objects_through_faults(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = FaultProxy(server.port, every=4)
    try:
        for name, value in environment(proxy.port).items():
            monkeypatch.setenv(name, value)
        store = open_store(f"s3://{BUCKET}/large/{tmp_path.name}")
        data = os.urandom(LARGE)
        tries = 0
        while not store.exists("00/l.tar"):  # it ends well or is refused in a sentence: never half of it is there
            tries += 1
            assert tries < 10
            with suppress(StoreError), store.writing(["00/l.tar", "01/s.tar"]) as (one, two):
                for start in range(0, LARGE, 1_000_000):
                    one.write(data[start : start + 1_000_000])
                two.write(b"small")
        for _ in range(12):
            assert store.view("00/l.tar") == data
        assert set(proxy.seen) == {"pass", *FaultProxy.FATES}
    finally:
        proxy.close()


HOLD = """
import sys, time
from spectral_shards.shards_manifest.storage.opening import open_store
with open_store(sys.argv[1]).owning("rows"):
    print("owned", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_the_lease_of_a_killed_run_runs_out_and_what_is_left_of_it_cannot_commit(cloud: str, tmp_path: Path) -> None:
    url = f"{cloud}/leases/{tmp_path.name}"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, url], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "owned\n"
    holder.kill()
    holder.wait()
    holder.stdout.close()
    store = open_store(url)
    assert store.exists("rows/lease.json")
    started = time.monotonic()
    with store.owning("rows"):
        assert 0.5 < time.monotonic() - started < 8  # of the 3 seconds that the environment gives
        left = pickle.loads(pickle.dumps(store))  # a worker's
        left.write("rows/a.json", b"1")
    assert store.names("rows") == ["rows/a.json"]
    for refused in (left.write, left.create):
        with pytest.raises(StoreError, match="was deleted or taken over by another run"):
            refused("rows/b.json", b"1")
    with store.owning("rows"):
        with pytest.raises(StoreError, match="taken over by another run"), left.writing(["00/b.tar"]) as (file,):
            file.write(b"late")
        assert not store.exists("00/b.tar")


def test_a_destination_that_is_deleted_stops_its_run(cloud: str, tmp_path: Path) -> None:
    store = open_store(f"{cloud}/deleted/{tmp_path.name}")
    with store.owning("rows"):
        store.write("rows/a.json", b"1")
        open_store(str(store)).remove("rows/lease.json")
        with pytest.raises(StoreError, match="was deleted or taken over"):
            store.write("rows/b.json", b"1")
    assert store.names("rows") == ["rows/a.json"]


def test_a_lost_answer_to_a_lease_is_no_loss(cloud: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spectral_shards.shards_manifest.storage.object_store import RemoteStore

    real, lost = RemoteStore.put_if, []

    def put_if(self: RemoteStore, *arguments: object) -> object:
        done = real(self, *arguments)  # type: ignore[arg-type]
        if len(lost) < 3:
            lost.append(done)
            raise StoreError("the connection broke off")
        return done

    monkeypatch.setattr(RemoteStore, "put_if", put_if)
    store = open_store(f"{cloud}/lost/{tmp_path.name}")
    with store.owning("rows"):
        wait_for(lambda: len(lost) == 3)
        store.write("x", b"1")
    assert store.names("rows") == []


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A plain web server over `tmp_path`, without listing by PROPFIND and without ranges."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_web_server_is_read(web: str, tmp_path: Path) -> None:
    LocalStore(tmp_path).write("d/x", bytes(range(100)))
    LocalStore(tmp_path).write("d/large", large := os.urandom(LARGE))
    store = open_store(f"{web}/d")
    assert store.read("x") == bytes(range(100))
    assert store.range("x", 10, 5) == bytes(range(10, 15))
    assert store.range("x", 100, 5) == b""
    assert store.read("large") == large
    assert (store.size("x"), store.exists("x"), store.exists("y"), store.names()) == (100, True, False, [])
    with store.open("x") as file:
        file.seek(90)
        assert file.read() == bytes(range(90, 100))
    for refused in (
        lambda: store.write("y", b""),
        lambda: store.create("y", b""),
        lambda: store.writing(["y"]).__enter__(),
        lambda: store.owning("rows").__enter__(),
    ):
        with pytest.raises(StoreError, match="can only be read: write to a folder or to s3://"):
            refused()


def test_a_band_over_http(web: str, sub4: Path, tmp_path: Path) -> None:
    (tmp_path / "sub4").symlink_to(sub4)
    store, manifest = open_band(f"{web}/sub4/02")
    shard = manifest.parts["train"].shards[0]
    assert bytes(store.view(shard.name)) == (sub4 / "02" / shard.name).read_bytes()
    with pytest.raises(FormatError, match=f"{web}/none has no manifest.json"):
        open_band(f"{web}/none")
    with pytest.raises(FormatError, match="is a whole split"):
        open_band(f"{web}/sub4")


def test_urls_that_name_nothing() -> None:
    with pytest.raises(StoreError, match="names no bucket"):
        open_store("s3://").read("x")
    with pytest.raises(StoreError, match="choose a local path or s3://"):
        open_store("ftp://host/x")


def test_a_read_only_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ("open", "unlink"):  # the system refuses the one as the other, whether or not the file is there
        monkeypatch.setattr(Path, name, refused)
    with pytest.raises(StoreError, match=re.escape(f"cannot write to {tmp_path}: Read-only file system")):
        LocalStore(tmp_path).write("ensemble.md", b"")
