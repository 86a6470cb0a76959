"""Connections to object storage, and what is said of their failures. What the providers differ in is in providers/."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from obstore.exceptions import BaseError, NotSupportedError, PermissionDeniedError, UnauthenticatedError

from ..errors import StoreError
from . import environment
from .address import Address
from .providers import BY_SCHEME
from .providers.base import ClientRequest, Provider, flag
from .redact import hidden

if TYPE_CHECKING:
    from obstore.store import BackoffConfig, ClientConfig, ObjectStore, RetryConfig

AGAIN = "run the same command again to go on"


def connect(address: Address, patience: float, timeout: float) -> ObjectStore:
    """Return a client for the objects below `address`; nothing is asked of the server yet.

    Args:
        address: A bucket or a web server, with a path.
        patience: Seconds after which a request that fails is not tried again.
        timeout: Seconds of a single try.

    Raises:
        StoreError: A variable or the address is not what it has to be.
    """
    provider = BY_SCHEME[address.scheme]
    options = environment.settings(address.scheme, os.environ)
    pauses: BackoffConfig = {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2}
    retry: RetryConfig = {
        "max_retries": 1000,  # time is the limit
        "retry_timeout": timedelta(seconds=patience),
        "backoff": pauses,
    }
    client: ClientConfig = {
        "allow_http": address.scheme == "http" or flag(provider.allow_http, os.environ),
        "connect_timeout": timedelta(seconds=5),
        "timeout": timedelta(seconds=timeout),
    }
    if address.authorization:
        client["default_headers"] = {"authorization": address.authorization}  # not sent on to another server
    try:
        return provider.connect(
            ClientRequest(address.host, address.path, address.request, options, os.environ, client, retry)
        )
    except (BaseError, ValueError) as error:
        raise StoreError(_misconfigured(address, str(error))) from None
    except BaseException as error:
        if not panicked(error):
            raise
        raise StoreError(panic(address, error)) from None


def panicked(error: BaseException) -> bool:
    """Return True for what obstore's library raises at its own mistakes, which is no Exception."""
    return type(error).__name__ == "PanicException"


def panic(address: Address, error: BaseException) -> str:
    """Return one sentence for a panic."""
    prefix = BY_SCHEME[address.scheme].prefix
    where = f", the variables {prefix}*" if prefix else ""
    reason = hidden(_short(str(error)))
    return f"{address.shown} cannot be asked ({reason}): check the address{where} and the proxies"


def _misconfigured(address: Address, text: str) -> str:
    """Return one sentence for a client that cannot be made."""
    text = text.partition("\n\nDebug source:")[0].strip()
    provider = BY_SCHEME[address.scheme]
    if any(mark in text for mark in provider.no_credentials):
        return _no_credentials(address, provider)
    names = environment.suspects(address.scheme, os.environ, text)
    reason = hidden(text.partition("error: ")[2] or text).rstrip(".")
    checks = ", ".join(names) or "the address"
    return f"{address.shown} cannot be asked ({reason}): correct {checks}" + (
        ", or unset it" if len(names) == 1 else ""
    )


def _no_credentials(address: Address, provider: Provider) -> str:
    return f"{address.shown}: no credentials were found: {provider.missing_credentials}"


def refusal(address: Address, error: Exception) -> tuple[str, bool]:
    """Return one sentence for a failed request, and whether it may pass if it is tried again.

    The sentence is empty for an object that is not there in a bucket that is.
    """
    provider, url = BY_SCHEME[address.scheme], address.shown
    text, _, details = hidden(str(error)).partition("\n\nDebug source:")
    status = re.search(r"status code: (\d{3}[\w ]*)", text)
    code = re.search(r"<Code>(\w+)</Code>", text)
    said = code[1] if code else status[1].strip() if status else ""
    if said in ("NoSuchBucket", "ContainerNotFound", "InvalidBucketName") or "specified bucket does not" in text:
        return f"{url}: there is no such bucket: create it, or correct its name", False
    if isinstance(error, FileNotFoundError):
        return "", False
    if any(mark in text or mark in details for mark in provider.no_credentials):
        return _no_credentials(address, provider), False
    denied = status is not None and status[1][:3] in ("401", "403")
    if denied or isinstance(error, (PermissionDeniedError, UnauthenticatedError)):
        what_to_do = provider.access_denied(
            f"{address.scheme}://{address.host}", bool(address.authorization), bool(address.query)
        )
        return f"{url}: access was denied ({said or 'no reason given'}): {what_to_do}", False
    if "BadScheme" in details or "URL scheme is not allowed" in details:
        return f"{url}: the endpoint is plain http: set {provider.allow_http}=true to allow that", False
    elsewhere = said in ("PermanentRedirect", "AuthorizationHeaderMalformed") or "incorrectly configured region" in text
    if elsewhere and provider.region_hint:
        return f"{url}: the bucket is in another region: {provider.region_hint}", False
    if isinstance(error, NotSupportedError):
        return f"{url}: the server cannot do what is needed ({_short(text)})", False
    if said:
        passing = said[0] == "5" or (status is not None and status[1][0] == "5") or said in ("RequestTimeout",)
        return f"{url}: the server answered {said}: {AGAIN}", passing
    if "HTTP error" in text or "error sending request" in text or isinstance(error, OSError):
        asked = re.search(r"https?://\S+", text)
        parts = urlsplit(asked[0] if asked else address.request)
        by = environment.proxy(parts.scheme, os.environ)
        checks = f"the address, the network and the proxy in {by}" if by else "the address and the network"
        what = f"{parts.netloc or 'the server'} cannot be reached, or breaks off ({_cause(text, details)})"
        return f"{url}: {what}: check {checks}, and {AGAIN}", True
    return f"{url}: {_short(text)}: {AGAIN}", True


def _cause(text: str, details: str) -> str:
    """Return the innermost reason that the libraries below give."""
    for pattern in (r'message: "([^"]+)"', r"kind: (\w*(?:Timeout|Reset|Refused)\w*)", r'error: "([^"]+)"'):
        found = re.findall(pattern, details)
        if found:
            return str(found[-1])
    if "TimedOut" in details:
        return "it took too long"
    if "dns error" in details:
        return "its name is unknown"
    return _short(text)


def _short(text: str) -> str:
    """Return the end of an error's first line, where the reason is."""
    line = (text.strip().splitlines() or ["no reason given"])[0]
    return line.rpartition(" - ")[2].rpartition("error: ")[2].strip() or line
