"""What users write for a place: variables of object storage, public buckets, addresses of web servers."""

from __future__ import annotations

import base64
import json
import os
import pickle
import re
import socket
import sys
import threading
import types
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import forms
import obstore
import pytest
from buckets import BUCKET, HOST, Server, environment, free_ports
from conftest import class_folders, fails, make_split, program, tree
from test_forms import OPTIONS, WNIDS, ilsvrc, split_of

from preprocess.errors import SourceError
from preprocess.sources import SourceOptions, find_source
from preprocess.sources.place import Place
from shards_manifest import StoreError, is_url, joined, open_data, open_store, shown
from shards_manifest.address import Address, hidden, url_names
from shards_manifest.clients import connect
from shards_manifest.remote import RemoteStore
from shards_manifest.settings import settings
from shards_manifest.web import WebStore

SPLIT = ["spectral-prep", "split", "--factor", "4", "--size", "16", "--val-per-class", "2", "--jobs", "1"]
SPLIT += ["--samples-per-shard", "8", "--samples-per-block", "4"]
PASSWORD, SIGNATURE = "s3cret/word", "X-Sig=4f%2Fe%3D&Expires=9"
BASIC = "Basic " + base64.b64encode(f"me@lab:{PASSWORD}".encode()).decode()


class Hub:
    """A web server over a folder, which remembers what it was asked.

    sign: the query that every request needs.  authorization: the header that it needs.  head: the status of every
    HEAD.  moved: where every request is sent on to.  ranges: whether it can send parts of a file.
    """

    def __init__(
        self,
        folder: Path,
        sign: str = "",
        authorization: str = "",
        head: int = 200,
        moved: str = "",
        ranges: bool = True,
        host: str = HOST,
    ) -> None:
        self.asked: list[tuple[str, str]] = []  # method and path, as sent
        self.headers: list[dict[str, str]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def answer(self) -> None:
                target = self.requestline.split(" ")[1]  # self.path has lost a slash of two at its beginning
                hub.asked.append((self.command, target))
                hub.headers.append({name.lower(): value for name, value in self.headers.items()})
                path, _, query = target.partition("?")
                file = folder / unquote(path).lstrip("/")
                data, status = b"", 200
                extra: dict[str, str] = {}
                if moved:
                    status, extra = 302, {"Location": f"{moved}{path}?{SIGNATURE}"}
                elif authorization and self.headers.get("Authorization") != authorization:
                    status = 401
                elif query != sign:
                    status, data = 403, b"<Error><Code>AccessDenied</Code></Error>"
                elif self.command == "HEAD" and head != 200:
                    status = head
                elif not file.is_file():
                    status = 404
                else:
                    data = file.read_bytes()
                    wanted = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if ranges else None
                    if wanted and int(wanted[1]) >= len(data):
                        status, data = 416, b""
                    elif wanted:
                        first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
                        status, extra = 206, {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
                        data = data[first : last + 1]
                self.send_response(status)
                extra |= {"Content-Length": str(len(data)), "ETag": '"1"'}
                extra["Last-Modified"] = "Tue, 24 Nov 2026 00:00:00 GMT"
                for name, value in extra.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_HEAD = answer  # noqa: N815

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

            def handle_error(self, *_: object) -> None:
                pass

        self._server = Quiet((host, 0), Handler)
        self.host = f"[{host}]" if ":" in host else host
        self.host += f":{self._server.server_port}"
        self.url = f"http://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variables of object storage, no proxies, an empty home."""
    for name in os.environ:
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SPECTRAL_RETRY_SECONDS", "2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes by wnid."""
    return class_folders(tmp_path_factory.mktemp("folders") / "set", dict(zip(WNIDS, (6, 7, 5), strict=True)))


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


@pytest.fixture(scope="module")
def wanted(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return split_of(make_split(folders, tmp_path_factory.mktemp("wanted") / "out", **OPTIONS))


def splits(url: str, out: Path) -> dict[str, bytes]:
    return split_of(make_split(url, out, **OPTIONS))  # type: ignore[arg-type]


def shards_of(split: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in split.items() if name.endswith(".tar")}


def secret(text: str) -> bool:
    """True where a password or a signature, in any of its forms, is in a text."""
    return any(part in text for part in (PASSWORD, "s3cret", "X-Sig", "4f%2Fe", BASIC.split()[1], "Expires=9"))


# variables


@pytest.mark.parametrize(
    ("scheme", "name"),
    [
        *(("s3", name) for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AWS_ENDPOINT_URL_STS")),
        *(("s3", name) for name in ("AWS_METADATA_ENDPOINT", "AWS_CONTAINER_CREDENTIALS_FULL_URI")),
        *(("gs", name) for name in ("GOOGLE_BASE_URL",)),
        *(("az", name) for name in ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT", "AZURE_AUTHORITY_HOST")),
    ],
)
def test_addresses_in_variables(scheme: str, name: str) -> None:
    bad = (
        "minio:9000",
        " ",
        "http://h:1 ",
        " http://h:1",
        "nonsense",
        "http://",
        "ftp://h",
        "http://a b",
        "http://h:x",
    )
    for value in (*bad, "http://h:99999", "//h:1", "http://h\n", "https://h?x=1", "http://me:s3cret@h h"):
        with pytest.raises(StoreError, match=re.escape(f"{name}=")) as caught:
            settings(scheme, {name: value})
        assert "write it as in https://host:9000" in str(caught.value)
        assert not secret(str(caught.value))
    for value in ("http://h:1", "https://h/", "HTTP://h", "http://[::1]:9000", "https://user:pw@h/base"):
        assert value in settings(scheme, {name: value}).values()
    settings(scheme, {name: ""})


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    assert settings("s3", {"AWS_ENDPOINT_URL": "", "AWS_ENDPOINT": "http://h"})["endpoint"] == "http://h"
    assert settings("s3", {"AWS_ENDPOINT_URL": "http://h", "AWS_ENDPOINT_URL_S3": ""})["endpoint"] == "http://h"
    assert settings("s3", {"AWS_REGION": "", "AWS_DEFAULT_REGION": "eu-west-1"})["region"] == "eu-west-1"
    assert settings("s3", {"AWS_REGION": ""})["region"] == "us-east-1"
    assert settings("gs", {"GOOGLE_BASE_URL": ""}) == {"google_base_url": "https://storage.googleapis.com"}
    found = settings("az", {"AZURE_ENDPOINT": "", "AZURE_STORAGE_ACCOUNT_NAME": "acc"})
    assert found == {"endpoint": "https://acc.blob.core.windows.net"}
    for scheme, name in (("s3", "AWS_SKIP_SIGNATURE"), ("gs", "GOOGLE_SKIP_SIGNATURE"), ("az", "AZURE_SKIP_SIGNATURE")):
        assert settings(scheme, {name: ""}) == {name.lower(): "false"}
    assert settings("s3", {}) == settings("gs", {}) == settings("az", {}) == settings("https", {}) == {}
    assert settings("s3", {"HTTPS_PROXY": "", "no_proxy": "*"}) == {}


@pytest.mark.parametrize(
    ("scheme", "variable", "says"),
    [
        ("s3", "AWS_SKIP_SIGNATURE=maybe", "AWS_SKIP_SIGNATURE='maybe' is neither true nor false"),
        ("s3", "AWS_ALLOW_HTTP=2", "AWS_ALLOW_HTTP='2' is neither true nor false"),
        ("s3", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST= true", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST=' true' is neither"),
        ("gs", "GOOGLE_SKIP_SIGNATURE=oui", "GOOGLE_SKIP_SIGNATURE='oui' is neither"),
        ("az", "AZURE_STORAGE_USE_EMULATOR=-", "AZURE_STORAGE_USE_EMULATOR='-' is neither"),
        ("s3", "AWS_REGION=us east", "AWS_REGION='us east' is no name of a region"),
        ("s3", "AWS_DEFAULT_REGION=us-east-1\n", "AWS_DEFAULT_REGION="),
        ("s3", "AWS_REGION=us/east", "AWS_REGION="),
        ("s3", "AWS_SECRET_ACCESS_KEY=s3cret\n", "AWS_SECRET_ACCESS_KEY has white space"),
        ("s3", "AWS_ACCESS_KEY_ID=s3cret ", "AWS_ACCESS_KEY_ID has white space"),
        ("az", "AZURE_STORAGE_ACCOUNT_KEY= s3cret", "AZURE_STORAGE_ACCOUNT_KEY has white space"),
        ("s3", "HTTPS_PROXY=http://a b", "HTTPS_PROXY='http://a b' is no address of a proxy"),
        ("gs", "all_proxy=ftp://me:s3cret@proxy", "all_proxy='ftp://proxy' is no address of a proxy"),
        ("https", "http_proxy= ", "http_proxy=' ' is no address of a proxy"),
    ],
)
def test_other_values_that_cannot_be(scheme: str, variable: str, says: str) -> None:
    name, _, value = variable.partition("=")
    with pytest.raises(StoreError, match=re.escape(says)) as caught:
        settings(scheme, {name: value})
    assert not secret(str(caught.value))


def test_values_that_can_be() -> None:
    for value in ("proxy:3128", "http://me:pw@proxy:3128", "socks5h://proxy:1080", "127.0.0.1:1", "[::1]:3128"):
        assert settings("s3", {"HTTPS_PROXY": value}) == {}
    for value in ("true", "TRUE", "1", "yes", "on"):
        assert settings("s3", {"AWS_SKIP_SIGNATURE": value}) == {"aws_skip_signature": "true"}
    for value in ("auto", "eu-west-1", "RegionOne", "local.dc_2"):
        assert settings("s3", {"AWS_REGION": value}) == {}


def test_every_program_names_the_variable(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    url = f"s3://{BUCKET}/x"
    commands = (
        ["spectral-train", "--shards", url],
        [*SPLIT, str(folders), "--out", url],
        [*SPLIT, url],
        *(["spectral-prep", name, url] for name in ("info", "verify", "preview")),
    )
    for value, command in zip(("minio:9000", "http://h ", "http://h:x", "nonsense", " ", "h/x"), commands, strict=True):
        monkeypatch.setenv("AWS_ENDPOINT_URL", value)
        assert f"AWS_ENDPOINT_URL={value!r} is no web address" in fails(*command, cwd=tmp_path)
    for scheme, name in (("gs", "GOOGLE_BASE_URL"), ("az", "AZURE_STORAGE_ENDPOINT")):
        monkeypatch.setenv(name, "minio:9000")
        assert f"{name}='minio:9000' is no web address" in fails("spectral-prep", "info", f"{scheme}://{BUCKET}/x")


def test_empty_variables_beside_a_server(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(server.port).items():
        monkeypatch.setenv(name, value)
    empty = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION")
    for name in (*empty, "AWS_SKIP_SIGNATURE", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "HTTP_PROXY", "AWS_PROFILE"):
        monkeypatch.setenv(name, "")
    store = open_store(f"s3://{BUCKET}/empty-variables")
    store.write("x", b"1")
    assert store.read("x") == b"1"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "")
    monkeypatch.setenv("AWS_ENDPOINT", f"http://{HOST}:{server.port}")
    assert open_store(f"s3://{BUCKET}/empty-variables").read("x") == b"1"
    monkeypatch.setenv("AWS_ENDPOINT", "")
    for style, endpoint in (("", "s3.us-east-1"), ("true", f"{BUCKET}.s3.us-east-1")):
        monkeypatch.setenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", style)
        client = connect(Address.parse(f"s3://{BUCKET}"), 1, 1)
        assert client.config["endpoint"] == f"https://{endpoint}.amazonaws.com"  # type: ignore[union-attr]


def test_keys_that_are_half_there_or_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    for value in (None, ""):
        if value is not None:
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", value)
        with pytest.raises(StoreError, match="AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not: set both"):
            open_store(f"s3://{BUCKET}").read("x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "")
    with pytest.raises(StoreError, match="AWS_ACCESS_KEY_ID is empty, and there are no other credentials"):
        open_store(f"s3://{BUCKET}").read("x")


@pytest.mark.parametrize(
    ("url", "name", "value"),
    [
        ("s3://b/x", "AWS_CHECKSUM_ALGORITHM", "md4"),
        ("s3://b/x", "AWS_SERVER_SIDE_ENCRYPTION", ""),
        ("gs://b/x", "GOOGLE_APPLICATION_CREDENTIALS", "/no/such/file"),
        ("gs://b/x", "GOOGLE_APPLICATION_CREDENTIALS", ""),
        ("az://b/x", "AZURE_CREDENTIAL_TYPE", "guess"),
    ],
)
def test_what_a_client_cannot_be_made_with_is_named(
    url: str, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for given in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_ACCOUNT_NAME"):
        monkeypatch.setenv(given, "abcd")
    monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match=rf"{url} cannot be asked \(.*\): correct {name}, or unset it"):
        open_store(url).read("x")


def test_a_panic_is_a_sentence_and_an_interrupt_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from shards_manifest import clients

    monkeypatch.setattr(clients.settings, "settings", lambda scheme, environ: {})
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "key")
    store = open_store(f"s3://{BUCKET}/x")
    for value in ("minio:9000", "http://h h"):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", value)
        for ask in (store.read, store.exists, store.names, lambda name: store.write(name, b"")):
            with pytest.raises(StoreError, match=rf"s3://{BUCKET}/x cannot be asked .*AWS_\*"):
                ask("k")  # type: ignore[operator]
    assert isinstance(store, RemoteStore)
    for error in (KeyboardInterrupt, SystemExit):

        def stop(*_: object, error: type[BaseException] = error) -> None:
            raise error

        with pytest.raises(error):
            store.ask("k", stop)


# public buckets


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real S3 server with a bucket that everybody may read."""
    folder = tmp_path_factory.mktemp("public") / "data"
    folder.mkdir()
    server = Server(folder, public=True)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def test_a_public_bucket_needs_no_credentials(
    public: Server, folders: Path, wanted: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public.put(folders, "open/set")
    source = f"s3://{BUCKET}/open/set"
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{HOST}:{public.port}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://{HOST}:{free_ports(1)[0]}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "wrong")
    assert "AWS_SKIP_SIGNATURE=true for a public bucket" in fails(*SPLIT, source, cwd=tmp_path)
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    assert splits(source, tmp_path / "wrong-keys") == wanted
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert splits(source, tmp_path / "half-a-key") == wanted
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("[default]\naws_access_key_id = x\naws_secret_access_key = y\n")
    monkeypatch.setenv("AWS_PROFILE", "none")
    assert splits(source, tmp_path / "no-keys") == wanted
    assert "access was denied" in fails(*SPLIT, str(folders), "--out", f"s3://{BUCKET}/mine")


def test_the_shared_config_where_boto3_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong: list[Exception] = []

    class Provider:
        def __init__(self) -> None:
            if wrong:
                raise wrong[0]

        def __call__(self) -> None:
            raise AssertionError

    boto3 = types.ModuleType("obstore.auth.boto3")
    boto3.Boto3CredentialProvider = Provider  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "obstore.auth.boto3", boto3)

    def provider() -> object:
        return connect(Address.parse(f"s3://{BUCKET}"), 1, 1).credential_provider  # type: ignore[union-attr]

    assert provider() is None
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text("[default]\nregion = eu-west-3\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert isinstance(provider(), Provider)
        monkeypatch.setenv(name, "")
    assert isinstance(provider(), Provider)
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    assert not isinstance(provider(), Provider)
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "")
    wrong.append(RuntimeError("The config profile (none) could not be found"))
    with pytest.raises(StoreError, match=r"~/\.aws cannot be used: The config profile \(none\) could not be found"):
        provider()
    wrong[0] = ValueError("Received None")
    with pytest.raises(StoreError, match="AWS_ACCESS_KEY_ID is empty"):
        provider()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "key")
    assert provider() is None


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_no_signature_is_sent(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / BUCKET).mkdir()
    (tmp_path / BUCKET / "x").write_bytes(b"1234")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "acc")
    with Hub(tmp_path) as hub:
        name, cloud = {"s3": ("AWS_ENDPOINT_URL", "AWS"), "gs": ("GOOGLE_BASE_URL", "GOOGLE")}.get(
            scheme, ("AZURE_STORAGE_ENDPOINT", "AZURE")
        )
        monkeypatch.setenv(name, hub.url)
        monkeypatch.setenv(f"{cloud}_ALLOW_HTTP", "true")
        monkeypatch.setenv(f"{cloud}_SKIP_SIGNATURE", "true")
        assert open_store(f"{scheme}://{BUCKET}").read("x") == b"1234"
        assert hub.asked == [("GET", f"/{BUCKET}/x")]
        assert not any("authorization" in headers for headers in hub.headers)


