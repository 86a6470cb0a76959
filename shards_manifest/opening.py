"""From a path to the manifest of what is there."""

from __future__ import annotations

import os

from .errors import FormatError
from .schema import MANIFEST, BandManifest, SplitManifest, load_band, load_split, manifest_kind
from .store import LocalStore, open_store


def open_data(path: str | os.PathLike[str]) -> tuple[LocalStore, SplitManifest | BandManifest]:
    """The store and the manifest of a split or of a band. Raises FormatError if there is none, StoreError."""
    store = open_store(path)
    where = f"{path}/{MANIFEST}"
    try:
        data = store.read(MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        raise FormatError(
            f"{path} has no {MANIFEST}: it is not a data set, or its split is not finished (run it again to go on)"
        ) from None
    if manifest_kind(data, where) == "band":
        return store, load_band(data, where)
    return store, load_split(data, where)


def open_band(path: str | os.PathLike[str]) -> tuple[LocalStore, BandManifest]:
    """The store and the manifest of a band. Raises FormatError if there is none, StoreError."""
    store, manifest = open_data(path)
    if not isinstance(manifest, BandManifest):
        raise FormatError(f"{path} is a whole split, not one band: name one of its folders")
    return store, manifest


def open_split(path: str | os.PathLike[str]) -> tuple[LocalStore, SplitManifest]:
    """The store and the manifest of a whole split. Raises FormatError if there is none, StoreError."""
    store, manifest = open_data(path)
    if not isinstance(manifest, SplitManifest):
        raise FormatError(f"{path} is one band: name the folder of the whole split")
    return store, manifest


def read_band(store: LocalStore, folder: str) -> BandManifest:
    """The manifest of the band in `folder` of a split. Raises FormatError."""
    name = f"{folder}/{MANIFEST}"
    try:
        return load_band(store.read(name), f"{store}/{name}")
    except FileNotFoundError:
        raise FormatError(f"{store}/{name} is missing: copy the band again") from None
