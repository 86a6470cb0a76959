"""What users write for a place: addresses of buckets and of web servers, with credentials and queries."""

from __future__ import annotations

import base64
import json
import pickle
import re
from pathlib import Path
from urllib.parse import urlsplit

import obstore
import pytest

from spectral_shards.preprocess.config import SourceOptions
from spectral_shards.preprocess.errors import SourceError
from spectral_shards.preprocess.sources import find_source
from spectral_shards.preprocess.sources.path import SourcePath
from spectral_shards.shards_manifest.dataset import open_data
from spectral_shards.shards_manifest.errors import StoreError
from spectral_shards.shards_manifest.storage.address import Address, is_url, joined, shown, url_names
from spectral_shards.shards_manifest.storage.opening import open_store
from spectral_shards.shards_manifest.storage.redact import hidden
from spectral_shards.shards_manifest.storage.web_server import WebStore
from support import forms
from support.buckets import BUCKET, Server, environment
from support.forms import OPTIONS, SPLIT, ilsvrc
from support.hubs import BASIC, PASSWORD, SIGNATURE, Hub, secret
from support.programs import fails, program
from support.splits import make_split, split_of, splits, tree

pytestmark = pytest.mark.usefixtures("bare")


@pytest.fixture(scope="module")
def web(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a web server has: a tar of tars under several names, shards, labels."""
    root = tmp_path_factory.mktemp("web")
    forms.tar_of_tars(folders, root / "set.tar")
    data = (root / "set.tar").read_bytes()
    for name in ("with space", "a+b", "50%25#x?y", "käse", "set{1}", "dir/deep", "two//slashes"):
        path = root / f"{name}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    forms.shards(folders, root / "shards" / "set")
    (root / "empty.bin").write_bytes(b"")
    return root


def shards_of(split: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in split.items() if name.endswith(".tar")}


@pytest.mark.parametrize(
    ("url", "request_", "printed", "names"),
    [
        ("https://host/with%20space.tar", None, None, ["with space.tar"]),
        ("https://host/with space.tar", "https://host/with%20space.tar", None, ["with space.tar"]),
        ("HTTPS://Host:8443/a/b.tar", "https://Host:8443/a/b.tar", None, ["a", "b.tar"]),
        ("https://host/a%2Fb%25+c.tar", None, None, ["a/b%+c.tar"]),
        ("https://host/k%C3%A4se.tar", None, None, ["käse.tar"]),
        ("https://host/käse.tar", "https://host/k%C3%A4se.tar", None, ["käse.tar"]),
        ("https://host/x.tar?download=true", None, "https://host/x.tar?...", ["x.tar"]),
        ("https://host/x.tar?a=1&b=%2F?c", None, "https://host/x.tar?...", ["x.tar"]),
        ("https://host/x.tar#part?x", "https://host/x.tar", None, ["x.tar"]),
        ("https://host/x.tar?", "https://host/x.tar", None, ["x.tar"]),
        ("https://host/x/?s=1", "https://host/x?s=1", "https://host/x?...", ["x"]),
        ("http://[::1]:8000/x.tar", None, None, ["x.tar"]),
        ("https://host//a//b.tar", None, None, ["a", "b.tar"]),
        ("https://host", "https://host/", "https://host", ["host"]),
        ("https://host/train-{000..146}.tar?sig=x", None, "https://host/train-{000..146}.tar?...", None),
        ("https://me:s3cret@host/x.tar", "https://host/x.tar", None, ["x.tar"]),
        ("https://me:s3c@ret@host/@scope/x.tar", "https://host/@scope/x.tar", None, ["@scope", "x.tar"]),
    ],
)
def test_web_addresses(url: str, request_: str | None, printed: str | None, names: list[str] | None) -> None:
    address = Address.parse(url)
    assert address.request == (request_ or url)
    assert address.shown == shown(url) == (printed or address.request.rstrip("/"))
    assert names is None or url_names(url) == names
    again = pickle.loads(pickle.dumps(address))
    assert again == address
    assert again.request == address.request
    assert "s3cret" not in repr(address) + str(address)
    assert "sig=x" not in repr(address) + str(address)


def test_credentials_in_an_address() -> None:
    for url, pair in (
        ("https://me%40lab:s3cret%2Fword@host/x", f"me@lab:{PASSWORD}"),
        ("https://me:p@ss:word@host/x", "me:p@ss:word"),
        ("https://token@host/x", "token:"),
        ("https://:k%C3%A4se@host/x", ":käse"),
    ):
        assert Address.parse(url).authorization == "Basic " + base64.b64encode(pair.encode()).decode()
    assert Address.parse("https://host/a@b").authorization == ""


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3:/bucket/x", "write s3:// with two slashes"),
        ("s3:bucket", "write s3:// with two slashes"),
        ("https:/me:s3cret@host/x", "write https:// with two slashes"),
        ("s3://", "names no bucket: write s3://bucket/folder"),
        ("gs:///x", "names no bucket: write gs://bucket/folder"),
        ("s3://bu cket/x", "the name of a bucket has only letters"),
        ("s3://büket/x", "the name of a bucket has only letters"),
        ("s3://key:s3cret@bucket/x", "the name of a bucket has only letters"),
        ("az://container@account/x", "the name of a bucket has only letters"),
        ("s3://minio:9000/bucket/x", "the address of a server in AWS_ENDPOINT_URL"),
        ("s3://bucket//key", "an empty name between slashes"),
        ("s3://bucket/a//b", "an empty name between slashes"),
        ("s3://bucket/a/../b", "the name .. between slashes"),
        ("s3://bucket/x ", "white space at an end"),
        ("s3://bucket/x\ny", "a line break or the like within"),
        ("https://host/x.tar\n", "white space at an end"),
        ("https://", "names no server"),
        ("https:///x.tar", "names no server"),
        ("https://host:port/x", "no number for a port"),
        ("https://me:s3cret/word@host/x", "in a password %2F for /"),
        ("https://host:99999/x", "no number for a port"),
        ("https://ho st/x", "names no server"),
        ("ftp://me:s3cret@host/x", "choose a local path or s3://"),
        ("file:///data", "choose a local path or s3://"),
    ],
)
def test_addresses_that_cannot_be(url: str, says: str) -> None:
    assert is_url(url)
    for refuse in (open_store, shown, SourcePath.of):
        with pytest.raises(StoreError, match=re.escape(says)) as caught:
            refuse(url)
        assert not secret(str(caught.value))
        assert "\n" not in str(caught.value)


def test_what_is_a_url() -> None:
    for path in ("data/x", "./s3:/x", "a://"[1:], "C:\\x", "x.tar", "~/a b", "data/a://b", "http", "s3"):
        assert not is_url(path)
    for path in ("s3://b", "S3://b", "https:/x", "az:x", "ftp://x"):
        assert is_url(path)


def test_joined_addresses_keep_what_belongs_to_them() -> None:
    for path, wanted in {
        "data/sub4": "data/sub4/00",
        "s3://b/sub4/": "s3://b/sub4/00",
        "s3://b/sub?4": "s3://b/sub?4/00",
        "https://me:pw@h/sub4?sig=a/b": "https://me:pw@h/sub4/00?sig=a/b",
        "HTTP://h/sub4/#x": "HTTP://h/sub4/00",
        "http_data/sub?4": "http_data/sub?4/00",
    }.items():
        assert joined(path, "00") == wanted


def test_what_libraries_say_is_cleaned() -> None:
    said = 'error for url (https://me:s3cret@host/x?X-Sig=1&b): HTTP://h/y?X-Sig=2#z "http://h?X-Sig"'
    assert hidden(said) == 'error for url (https://host/x?... HTTP://h/y?... "http://h?..."'
    assert hidden("what? it said: no") == "what? it said: no"


def test_keys_of_buckets_are_literal(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(server.port).items():
        monkeypatch.setenv(name, value)
    for key in ("with%20space", "with space", "a?b#c", "a+b", "käse", "x{1}"):
        obstore.put(server.client(), f"literal/{key}/x", key.encode())
        for scheme in ("s3", "S3"):
            assert open_store(f"{scheme}://{BUCKET}/literal/{key}").read("x") == key.encode()
        assert SourcePath.of(f"s3://{BUCKET}/literal/{key}/x").read() == key.encode()
        assert SourcePath.of(f"s3://{BUCKET}/literal/{key}").name == key
    assert f"s3://Bucket/x: {'there is no such bucket'}" in fails("spectral-prep", "info", "S3://Bucket/x")


@pytest.mark.parametrize(
    ("written", "sent", "name"),
    [
        ("set.tar", "/set.tar", "set"),
        ("with%20space.tar", "/with%20space.tar", "with space"),
        ("with space.tar", "/with%20space.tar", "with space"),
        ("a+b.tar", "/a+b.tar", "a+b"),
        ("a%2Bb.tar", "/a%2Bb.tar", "a+b"),
        ("50%2525%23x%3Fy.tar", "/50%2525%23x%3Fy.tar", "50%25#x?y"),
        ("k%C3%A4se.tar", "/k%C3%A4se.tar", "käse"),
        ("käse.tar", "/k%C3%A4se.tar", "käse"),
        ("set%7B1%7D.tar", "/set%7B1%7D.tar", "set{1}"),
        ("dir%2Fdeep.tar", "/dir%2Fdeep.tar", "deep"),
        ("dir/deep.tar#read-me", "/dir/deep.tar", "deep"),
        ("two//slashes.tar", "/two//slashes.tar", "slashes"),
        ("/set.tar", "//set.tar", "set"),
    ],
)
def test_a_path_is_sent_as_it_was_written(
    written: str, sent: str, name: str, web: Path, wanted: dict[str, bytes], tmp_path: Path
) -> None:
    with Hub(web) as hub:
        source = f"{hub.url}/{written}"
        assert find_source(source).describe()["name"] == name
        out = make_split(source, tmp_path / "out", **OPTIONS)  # type: ignore[arg-type]
        found = {path for _, path in hub.asked if not path.startswith(("/val", "/classes"))}
    assert found == {sent}
    assert shards_of(split_of(out)) == shards_of(wanted)  # the manifests have another name of the data set


@pytest.mark.parametrize("head", [200, 403, 405, 400, pytest.param(501, marks=pytest.mark.slow)])  # 501 is tried again
def test_a_signed_link(head: int, web: Path, wanted: dict[str, bytes], tmp_path: Path) -> None:
    with Hub(web, sign=SIGNATURE, head=head) as hub:
        done = program(*SPLIT, f"{hub.url}/set.tar?{SIGNATURE}", "--out", tmp_path / "out")
        assert done.returncode == 0, done.stderr
        assert split_of(tmp_path / "out") == wanted
        assert {path for _, path in hub.asked} == {f"/set.tar?{SIGNATURE}"}
        heads = [method for method, _ in hub.asked].count("HEAD")
        assert heads > 0
        assert head in (200, 501) or heads <= 3  # a store learns it once
        store = open_store(f"{hub.url}?{SIGNATURE}")
        assert (store.size("empty.bin"), store.read("empty.bin")) == (0, b"")
        assert not store.exists("none.tar")
        with pytest.raises(FileNotFoundError):
            store.open("none.tar")
        wrong = fails(*SPLIT, f"{hub.url}/set.tar?X-Sig=wrong", "--out", tmp_path / "none")
    assert f"{hub.url}/set.tar?...: access was denied (" in wrong
    assert "the signed link may have ended" in wrong
    for text in (done.stdout, done.stderr, wrong):
        assert not secret(text)
    for name, data in tree(tmp_path / "out").items():
        assert not secret(data.decode("latin-1")), name


def test_a_signed_link_without_parts_or_head(web: Path, tmp_path: Path) -> None:
    with Hub(web, sign=SIGNATURE, head=403, ranges=False) as hub:
        store = open_store(f"{hub.url}?{SIGNATURE}")
        assert store.size("set.tar") == (web / "set.tar").stat().st_size
        assert store.read("set.tar") == (web / "set.tar").read_bytes()
        said = fails(*SPLIT, f"{hub.url}/set.tar?{SIGNATURE}", cwd=tmp_path)
    assert "set.tar: the server sends whole files only: fetch it, and name the copy" in said


def test_links_with_braces_and_folders(web: Path, folders: Path, wanted: dict[str, bytes], tmp_path: Path) -> None:
    source, same = ilsvrc(folders, tmp_path, "wnids")
    with Hub(web, sign=SIGNATURE, head=403) as hub:
        assert splits(f"{hub.url}/shards/set/set-{{000..003}}.tar?{SIGNATURE}", tmp_path / "shards") == wanted
        with pytest.raises(SourceError, match=r"set-004\.tar, one of the 5 files of .*\{000\.\.004\}\.tar") as caught:
            find_source(f"{hub.url}/shards/set/set-{{000..004}}.tar?{SIGNATURE}")
        assert not secret(str(caught.value))
        for name in ("x", "set.txt?", "none.tar"):
            with pytest.raises(SourceError, match=r"is no \.tar|does not exist") as caught:
                find_source(f"{hub.url}/{name.rstrip('?')}?{SIGNATURE}")
            assert not secret(str(caught.value))
    options = {**OPTIONS, "val_per_class": -1}
    with Hub(source, sign=SIGNATURE, authorization=BASIC) as hub:
        url = f"http://me%40lab:s3cret%2Fword@{hub.host}"
        whole = SourceOptions(val_labels=f"{url}/val.txt?{SIGNATURE}" if (source / "val.txt").exists() else None)
        found = find_source(f"{url}?{SIGNATURE}", whole)
        assert found.scan().digest() == find_source(same).scan().digest()
        made = make_split(f"{url}?{SIGNATURE}", tmp_path / "web", **options)  # type: ignore[arg-type]
        with pytest.raises(SourceError, match=r"--val-labels .*none\.txt") as caught:
            find_source(f"{url}?{SIGNATURE}", SourceOptions(val_labels=f"{url}/none.txt?{SIGNATURE}"))
        assert not secret(str(caught.value))
    assert shards_of(split_of(made)) == shards_of(split_of(make_split(same, tmp_path / "wanted", **options)))


def test_a_user_name_and_a_password(web: Path, wanted: dict[str, bytes], tmp_path: Path) -> None:
    with Hub(web, authorization=BASIC) as hub:
        url = f"http://me%40lab:s3cret%2Fword@{hub.host}"
        done = program(*SPLIT, f"{url}/set.tar", "--out", tmp_path / "out")
        assert done.returncode == 0, done.stderr
        assert split_of(tmp_path / "out") == wanted
        assert all(headers["authorization"] == BASIC for headers in hub.headers)
        without = fails(*SPLIT, f"{hub.url}/set.tar", cwd=tmp_path)
        wrong = fails(*SPLIT, f"http://me:s3cret@{hub.host}/set.tar", cwd=tmp_path)
        gone = fails(*SPLIT, f"{url}/none.tar", cwd=tmp_path)
        out = fails(*SPLIT, str(web), "--out", f"{url}/out?{SIGNATURE}", cwd=tmp_path)
        no_data = fails("spectral-prep", "info", f"{url}/sub4")
        store = open_store(f"{url}/shards")
        assert pickle.loads(pickle.dumps(store)).exists("set/set-000.tar")
        assert not secret(repr(store) + str(store) + repr(vars(store)) + repr(SourcePath.of(f"{url}/set.tar")))
    assert f"{hub.url}/set.tar: access was denied (401 Unauthorized): write http://user:password@" in without
    assert f"{hub.url}/set.tar: access was denied (401 Unauthorized): check the user name and the password" in wrong
    assert f"{hub.url}/none.tar does not exist" in gone
    assert f"{hub.url}/out?... can only be read" in out
    assert f"{hub.url}/sub4 has no manifest.json" in no_data
    with pytest.raises(StoreError, match="cannot be reached") as away:
        WebStore(Address.parse(f"{url}?{SIGNATURE}"), patience=1).size("set.tar")
    for text in (done.stdout, done.stderr, without, wrong, gone, out, no_data, str(away.value)):
        assert not secret(text)
    for name, data in tree(tmp_path / "out").items():
        assert not secret(data.decode("latin-1")), name


def test_credentials_are_not_sent_on(web: Path, wanted: dict[str, bytes], tmp_path: Path) -> None:
    with Hub(web, sign=SIGNATURE, head=403, host="127.0.0.2") as other, Hub(web, moved=other.url) as hub:
        assert splits(f"http://me%40lab:s3cret%2Fword@{hub.host}/set.tar", tmp_path / "out") == wanted
        assert all(headers["authorization"] == BASIC for headers in hub.headers)
        assert other.asked[-1] == ("GET", f"/set.tar?{SIGNATURE}")
        assert not any("authorization" in headers for headers in other.headers)
    with Hub(web, host="127.0.0.2") as other, Hub(web, moved=other.url) as hub:
        said = fails(*SPLIT, f"http://me:s3cret@{hub.host}/set.tar", cwd=tmp_path)
    assert "access was denied" in said
    assert not secret(said)


def test_a_server_with_an_ipv6_address(web: Path, wanted: dict[str, bytes], tmp_path: Path) -> None:
    try:
        hub = Hub(web, host="::1")
    except OSError:
        pytest.skip("there is no IPv6 here")
    with hub:
        assert splits(f"HTTP://{hub.host}/set.tar", tmp_path / "out") == wanted
        assert str(SourcePath.of(f"{hub.url}/set.tar")) == f"{hub.url}/set.tar"


def test_commands_on_a_signed_split(sub4: Path, photos: Path, tmp_path: Path) -> None:
    with Hub(sub4.parent, sign=SIGNATURE, authorization=BASIC, head=405) as hub:
        url = f"http://me%40lab:s3cret%2Fword@{hub.host}/sub4?{SIGNATURE}"
        here, there = (program("spectral-prep", "info", where).stdout for where in (sub4, url))
        assert there == here.replace(f"{sub4}:", f"{hub.url}/sub4?...:") != ""
        checked = program("spectral-prep", "verify", url, "--jobs", "2", "--against", photos, "--samples", "3")
        assert checked.returncode == 0, checked.stderr
        assert f"{hub.url}/sub4?...: 20 shards, 96 samples a band" in checked.stdout
        drawn = program("spectral-prep", "preview", url, "--out", tmp_path / "x.png", "--images", "1")
        assert drawn.returncode == 0, drawn.stderr
        assert open_data(url)[1].dataset == "photos"
        assert not any(secret(done.stdout + done.stderr) for done in (checked, drawn))
        assert not secret(there)


@pytest.mark.slow
def test_training_from_a_signed_split(sub4: Path, tmp_path: Path) -> None:
    tiny = ("--network", "cnn", "--recipe", "quick", "--epochs", "1", "--batch-size", "16", "--device", "cpu")
    tiny += ("--resident", "off")
    metrics = []
    with Hub(sub4.parent, sign=SIGNATURE, authorization=BASIC, head=403) as hub:
        url = f"http://me%40lab:s3cret%2Fword@{hub.host}/sub4"
        for number, shards in enumerate((f"{sub4}", f"{url}?{SIGNATURE}")):
            cwd = tmp_path / str(number)
            cwd.mkdir()
            done = program(
                "spectral-train", "--shards", shards, "--bands", "all", *tiny, "--workers", str(number), cwd=cwd
            )
            assert done.returncode == 0, done.stderr
            metrics.append(json.loads((cwd / "runs" / "sub4" / "01" / "metrics.jsonl").read_text())["val_loss"])
        assert metrics[0] == metrics[1]
        one = program("spectral-train", "--shards", f"{url}/01?{SIGNATURE}", *tiny, cwd=cwd)
        assert "is finished" in one.stdout, one.stderr
        assert not secret(done.stdout + done.stderr + one.stdout + one.stderr)
        for name, data in tree(cwd).items():
            assert not secret(data.decode("latin-1")), name
        assert urlsplit(hub.url).port
