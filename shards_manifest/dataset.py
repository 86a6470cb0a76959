"""From a path or a URL to its store, and to the manifest of what is there."""

from __future__ import annotations

import os

from .errors import FormatError
from .manifest import MANIFEST, BandManifest, SplitManifest, load_band, load_split, manifest_kind
from .storage.address import Address, is_url, shown
from .storage.base import Store
from .storage.local import LocalStore


def open_store(url: str | os.PathLike[str] | Address) -> Store:
    """The store behind a local path or a URL. Raises StoreError for a URL of another kind."""
    if not isinstance(url, Address):
        text = os.fspath(url)
        if not is_url(text):
            return LocalStore(text)
        url = Address.parse(text)
    if url.web:
        from .storage.web_server import WebStore  # local work never loads it

        return WebStore(url)
    from .storage.object_store import RemoteStore

    return RemoteStore(url)


def open_data(path: str | os.PathLike[str]) -> tuple[Store, SplitManifest | BandManifest]:
    """The store and the manifest of a split or of a band. Raises FormatError if there is none, StoreError."""
    store = open_store(path)
    where = f"{store}/{MANIFEST}"
    try:
        data = store.read(MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        raise FormatError(
            f"{shown(path)} has no {MANIFEST}: it is not a data set, or its split is not finished "
            "(run it again to go on)"
        ) from None
    if manifest_kind(data, where) == "band":
        return store, load_band(data, where)
    return store, load_split(data, where)


def open_band(path: str | os.PathLike[str]) -> tuple[Store, BandManifest]:
    """The store and the manifest of a band. Raises FormatError if there is none, StoreError."""
    store, manifest = open_data(path)
    if not isinstance(manifest, BandManifest):
        raise FormatError(f"{shown(path)} is a whole split, not one band: name one of its folders")
    return store, manifest


def open_split(path: str | os.PathLike[str]) -> tuple[Store, SplitManifest]:
    """The store and the manifest of a whole split. Raises FormatError if there is none, StoreError."""
    store, manifest = open_data(path)
    if not isinstance(manifest, SplitManifest):
        raise FormatError(f"{shown(path)} is one band: name the folder of the whole split")
    return store, manifest


def read_band(store: Store, folder: str) -> BandManifest:
    """The manifest of the band in `folder` of a split. Raises FormatError."""
    name = f"{folder}/{MANIFEST}"
    try:
        return load_band(store.read(name), f"{store}/{name}")
    except FileNotFoundError:
        raise FormatError(f"{store}/{name} is missing: copy the band again") from None
