"""Azure Blob Storage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from ...errors import StoreError
from .base import AddressVariable, ClientRequest, Provider

if TYPE_CHECKING:
    from obstore.store import AzureConfig, ObjectStore

_ACCOUNT = "AZURE_STORAGE_ACCOUNT_NAME"


class AzureBlobStorage(Provider):
    """Containers of Azure."""

    schemes = ("az",)
    prefix = "AZURE_"
    addresses = (
        AddressVariable(
            ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"), "endpoint", "https://{account}.blob.core.windows.net"
        ),
        AddressVariable(
            ("AZURE_STORAGE_AUTHORITY_HOST", "AZURE_AUTHORITY_HOST"),
            "authority_host",
            "https://login.microsoftonline.com",
        ),
        AddressVariable(
            ("AZURE_MSI_ENDPOINT", "AZURE_IDENTITY_ENDPOINT"),
            "msi_endpoint",
            "http://169.254.169.254/metadata/identity/oauth2/token",
        ),
    )
    flags = (
        *("AZURE_SKIP_SIGNATURE", "AZURE_STORAGE_USE_EMULATOR", "AZURE_USE_FABRIC_ENDPOINT"),
        *("AZURE_USE_AZURE_CLI", "AZURE_DISABLE_TAGGING"),
    )
    allow_http = "AZURE_ALLOW_HTTP"
    skip_signature = "AZURE_SKIP_SIGNATURE"
    secrets = (_ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_TOKEN")
    credentials = "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"
    no_credentials = ("169.254.169.254", "MissingAccount", "Account must be specified")

    def known(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the storage account. Raises StoreError where its variable is empty."""
        if environ.get(_ACCOUNT) == "":
            raise StoreError(f"{_ACCOUNT} is empty: set it to the name of the storage account, or unset it")
        return {"account": environ.get(_ACCOUNT, "")}

    def connect(self, request: ClientRequest) -> ObjectStore:
        """Return a client of obstore. Raises obstore's errors."""
        from obstore.store import AzureStore

        return AzureStore(
            request.host,
            prefix=request.path,
            config=cast("AzureConfig", request.settings),
            client_options=request.client,
            retry_config=request.retry,
        )
