"""The kinds of object storage, one file each. PROVIDERS is the one list of them."""

from __future__ import annotations

from .azure import AzureBlobStorage
from .base import Provider
from .gcs import GoogleCloudStorage
from .s3 import S3
from .web import WebServer

PROVIDERS: tuple[Provider, ...] = (S3(), GoogleCloudStorage(), AzureBlobStorage(), WebServer())

BY_SCHEME = {scheme: provider for provider in PROVIDERS for scheme in provider.schemes}
BUCKET_SCHEMES = tuple(scheme for scheme, provider in BY_SCHEME.items() if not provider.web)
WEB_SCHEMES = tuple(scheme for scheme, provider in BY_SCHEME.items() if provider.web)


def url_choices(schemes: tuple[str, ...]) -> str:
    """Return schemes as a sentence lists them: s3://, gs:// or az://."""
    *first, last = (f"{scheme}://" for scheme in schemes)
    return f"{', '.join(first)} or {last}" if first else last
