"""Connections to object storage, and what is said of their failures. Credentials come from the clouds' usual places."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from obstore.exceptions import BaseError, NotSupportedError, PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

from .errors import StoreError

if TYPE_CHECKING:
    from obstore.store import BackoffConfig, ClientConfig, ObjectStore, RetryConfig, S3CredentialProvider

CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL where it is not Amazon's)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
ALLOW_HTTP = {"s3": "AWS_ALLOW_HTTP", "gs": "GOOGLE_ALLOW_HTTP", "az": "AZURE_ALLOW_HTTP"}
AGAIN = "run the same command again to go on"


def connect(url: str, patience: float, timeout: float) -> ObjectStore:
    """A client for the objects below `url`; nothing is asked of the server yet. Raises StoreError.

    patience: seconds after which a request that fails is not tried again.  timeout: seconds of a single try.
    """
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    if not bucket:
        raise StoreError(f"{url} names no bucket: write {scheme}://bucket/folder")
    pauses: BackoffConfig = {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2}
    retry: RetryConfig = {
        "max_retries": 1000,  # time is the limit
        "retry_timeout": timedelta(seconds=patience),
        "backoff": pauses,
    }
    plain = os.environ.get(ALLOW_HTTP.get(scheme, ""), "").lower() in ("1", "true", "yes")
    client: ClientConfig = {
        "allow_http": plain or scheme == "http",
        "connect_timeout": timedelta(seconds=5),
        "timeout": timedelta(seconds=timeout),
    }
    try:
        if scheme == "s3":
            provider = _shared_config()
            return S3Store(
                bucket, prefix=prefix, client_options=client, retry_config=retry, credential_provider=provider
            )
        if scheme == "gs":
            return GCSStore(bucket, prefix=prefix, client_options=client, retry_config=retry)
        if scheme == "az":
            return AzureStore(bucket, prefix=prefix, client_options=client, retry_config=retry)
        return HTTPStore.from_url(url, client_options=client, retry_config=retry)
    except (BaseError, ValueError) as error:
        raise StoreError(refusal(url, error)[0]) from None


def _shared_config() -> S3CredentialProvider | None:
    """Credentials from ~/.aws, which boto3 reads, where the environment has none."""
    folder = Path.home() / ".aws"
    if "AWS_ACCESS_KEY_ID" in os.environ or not (
        "AWS_PROFILE" in os.environ or (folder / "credentials").exists() or (folder / "config").exists()
    ):
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        return None
    return Boto3CredentialProvider()


def refusal(url: str, error: Exception) -> tuple[str, bool]:
    """One sentence for a failed request, and whether it may pass if it is tried again.

    The sentence is empty for an object that is not there in a bucket that is.
    """
    scheme = url.partition("://")[0]
    text, _, details = str(error).partition("\n\nDebug source:")
    status = re.search(r"status code: (\d{3}[\w ]*)", text)
    code = re.search(r"<Code>(\w+)</Code>", text)
    said = code[1] if code else status[1].strip() if status else ""
    if said in ("NoSuchBucket", "ContainerNotFound", "InvalidBucketName") or "specified bucket does not" in text:
        return f"{url}: there is no such bucket: create it, or correct its name", False
    if isinstance(error, FileNotFoundError):
        return "", False
    if "169.254.169.254" in text or "MissingAccount" in details or "metadata.google" in text:
        hint = "; ~/.aws is read where boto3 is installed" if scheme == "s3" else ""
        return f"{url}: no credentials were found: set {CREDENTIALS.get(scheme, '')}{hint}", False
    denied = status is not None and status[1][:3] in ("401", "403")
    if denied or isinstance(error, (PermissionDeniedError, UnauthenticatedError)):
        where = f": check {CREDENTIALS[scheme]}" if scheme in CREDENTIALS else ""
        return f"{url}: access was denied ({said or 'no reason given'}){where}", False
    if "BadScheme" in details or "URL scheme is not allowed" in details:
        return f"{url}: the endpoint is plain http: set {ALLOW_HTTP.get(scheme)}=true to allow that", False
    if said in ("PermanentRedirect", "AuthorizationHeaderMalformed") or "incorrectly configured region" in text:
        return f"{url}: the bucket is in another region: set AWS_REGION to it", False
    if isinstance(error, NotSupportedError):
        return f"{url}: the server cannot do what is needed ({_short(text)})", False
    if said:
        passing = said[0] == "5" or (status is not None and status[1][0] == "5") or said in ("RequestTimeout",)
        return f"{url}: the server answered {said}: {AGAIN}", passing
    if "HTTP error" in text or "error sending request" in text or isinstance(error, OSError):
        what = f"{_host(url, text)} cannot be reached, or breaks off ({_cause(text, details)})"
        return f"{url}: {what}: check the address and the network, and {AGAIN}", True
    return f"{url}: {_short(text)}: {AGAIN}", True


def _host(url: str, text: str) -> str:
    asked = re.search(r"https?://\S+", text)
    return urlsplit(asked[0] if asked else url).netloc or "the server"


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
