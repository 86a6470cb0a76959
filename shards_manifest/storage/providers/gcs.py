"""Google Cloud Storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from .base import AddressVariable, ClientRequest, Provider

if TYPE_CHECKING:
    from obstore.store import GCSConfig, ObjectStore


class GoogleCloudStorage(Provider):
    """Buckets of Google."""

    schemes = ("gs",)
    prefix = "GOOGLE_"
    addresses = (AddressVariable(("GOOGLE_BASE_URL",), "google_base_url", "https://storage.googleapis.com"),)
    flags = ("GOOGLE_SKIP_SIGNATURE",)
    allow_http = "GOOGLE_ALLOW_HTTP"
    skip_signature = "GOOGLE_SKIP_SIGNATURE"
    secrets = ("GOOGLE_BEARER_TOKEN",)
    credentials = "GOOGLE_APPLICATION_CREDENTIALS"
    no_credentials = ("metadata.google", "169.254.169.254")

    def connect(self, request: ClientRequest) -> ObjectStore:
        """Return a client of obstore. Raises obstore's errors."""
        from obstore.store import GCSStore

        return GCSStore(
            request.host,
            prefix=request.path,
            config=cast("GCSConfig", request.settings),
            client_options=request.client,
            retry_config=request.retry,
        )
