"""Connections to object storage, and what is said of their failures. Credentials come from the clouds' usual places."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from obstore.exceptions import BaseError, NotSupportedError, PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

from ..errors import StoreError
from . import environment as settings
from .address import Address, hidden

if TYPE_CHECKING:
    from obstore.store import (
        AzureConfig,
        BackoffConfig,
        ClientConfig,
        GCSConfig,
        ObjectStore,
        RetryConfig,
        S3Config,
        S3Credential,
        S3CredentialProvider,
    )

CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL where it is not Amazon's)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
PUBLIC = {scheme: f"{name}=true for a public bucket" for scheme, name in settings.SKIP_SIGNATURE.items()}
CHAIN = (  # of S3's credentials; obstore goes by what is set, even if it is empty
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"),
    *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
)
AGAIN = "run the same command again to go on"


def connect(address: Address, patience: float, timeout: float) -> ObjectStore:
    """A client for the objects below `address`; nothing is asked of the server yet. Raises StoreError.

    patience: seconds after which a request that fails is not tried again.  timeout: seconds of a single try.
    """
    scheme = address.scheme
    told = settings.settings(scheme, os.environ)
    pauses: BackoffConfig = {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2}
    retry: RetryConfig = {
        "max_retries": 1000,  # time is the limit
        "retry_timeout": timedelta(seconds=patience),
        "backoff": pauses,
    }
    client: ClientConfig = {
        "allow_http": scheme == "http" or settings.flag(settings.ALLOW_HTTP.get(scheme, ""), os.environ),
        "connect_timeout": timedelta(seconds=5),
        "timeout": timedelta(seconds=timeout),
    }
    if address.authorization:
        client["default_headers"] = {"authorization": address.authorization}  # not sent on to another server
    try:
        if scheme == "s3":
            return _s3(address, told, client, retry)
        if scheme == "gs":
            google = cast("GCSConfig", told)
            return GCSStore(address.host, prefix=address.path, config=google, client_options=client, retry_config=retry)
        if scheme == "az":
            azure = cast("AzureConfig", told)
            return AzureStore(
                address.host, prefix=address.path, config=azure, client_options=client, retry_config=retry
            )
        return HTTPStore.from_url(address.request, client_options=client, retry_config=retry)
    except (BaseError, ValueError) as error:
        raise StoreError(_misconfigured(address, str(error))) from None
    except BaseException as error:
        if not panicked(error):
            raise
        raise StoreError(panic(address, error)) from None


def _s3(address: Address, told: dict[str, str], client: ClientConfig, retry: RetryConfig) -> S3Store:
    empty = [name for name in settings.ENDPOINTS if os.environ.get(name) == ""]
    if empty and "endpoint" not in told:
        told["endpoint"] = settings.endpoint(address.host, os.environ)
    if "endpoint" in told:
        told["aws_endpoint_url_s3"] = told["endpoint"]
    return S3Store(
        address.host,
        prefix=address.path,
        config=cast("S3Config", told),
        client_options=client,
        retry_config=retry,
        credential_provider=_s3_credentials(os.environ),
    )


def _s3_credentials(environ: Mapping[str, str]) -> S3CredentialProvider | None:
    """Where obstore does not find what the environment says by itself. Raises StoreError."""
    key, secret = environ.get("AWS_ACCESS_KEY_ID", ""), environ.get("AWS_SECRET_ACCESS_KEY", "")
    if settings.flag("AWS_SKIP_SIGNATURE", environ):
        return _fixed("", "")  # never asked for; but half a key in the environment would be refused
    if key and secret:
        unset = any(environ.get(name) == "" for name in ("AWS_SESSION_TOKEN", "AWS_TOKEN"))
        return _fixed(key, secret) if unset else None
    if key or secret:
        there, missing = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")[:: 1 if key else -1]
        raise StoreError(f"{there} is set, but {missing} is not: set both, or {PUBLIC['s3']}")
    provider = _shared_config(environ)
    empty = next((name for name in CHAIN if environ.get(name) == ""), None)
    if provider is None and empty:
        raise StoreError(f"{empty} is empty, and there are no other credentials: set or unset it, or {PUBLIC['s3']}")
    return provider


def _fixed(key: str, secret: str) -> S3CredentialProvider:
    def credentials() -> S3Credential:
        return {"access_key_id": key, "secret_access_key": secret, "token": None, "expires_at": None}

    return credentials


def _shared_config(environ: Mapping[str, str]) -> S3CredentialProvider | None:
    """Credentials from ~/.aws, which boto3 reads, where there are any. Raises StoreError."""
    folder = Path.home() / ".aws"
    if not (environ.get("AWS_PROFILE") or (folder / "credentials").exists() or (folder / "config").exists()):
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        return None
    try:
        return Boto3CredentialProvider()
    except ValueError:  # no credentials there, a region perhaps
        return None
    except Exception as error:  # botocore's own errors: no such profile, a file that cannot be parsed
        raise StoreError(f"~/.aws cannot be used: {error}: correct it, or AWS_PROFILE") from None


def panicked(error: BaseException) -> bool:
    """True for what obstore's library raises at its own mistakes, which is no Exception."""
    return type(error).__name__ == "PanicException"


