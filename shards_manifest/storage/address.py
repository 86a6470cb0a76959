"""What a user writes for a place: the parts of a URL, and what of it may be printed."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from dataclasses import dataclass, field, replace
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

from ..errors import StoreError

BUCKETS = ("s3", "gs", "az")
WEB = ("http", "https")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://|(s3|gs|az|https?):", re.IGNORECASE)
_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]*")
_KEPT = "/%:@!$&'()*+,;=~|^{}[]"  # of a web path: the rest is sent as %XX


def is_url(path: str | os.PathLike[str]) -> bool:
    """True for what is not meant as a local path: scheme://..., and s3: or https: with slashes missing."""
    return _URL.match(os.fspath(path)) is not None


@dataclass(frozen=True)
class Address:
    """A URL in parts. str() shows no credentials and no query: it may be printed. Pickles with both.

    scheme: in lower case.  host: the bucket, or the server with its port.  path: without a slash before or after it;
    of a web server percent-encoded, as it is sent, of a bucket the key itself.  query: with its question mark.
    authorization: the header's value for a user name and a password.
    """

    scheme: str
    host: str
    path: str = ""
    query: str = field(default="", repr=False)
    authorization: str = field(default="", repr=False)

    @staticmethod
    def parse(url: str) -> Address:
        """The address that a user wrote. Raises StoreError, without printing what is secret."""
        scheme, _, rest = url.partition(":")
        scheme = scheme.lower()
        printed = hidden(url) if "@" not in url else f"{scheme}:..."  # what is before an @ may be a password
        if scheme not in (*BUCKETS, *WEB):
            raise StoreError(f"{printed}: choose a local path or s3://, gs://, az://, http:// or https://")
        if url != url.strip() or not url.isprintable():
            raise StoreError(f"{printed!r} has white space at an end, or a line break or the like within: remove it")
        if not rest.startswith("//"):
            raise StoreError(f"{printed}: write {scheme}:// with two slashes, or ./{scheme}: for a local path")
        return _web(scheme, rest[2:]) if scheme in WEB else _bucket(scheme, rest[2:])

    @property
    def web(self) -> bool:
        """True for a web server."""
        return self.scheme in WEB

    @property
    def root(self) -> Address:
        """The bucket or the server alone, with the same query and credentials."""
        return replace(self, path="")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}" + (f"/{self.path}" if self.path else "")

    @property
    def shown(self) -> str:
        """What is printed, with ?... where there is a query."""
        return f"{self}?..." if self.query else str(self)

    @property
    def request(self) -> str:
        """What is asked for: with the query, which may be secret; without the credentials."""
        return f"{self.scheme}://{self.host}/{self.path}{self.query}"

    def at(self, name: str) -> Address:
        """What is called `name` below this."""
        return replace(self, path=f"{self.path}/{name}" if self.path and name else self.path or name)


def _bucket(scheme: str, rest: str) -> Address:
    bucket, _, key = rest.partition("/")
    url = f"{scheme}://{rest}"
    if not bucket:
        raise StoreError(f"{url} names no bucket: write {scheme}://bucket/folder")
    if not _BUCKET.fullmatch(bucket):
        server = ""
        if scheme == "s3" and re.fullmatch(r"[^@]*:\d+", bucket):
            server = ", and the address of a server in AWS_ENDPOINT_URL"
        raise StoreError(
            f"{hidden(url)}: the name of a bucket has only letters, digits, dots, hyphens and underscores: "
            f"write {scheme}://bucket/folder{server}"
        )
    key = key.rstrip("/")
    odd = next((piece for piece in key.split("/") if piece in ("", ".", "..")), None) if key else None
    if odd is not None:
        what = f"the name {odd}" if odd else "an empty name"
        raise StoreError(f"{url} has {what} between slashes: write {scheme}://bucket/folder")
    return Address(scheme, bucket, key)


def _web(scheme: str, rest: str) -> Address:
    rest = rest.partition("#")[0]
    rest, mark, query = rest.partition("?")
    server, _, path = rest.partition("/")
    user, at, host = server.rpartition("@")
    try:
        parts = urlsplit(f"{scheme}://{host}")
        named = bool(parts.hostname) and not re.search(r"[\s%\\]", host)
        named = named and (parts.port is None or parts.port > 0)
    except ValueError:
        named = False
    if not named:
        # a password with a slash in it may be what is wrong, so nothing of the address is printed
        raise StoreError(
            f"a {scheme}:// address names no server, or has no number for a port: write {scheme}://host/path, "
            "and in a password %2F for /, %3F for ?, %23 for #"
        )
    authorization = ""
    if at:
        name, _, password = user.partition(":")
        pair = unquote_to_bytes(name) + b":" + unquote_to_bytes(password)
        authorization = f"Basic {b64encode(pair).decode()}"
    path = quote(path.rstrip("/"), safe=_KEPT)
    return Address(scheme, host, path, mark + query if query else "", authorization)


def shown(path: str | os.PathLike[str]) -> str:
    """A path or URL as it may be printed: without user name, password and query. Raises StoreError."""
    text = os.fspath(path)
    return Address.parse(text).shown if is_url(text) else text


def joined(path: str, name: str) -> str:
    """What is called `name` in the folder `path`, a local path or a URL, whose credentials and query it keeps."""
    base, mark, query = path, "", ""
    if path.lower().startswith(WEB) and is_url(path):
        base, mark, query = path.partition("#")[0].partition("?")
    return f"{base.rstrip('/')}/{name}{mark}{query}"


def url_names(url: str) -> list[str]:
    """The names that a URL consists of, decoded, without the server; of a bucket with the bucket. Raises StoreError."""
    address = Address.parse(url)
    if not address.web:
        return [address.host, *(part for part in address.path.split("/") if part)]
    return [unquote(part) for part in address.path.split("/") if part] or [address.host]


def hidden(text: str) -> str:
    """`text` without the user names, passwords and queries of the URLs in it."""
    text = re.sub(r"(\w+:/{0,2})[^\s/\"'<>]*@", r"\1", text)
    return re.sub(r"(https?:[^\s?\"'<>]*)\?[^\s\"'<>]*", r"\1?...", text, flags=re.IGNORECASE)
