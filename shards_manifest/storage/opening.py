"""The store behind a path or a URL."""

from __future__ import annotations

import os

from .address import Address, is_url
from .base import Store
from .local import LocalStore


def open_store(url: str | os.PathLike[str] | Address) -> Store:
    """Return the store behind a local path or a URL; nothing is read yet.

    Args:
        url: A folder, or a URL of one of the kinds in providers/.

    Raises:
        StoreError: The URL is of another kind, or names nothing.
    """
    if not isinstance(url, Address):
        text = os.fspath(url)
        if not is_url(text):
            return LocalStore(text)
        url = Address.parse(text)
    if url.web:
        from .web_server import WebStore  # local work never loads obstore

        return WebStore(url)
    from .object_store import RemoteStore

    return RemoteStore(url)