def panic(address: Address, error: BaseException) -> str:
    """One sentence for a panic."""
    where = f", the variables {settings.PREFIX[address.scheme]}*" if address.scheme in settings.PREFIX else ""
    reason = hidden(_short(str(error)))
    return f"{address.shown} cannot be asked ({reason}): check the address{where} and the proxies"


def _misconfigured(address: Address, text: str) -> str:
    """One sentence for a client that cannot be made."""
    text = text.partition("\n\nDebug source:")[0].strip()
    if "Account must be specified" in text:
        return _no_credentials(address)
    names = settings.suspects(address.scheme, os.environ, text)
    reason = hidden(text.partition("error: ")[2] or text).rstrip(".")
    checks = ", ".join(names) or "the address"
    return f"{address.shown} cannot be asked ({reason}): correct {checks}" + (
        ", or unset it" if len(names) == 1 else ""
    )


def _no_credentials(address: Address) -> str:
    scheme = address.scheme
    hint = "; ~/.aws is read where boto3 is installed" if scheme == "s3" else ""
    return f"{address.shown}: no credentials were found: set {CREDENTIALS[scheme]}, or {PUBLIC[scheme]}{hint}"


def _denied(address: Address, said: str) -> str:
    if not address.web:
        return f": check {CREDENTIALS[address.scheme]}; {PUBLIC[address.scheme]}"
    if address.authorization:
        return ": check the user name and the password of the address"
    if address.query:
        return ": the signed link may have ended, or is cut: fetch another"
    return f": write {address.scheme}://user:password@{address.host}/..., or take a signed link"


def refusal(address: Address, error: Exception) -> tuple[str, bool]:
    """One sentence for a failed request, and whether it may pass if it is tried again.

    The sentence is empty for an object that is not there in a bucket that is.
    """
    scheme, url = address.scheme, address.shown
    text, _, details = hidden(str(error)).partition("\n\nDebug source:")
    status = re.search(r"status code: (\d{3}[\w ]*)", text)
    code = re.search(r"<Code>(\w+)</Code>", text)
    said = code[1] if code else status[1].strip() if status else ""
    if said in ("NoSuchBucket", "ContainerNotFound", "InvalidBucketName") or "specified bucket does not" in text:
        return f"{url}: there is no such bucket: create it, or correct its name", False
    if isinstance(error, FileNotFoundError):
        return "", False
    if "169.254.169.254" in text or "MissingAccount" in details or "metadata.google" in text:
        return _no_credentials(address), False
    denied = status is not None and status[1][:3] in ("401", "403")
    if denied or isinstance(error, (PermissionDeniedError, UnauthenticatedError)):
        return f"{url}: access was denied ({said or 'no reason given'}){_denied(address, said)}", False
    if "BadScheme" in details or "URL scheme is not allowed" in details:
        return f"{url}: the endpoint is plain http: set {settings.ALLOW_HTTP.get(scheme)}=true to allow that", False
    if said in ("PermanentRedirect", "AuthorizationHeaderMalformed") or "incorrectly configured region" in text:
        return f"{url}: the bucket is in another region: set AWS_REGION to it", False
    if isinstance(error, NotSupportedError):
        return f"{url}: the server cannot do what is needed ({_short(text)})", False
    if said:
        passing = said[0] == "5" or (status is not None and status[1][0] == "5") or said in ("RequestTimeout",)
        return f"{url}: the server answered {said}: {AGAIN}", passing
    if "HTTP error" in text or "error sending request" in text or isinstance(error, OSError):
        asked = re.search(r"https?://\S+", text)
        parts = urlsplit(asked[0] if asked else address.request)
        by = settings.proxy(parts.scheme, os.environ)
        checks = f"the address, the network and the proxy in {by}" if by else "the address and the network"
        what = f"{parts.netloc or 'the server'} cannot be reached, or breaks off ({_cause(text, details)})"
        return f"{url}: {what}: check {checks}, and {AGAIN}", True
    return f"{url}: {_short(text)}: {AGAIN}", True


def _cause(text: str, details: str) -> str:
    """The innermost reason that the libraries below give."""
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
    """The end of an error's first line, where the reason stands."""
    line = (text.strip().splitlines() or ["no reason given"])[0]
    return line.rpartition(" - ")[2].rpartition("error: ")[2].strip() or line
