"""Environment variables, checked before obstore reads them: it panics at some values, and ignores others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from ..errors import StoreError
from .providers import BY_SCHEME
from .providers.base import AddressVariable, flag
from .redact import hidden

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")


def settings(scheme: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return what to pass to obstore, so that an empty variable is as good as one that is not set.

    Args:
        scheme: Of a URL, as s3.
        environ: The environment.

    Returns:
        Values by the configuration keys of obstore.

    Raises:
        StoreError: A value that obstore would panic at, refuse, or ignore; the sentence names its variable.
    """
    for name in (*_PROXIES, *(name.upper() for name in _PROXIES)):
        if value := environ.get(name, ""):
            _check_proxy(name, value)
    provider = BY_SCHEME[scheme]
    for name in provider.secrets:
        if re.search(r"[^!-~]", environ.get(name, "")):
            raise StoreError(f"{name} has white space or other characters that no key has: copy the key alone")
    options = {name.lower(): str(flag(name, environ)).lower() for name in provider.flags if name in environ}
    flag(provider.allow_http, environ)
    known = provider.known(environ)
    options |= provider.more_settings(environ)
    for variable in provider.addresses:
        options |= _address(variable, known, environ)
    return options


def seconds(name: str, default: float, environ: Mapping[str, str]) -> float:
    """Return a time limit in seconds from a variable, or `default` where it is not set. Raises StoreError."""
    value = environ.get(name, "")
    try:
        return float(value) if value else default
    except ValueError:
        raise StoreError(f"{name}={value!r} is no number of seconds: correct it, or unset it") from None


def proxy(scheme: str, environ: Mapping[str, str]) -> str:
    """Return the name of the variable whose proxy a request goes by; empty for none."""
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
    return next((name for name in names if environ.get(name)), "")


def suspects(scheme: str, environ: Mapping[str, str], text: str) -> list[str]:
    """Return the variables of a provider whose value an error quotes; all that are set where it quotes none."""
    prefix = BY_SCHEME[scheme].prefix
    names = sorted(name for name in environ if prefix and name.startswith(prefix))
    quoted = [name for name in names if re.search(rf"[\"': ]{re.escape(environ[name])}[\"':.]", text)]
    return [name for name in quoted if environ[name]] or quoted or names


def _address(variable: AddressVariable, known: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return one address: the first that is not empty, else the default if a variable is set and empty."""
    values = {name: environ[name] for name in variable.names if name in environ}
    for name, value in values.items():
        if value and not _is_web(value):
            raise StoreError(
                f"{name}={hidden(value)!r} is no web address: write it as in https://host:9000, without white space"
            )
    default = variable.default.format(**known) if values else ""
    value = next((value for value in values.values() if value), default)
    return {variable.key: value} if value else {}


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
