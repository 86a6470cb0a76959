"""The environment variables that obstore reads, checked before it does: it panics at some values, ignores others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from ..errors import StoreError
from .address import hidden

PREFIX = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
# names of one address, the one that counts first; the configuration key of obstore; what holds where none is set
_ADDRESSES = {
    "s3": (
        (ENDPOINTS, "endpoint", ""),
        (("AWS_ENDPOINT_URL_STS",), "aws_endpoint_url_sts", "https://sts.{region}.amazonaws.com"),
        (("AWS_METADATA_ENDPOINT",), "metadata_endpoint", "http://169.254.169.254"),
        (("AWS_CONTAINER_CREDENTIALS_FULL_URI",), "container_credentials_full_uri", ""),
    ),
    "gs": ((("GOOGLE_BASE_URL",), "google_base_url", "https://storage.googleapis.com"),),
    "az": (
        (("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"), "endpoint", "https://{account}.blob.core.windows.net"),
        (
            ("AZURE_STORAGE_AUTHORITY_HOST", "AZURE_AUTHORITY_HOST"),
            "authority_host",
            "https://login.microsoftonline.com",
        ),
        (
            ("AZURE_MSI_ENDPOINT", "AZURE_IDENTITY_ENDPOINT"),
            "msi_endpoint",
            "http://169.254.169.254/metadata/identity/oauth2/token",
        ),
    ),
}
_FLAGS = {
    "s3": (
        *("AWS_SKIP_SIGNATURE", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "AWS_UNSIGNED_PAYLOAD", "AWS_S3_EXPRESS"),
        *("AWS_IMDSV1_FALLBACK", "AWS_DISABLE_TAGGING", "AWS_DISABLE_BULK_DELETE", "AWS_REQUEST_PAYER"),
    ),
    "gs": ("GOOGLE_SKIP_SIGNATURE",),
    "az": (
        *("AZURE_SKIP_SIGNATURE", "AZURE_STORAGE_USE_EMULATOR", "AZURE_USE_FABRIC_ENDPOINT"),
        *("AZURE_USE_AZURE_CLI", "AZURE_DISABLE_TAGGING"),
    ),
}
ALLOW_HTTP = {"s3": "AWS_ALLOW_HTTP", "gs": "GOOGLE_ALLOW_HTTP", "az": "AZURE_ALLOW_HTTP"}
SKIP_SIGNATURE = {"s3": "AWS_SKIP_SIGNATURE", "gs": "GOOGLE_SKIP_SIGNATURE", "az": "AZURE_SKIP_SIGNATURE"}
# what goes into headers: never printed
_SECRETS = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_TOKEN"),
    "gs": ("GOOGLE_BEARER_TOKEN",),
    "az": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_TOKEN"),
}
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
REGION = "us-east-1"  # obstore's own default
_TRUE, _FALSE = ("1", "true", "on", "yes", "y"), ("0", "false", "off", "no", "n")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")


def settings(scheme: str, environ: Mapping[str, str]) -> dict[str, str]:
    """What to tell obstore for the variables of a cloud, so that an empty one is as good as one that is not set.

    scheme: s3, gs or az; for another the proxies alone are checked.  environ: the environment.  Raises StoreError,
    naming the variable, for a value that obstore would panic at, refuse, or ignore.
    """
    for name in (*_PROXIES, *(name.upper() for name in _PROXIES)):
        if value := environ.get(name, ""):
            _check_proxy(name, value)
    if scheme not in PREFIX:
        return {}
    for name in _SECRETS[scheme]:
        if re.search(r"[^!-~]", environ.get(name, "")):
            raise StoreError(f"{name} has white space or other characters that no key has: copy the key alone")
    told = {name.lower(): str(flag(name, environ)).lower() for name in _FLAGS[scheme] if name in environ}
    flag(ALLOW_HTTP[scheme], environ)
    known = {"region": _region(environ), "account": environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")}
    if scheme == "az" and environ.get("AZURE_STORAGE_ACCOUNT_NAME") == "":
        raise StoreError("AZURE_STORAGE_ACCOUNT_NAME is empty: set it to the name of the storage account, or unset it")
    if scheme == "s3" and any(environ.get(name) == "" for name in _REGIONS):
        told["region"] = known["region"]
    for names, key, default in _ADDRESSES[scheme]:
        told |= _address(names, key, default.format(**known), environ)
    return told


def flag(name: str, environ: Mapping[str, str]) -> bool:
    """The value of a variable that is true or false. Raises StoreError for another."""
    value = environ.get(name, "")
    if value and value.lower() not in _TRUE + _FALSE:
        raise StoreError(f"{name}={value!r} is neither true nor false: set it to one of them, or unset it")
    return value.lower() in _TRUE


def endpoint(bucket: str, environ: Mapping[str, str]) -> str:
    """Where S3 has a bucket when no endpoint is named."""
    region = _region(environ)
    if flag("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", environ):
        return f"https://{bucket}.s3.{region}.amazonaws.com"
    return f"https://s3.{region}.amazonaws.com"


def proxy(scheme: str, environ: Mapping[str, str]) -> str:
    """The name of the variable whose proxy a request goes by, or empty."""
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
    return next((name for name in names if environ.get(name)), "")


def suspects(scheme: str, environ: Mapping[str, str], text: str) -> list[str]:
    """The variables of a cloud whose value an error quotes; all that are set where it quotes none."""
    names = sorted(name for name in environ if name.startswith(PREFIX.get(scheme, " ")))
    quoted = [name for name in names if re.search(rf"[\"': ]{re.escape(environ[name])}[\"':.]", text)]
    return [name for name in quoted if environ[name]] or quoted or names


def _region(environ: Mapping[str, str]) -> str:
    for name in _REGIONS:
        value = environ.get(name, "")
        if value and not re.fullmatch(r"[A-Za-z0-9._-]+", value):
            raise StoreError(f"{name}={value!r} is no name of a region: write it as in {REGION}, without white space")
    return next((environ[name] for name in _REGIONS if environ.get(name)), REGION)


def _address(names: tuple[str, ...], key: str, default: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The configuration for one address: the first name that is not empty, else the default if one was empty."""
    there = {name: environ[name] for name in names if name in environ}
    for name, value in there.items():
        if value and not _is_web(value):
            raise StoreError(
                f"{name}={hidden(value)!r} is no web address: write it as in https://host:9000, without white space"
            )
    value = next((value for value in there.values() if value), default if there else "")
    return {key: value} if value else {}


def _is_web(value: str) -> bool:
    return _is_url(value, ("http", "https"))


def _check_proxy(name: str, value: str) -> None:
    if not _is_url(value if "://" in value else f"http://{value}", _PROXY_SCHEMES):
        raise StoreError(
            f"{name}={hidden(value)!r} is no address of a proxy: write it as in http://host:3128, or unset it"
        )


def _is_url(value: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(value)
        named = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
    named = named and parts.scheme in schemes and not parts.query and not parts.fragment
    return named and re.search(r"[^!-~]|[\\<>\"^`{|}]", value) is None
