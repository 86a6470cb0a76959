"""Web servers: files by their addresses, read only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import ClientRequest, Provider

if TYPE_CHECKING:
    from obstore.store import ObjectStore


class WebServer(Provider):
    """Servers of http and https. User name, password and query stand in the address, none in variables."""

    schemes = ("http", "https")
    web = True

    def access_denied(self, server: str, authorization: bool, query: bool) -> str:
        """Return the end of the sentence about a request that was refused."""
        if authorization:
            return "check the user name and the password of the address"
        if query:
            return "the signed link may have ended, or is cut: fetch another"
        scheme, _, host = server.partition("://")
        return f"write {scheme}://user:password@{host}/..., or take a signed link"

    def connect(self, request: ClientRequest) -> ObjectStore:
        """Return a client of obstore. Raises obstore's errors."""
        from obstore.store import HTTPStore

        return HTTPStore.from_url(request.url, client_options=request.client, retry_config=request.retry)
