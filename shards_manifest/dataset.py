"""From a path or a URL to a data set: its store and its manifest."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .errors import FormatError
from .manifest import MANIFEST, BandManifest, SplitManifest, load_band, load_split, manifest_kind
from .shard.bands_reader import BandsReader, Blocks
from .shard.reader import BlockReader, Cache
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


class Bands(NamedTuple):
    """Some bands of one split, opened to be read side by side: sample i is of the same image in all of them.

    Attributes:
        store: Of the split; of the band itself, where it is a single one.
        manifests: Of each band, by its folder within the store, in the order in which they are read.
    """

    store: Store
    manifests: Mapping[str, BandManifest]

    @property
    def each(self) -> list[BandManifest]:
        """The manifests in order."""
        return list(self.manifests.values())

    @property
    def first(self) -> BandManifest:
        """The manifest of the first band: geometry, classes and counts are those of all."""
        return next(iter(self.manifests.values()))


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
            f"{shown(path)} has no {MANIFEST}: it is not a split (spectral split makes one), or one that is not "
            "finished (run it again to go on)"
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


def open_bands(data: str | os.PathLike[str] | Band | Split, bands: Sequence[int] = ()) -> Bands:
    """Open some bands of a split, to be read side by side.

    Args:
        data: A split or a band: its folder, its URL, or what `open_split` or `open_band` returned.
        bands: The numbers of the bands, in the wanted order; empty for all of a split, and for a single band.

    Raises:
        FormatError: A band is missing or damaged, or the bands do not hold the same images in the same order.
        StoreError: The disk or the server refuses.
    """
    opened = data if isinstance(data, (Band, Split)) else open_data(data)
    store = opened.store
    if isinstance(opened, Band):
        if bands:
            raise FormatError(f"{store} is one band: name the folder of the whole split to choose bands of it")
        return Bands(store, {"": opened.manifest})
    folders = {band.band: band.folder for band in opened.manifest.bands}
    if missing := [band for band in bands if band not in folders]:
        raise FormatError(f"{store} has no band {missing[0]}: choose from {', '.join(map(str, folders))}")
    if len(set(bands)) < len(bands):
        raise FormatError(f"a band of {store} is named twice in {'+'.join(map(str, bands))}: name each once")
    found = {folders[band]: read_band(store, folders[band]) for band in bands or folders}
    if not found:
        raise FormatError(f"{store} has no bands")
    _check_alike(store, found)
    return Bands(store, found)


def open_part(bands: Bands, part: str, cache: Cache | None = None) -> Blocks:
    """Return the reader of a part of some bands; that of a single band for `open_bands` of a band's own folder.

    Args:
        bands: From `open_bands`.
        part: train or val.
        cache: Where to keep blocks of a server; None for nowhere.

    Raises:
        FormatError: There is no such part, or the bands have other blocks than each other.
        ShardError: An index is missing or damaged.
        StoreError: The disk or the server refuses.
    """
    store, count = bands.store, len(bands.manifests)
    if part not in bands.first.parts:
        raise FormatError(f"{store} has no {part} part: choose {', '.join(bands.first.parts)}")
    readers = [BlockReader(store, band, part, cache, folder, count) for folder, band in bands.manifests.items()]
    return readers[0] if "" in bands.manifests else BandsReader(readers)


def _check_alike(store: Store, bands: Mapping[str, BandManifest]) -> None:
    """Raise FormatError if bands do not hold the same images in the same order."""
    folder, first = next(iter(bands.items()))
    for other, band in bands.items():
        here, there = f"{store}/{other}", f"{store}/{folder}"
        if (band.geometry, band.classes) != (first.geometry, first.classes):
            raise FormatError(f"{here} has another geometry or other classes than {there}: copy the split again")
        orders = [{name: part.digest for name, part in each.parts.items()} for each in (first, band)]
        if orders[0] != orders[1]:
            raise FormatError(f"{here} has another sample order than {there}: copy the split again")
