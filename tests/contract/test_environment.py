"""The environment of object storage: values that cannot be, empty ones, public buckets."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from spectral_shards.shards_manifest.errors import StoreError
from spectral_shards.shards_manifest.storage.address import Address
from spectral_shards.shards_manifest.storage.clients import connect
from spectral_shards.shards_manifest.storage.environment import settings
from spectral_shards.shards_manifest.storage.object_store import RemoteStore
from spectral_shards.shards_manifest.storage.opening import open_store
from support.buckets import BUCKET, HOST, Server, environment, free_ports
from support.forms import SPLIT
from support.hubs import Hub, secret
from support.programs import fails
from support.splits import splits

pytestmark = pytest.mark.usefixtures("bare")


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


def test_time_limits_are_read_when_a_store_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, use in (
        ("SPECTRAL_RETRY_SECONDS", lambda: open_store("s3://b/x")),
        ("SPECTRAL_LEASE_SECONDS", lambda: open_store("s3://b/x").owning("rows").__enter__()),
    ):
        monkeypatch.setenv(name, "soon")
        with pytest.raises(StoreError, match=f"{name}='soon' is no number of seconds"):
            use()
        monkeypatch.setenv(name, "2")


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
    from spectral_shards.shards_manifest.storage import clients

    monkeypatch.setattr(clients.environment, "settings", lambda scheme, environ: {})
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
        server.kill()


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
