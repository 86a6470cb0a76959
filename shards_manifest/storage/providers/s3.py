"""Amazon S3, and the many servers that speak its protocol."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ...errors import StoreError
from .base import AddressVariable, ClientRequest, Provider, flag

if TYPE_CHECKING:
    from obstore.store import ObjectStore, S3Config, S3Credential, S3CredentialProvider

REGION = "us-east-1"  # obstore's own default
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_CHAIN = (  # of credentials; obstore goes by what is set, even if it is empty
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"),
    *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
)


class S3(Provider):
    """Buckets of S3."""

    schemes = ("s3",)
    prefix = "AWS_"
    addresses = (
        AddressVariable(_ENDPOINTS, "endpoint", ""),
        AddressVariable(("AWS_ENDPOINT_URL_STS",), "aws_endpoint_url_sts", "https://sts.{region}.amazonaws.com"),
        AddressVariable(("AWS_METADATA_ENDPOINT",), "metadata_endpoint", "http://169.254.169.254"),
        AddressVariable(("AWS_CONTAINER_CREDENTIALS_FULL_URI",), "container_credentials_full_uri", ""),
    )
    flags = (
        *("AWS_SKIP_SIGNATURE", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "AWS_UNSIGNED_PAYLOAD", "AWS_S3_EXPRESS"),
        *("AWS_IMDSV1_FALLBACK", "AWS_DISABLE_TAGGING", "AWS_DISABLE_BULK_DELETE", "AWS_REQUEST_PAYER"),
    )
    allow_http = "AWS_ALLOW_HTTP"
    skip_signature = "AWS_SKIP_SIGNATURE"
    secrets = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_TOKEN")
    credentials = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL where it is not Amazon's)"
    bucket_hint = ", and the address of a server in AWS_ENDPOINT_URL"
    region_hint = "set AWS_REGION to it"
    no_credentials = ("169.254.169.254",)

    @property
    def missing_credentials(self) -> str:
        """What to do where there are no credentials."""
        return f"{super().missing_credentials}; ~/.aws is read where boto3 is installed"

    def known(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the region. Raises StoreError for what is no name of one."""
        return {"region": _region(environ)}

    def more_settings(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the region where a variable for it is empty."""
        return {"region": _region(environ)} if any(environ.get(name) == "" for name in _REGIONS) else {}

    def connect(self, request: ClientRequest) -> ObjectStore:
        """Return a client of obstore. Raises StoreError, and obstore's own errors."""
        from obstore.store import S3Store

        settings = dict(request.settings)
        if "endpoint" not in settings and any(request.environ.get(name) == "" for name in _ENDPOINTS):
            settings["endpoint"] = _endpoint(request.host, request.environ)
        if "endpoint" in settings:
            settings["aws_endpoint_url_s3"] = settings["endpoint"]
        return S3Store(
            request.host,
            prefix=request.path,
            config=cast("S3Config", settings),
            client_options=request.client,
            retry_config=request.retry,
            credential_provider=self._credential_provider(request.environ),
        )

    def _credential_provider(self, environ: Mapping[str, str]) -> S3CredentialProvider | None:
        """Return the credentials where obstore does not find them by itself. Raises StoreError."""
        key, secret = environ.get("AWS_ACCESS_KEY_ID", ""), environ.get("AWS_SECRET_ACCESS_KEY", "")
        if flag(self.skip_signature, environ):
            return _fixed("", "")  # never asked for; but half a key in the environment would be refused
        if key and secret:
            unset = any(environ.get(name) == "" for name in ("AWS_SESSION_TOKEN", "AWS_TOKEN"))
            return _fixed(key, secret) if unset else None
        if key or secret:
            there, missing = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")[:: 1 if key else -1]
            raise StoreError(f"{there} is set, but {missing} is not: set both, or {self.public}")
        provider = _shared_config(environ)
        empty = next((name for name in _CHAIN if environ.get(name) == ""), None)
        if provider is None and empty:
            raise StoreError(f"{empty} is empty, and there are no other credentials: set or unset it, or {self.public}")
        return provider


def _region(environ: Mapping[str, str]) -> str:
    for name in _REGIONS:
        value = environ.get(name, "")
        if value and not re.fullmatch(r"[A-Za-z0-9._-]+", value):
            raise StoreError(f"{name}={value!r} is no name of a region: write it as in {REGION}, without white space")
    return next((environ[name] for name in _REGIONS if environ.get(name)), REGION)


def _endpoint(bucket: str, environ: Mapping[str, str]) -> str:
    """Return where S3 has a bucket when no endpoint is named."""
    region = _region(environ)
    if flag("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", environ):
        return f"https://{bucket}.s3.{region}.amazonaws.com"
    return f"https://s3.{region}.amazonaws.com"


def _fixed(key: str, secret: str) -> S3CredentialProvider:
    def credentials() -> S3Credential:
        return {"access_key_id": key, "secret_access_key": secret, "token": None, "expires_at": None}

    return credentials


def _shared_config(environ: Mapping[str, str]) -> S3CredentialProvider | None:
    """Return credentials from ~/.aws, which boto3 reads; None where there are none. Raises StoreError."""
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
