"""From a path or a URL to a data set: its store and its manifest."""

from __future__ import annotations

import os
from typing import NamedTuple

from .errors import FormatError
from .manifest import MANIFEST, BandManifest, SplitManifest, load_band, load_split, manifest_kind
from .storage.address import shown
from .storage.base import Store
from .storage.opening import open_store


class Band(NamedTuple):
    """One band of a split, opened for reading.

    Attributes:
        store: Where its files are, by names relative to the folder of the band.
        manifest: What it holds.
    """

    store: Store
    manifest: BandManifest


class Split(NamedTuple):
    """A whole split, opened for reading.

    Attributes:
        store: Where its files are, by names relative to the folder of the split.
        manifest: What it holds, its bands among it.
    """

    store: Store
    manifest: SplitManifest


def open_data(path: str | os.PathLike[str]) -> Band | Split:
    """Open a data set, whether it is a whole split or one band.

    Args:
        path: A folder or a URL.

    Raises:
        FormatError: There is no manifest, or it is damaged or of an unknown version.
        StoreError: The disk or the server refuses.
    """
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
        return Band(store, load_band(data, where))
    return Split(store, load_split(data, where))


def open_band(path: str | os.PathLike[str]) -> Band:
    """Open one band of a split.

    Args:
        path: The folder of the band, as in `split/00`, or its URL.

    Returns:
        A pair that unpacks to (store, manifest).

    Raises:
        FormatError: There is no manifest, it is damaged, or it is the one of a whole split.
        StoreError: The disk or the server refuses.
    """
    data = open_data(path)
    if not isinstance(data, Band):
        raise FormatError(f"{shown(path)} is a whole split, not one band: name one of its folders")
    return data


def open_split(path: str | os.PathLike[str]) -> Split:
    """Open a whole split.

    Args:
        path: The folder that has the folders of the bands, or its URL.

    Returns:
        A pair that unpacks to (store, manifest).

    Raises:
        FormatError: There is no manifest, it is damaged, or it is the one of a single band.
        StoreError: The disk or the server refuses.
    """
    data = open_data(path)
    if not isinstance(data, Split):
        raise FormatError(f"{shown(path)} is one band: name the folder of the whole split")
    return data


def read_band(store: Store, folder: str) -> BandManifest:
    """Return the manifest of one band of a split.

    Args:
        store: Of the split.
        folder: Of the band within it, as in `00`.

    Raises:
        FormatError: It is missing or damaged.
        StoreError: The disk or the server refuses.
    """
    name = f"{folder}/{MANIFEST}"
    try:
        return load_band(store.read(name), f"{store}/{name}")
    except FileNotFoundError:
        raise FormatError(f"{store}/{name} is missing: copy the band again") from None
