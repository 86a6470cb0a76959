"""What a user writes for a place: the parts of a URL, and what of it may be printed."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from dataclasses import dataclass, field, replace
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

from ..errors import StoreError
from .providers import BUCKET_SCHEMES, BY_SCHEME, WEB_SCHEMES, url_choices
from .redact import hidden

_URL = re.compile(rf"[a-z][a-z0-9+.-]*://|({'|'.join(BY_SCHEME)}):", re.IGNORECASE)
_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]*")
_LITERAL = "/%:@!$&'()*+,;=~|^{}[]"  # sent as they are in a web path; the rest is sent as %XX


def is_url(path: str | os.PathLike[str]) -> bool:
    """Return True for what is not meant as a local path: scheme://..., and s3: or https: without the slashes."""
    return _URL.match(os.fspath(path)) is not None


@dataclass(frozen=True)
class Address:
    """A URL in parts. str() shows no credentials and no query: it may be printed. Pickles have both.

    Attributes:
        scheme: In lower case.
        host: The bucket, or the server with its port.
        path: Without a slash before or after it. Of a web server it is percent-encoded, as it is sent; of a bucket
            it is the key itself.
        query: With its question mark.
        authorization: The value of the header for a user name and a password.
    """

    scheme: str
    host: str
    path: str = ""
    query: str = field(default="", repr=False)
    authorization: str = field(default="", repr=False)

    @staticmethod
    def parse(url: str) -> Address:
        """Return the address that a user wrote. Raises StoreError, without printing what is secret."""
        scheme, _, rest = url.partition(":")
        scheme = scheme.lower()
        printed = hidden(url) if "@" not in url else f"{scheme}:..."  # what is before an @ may be a password
        if scheme not in BY_SCHEME:
            raise StoreError(f"{printed}: choose a local path or {url_choices((*BUCKET_SCHEMES, *WEB_SCHEMES))}")
        if url != url.strip() or not url.isprintable():
            raise StoreError(f"{printed!r} has white space at an end, or a line break or the like within: remove it")
        if not rest.startswith("//"):
            raise StoreError(f"{printed}: write {scheme}:// with two slashes, or ./{scheme}: for a local path")
        return _web(scheme, rest[2:]) if BY_SCHEME[scheme].web else _bucket(scheme, rest[2:])

    @property
    def web(self) -> bool:
        """True for a web server."""
        return BY_SCHEME[self.scheme].web

    @property
    def root(self) -> Address:
        """The bucket or the server without a path, with the same query and credentials."""
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
        """Return the address of `name` below this one."""
        return replace(self, path=f"{self.path}/{name}" if self.path and name else self.path or name)


def _bucket(scheme: str, rest: str) -> Address:
    bucket, _, key = rest.partition("/")
    url = f"{scheme}://{rest}"
    if not bucket:
        raise StoreError(f"{url} names no bucket: write {scheme}://bucket/folder")
    if not _BUCKET.fullmatch(bucket):
        hint = BY_SCHEME[scheme].bucket_hint if re.fullmatch(r"[^@]*:\d+", bucket) else ""
        raise StoreError(
            f"{hidden(url)}: the name of a bucket has only letters, digits, dots, hyphens and underscores: "
            f"write {scheme}://bucket/folder{hint}"
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
    path = quote(path.rstrip("/"), safe=_LITERAL)
    return Address(scheme, host, path, mark + query if query else "", authorization)


def shown(path: str | os.PathLike[str]) -> str:
    """Return a path or URL as it may be printed: without user name, password and query. Raises StoreError."""
    text = os.fspath(path)
    return Address.parse(text).shown if is_url(text) else text


def joined(path: str, name: str) -> str:
    """Return the path or URL of `name` in the folder `path`; it has the credentials and the query of that."""
    base, mark, query = path, "", ""
    if path.lower().startswith(WEB_SCHEMES) and is_url(path):
        base, mark, query = path.partition("#")[0].partition("?")
    return f"{base.rstrip('/')}/{name}{mark}{query}"


def url_names(url: str) -> list[str]:
    """Return the decoded names in a URL, without a web server's but with a bucket's. Raises StoreError."""
    address = Address.parse(url)
    if not address.web:
        return [address.host, *(part for part in address.path.split("/") if part)]
    return [unquote(part) for part in address.path.split("/") if part] or [address.host]