# addresses


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
    for refuse in (open_store, shown, Place.of):
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
        assert Place.of(f"s3://{BUCKET}/literal/{key}/x").read() == key.encode()
        assert Place.of(f"s3://{BUCKET}/literal/{key}").name == key
    assert f"s3://Bucket/x: {'there is no such bucket'}" in fails("spectral-prep", "info", "S3://Bucket/x")


# web servers


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
        assert not secret(repr(store) + str(store) + repr(vars(store)) + repr(Place.of(f"{url}/set.tar")))
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
        assert str(Place.of(f"{hub.url}/set.tar")) == f"{hub.url}/set.tar"


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
    metrics = []
    with Hub(sub4.parent, sign=SIGNATURE, authorization=BASIC, head=403) as hub:
        url = f"http://me%40lab:s3cret%2Fword@{hub.host}/sub4"
        for number, shards in enumerate((f"{sub4}", f"{url}?{SIGNATURE}")):
            cwd = tmp_path / str(number)
            cwd.mkdir()
            done = program("spectral-train", "--shards", shards, *tiny, "--workers", str(number), cwd=cwd)
            assert done.returncode == 0, done.stderr
            metrics.append(json.loads((cwd / "runs" / "sub4" / "01" / "metrics.jsonl").read_text())["val_loss"])
        assert metrics[0] == metrics[1]
        one = program("spectral-train", "--shards", f"{url}/01?{SIGNATURE}", *tiny, cwd=cwd)
        assert "is finished" in one.stdout, one.stderr
        assert not secret(done.stdout + done.stderr + one.stdout + one.stderr)
        for name, data in tree(cwd).items():
            assert not secret(data.decode("latin-1")), name
        assert urlsplit(hub.url).port
