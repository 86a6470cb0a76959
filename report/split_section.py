"""The section about a split: what it holds, how it looks, and what was left out."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..preprocess.config import command_options
from ..preprocess.inspection.reconstruct import SplitBlocks
from ..shards_manifest import tables
from ..shards_manifest.dataset import Split, open_bands
from ..shards_manifest.manifest import BandManifest
from ..shards_manifest.runtime.cli_runner import human_bytes
from ..shards_manifest.storage.address import shown
from .content import Chart, Gallery, Item, Section, Table, bars
from .pictures import contact_sheet

MOST_CLASSES = 60  # in a chart; of more, the largest and the smallest
SAMPLED_BLOCKS = 8  # of each band, for its histogram
BINS = 64  # of a histogram


def split_section(path: str, split: Split) -> Section:
    """Return the section about a split.

    Args:
        path: its folder or URL.
        split: the same, opened.

    Raises:
        FormatError, ShardError, StoreError: a part of it is missing or damaged.
    """
    manifest, bands = split.manifest, open_bands(split).each
    geometry = manifest.geometry
    total = sum(band.bytes for band in manifest.bands)
    images = sum(part.samples for part in manifest.parts.values())
    counts = ", ".join(f"{part.samples:,} in {name}" for name, part in sorted(manifest.parts.items()))
    lead = (
        f"{images:,} images of {manifest.classes:,} classes: {counts}. Each was resized to {geometry.size}x"
        f"{geometry.size} and cut into {geometry.factor} bands of {geometry.plane}x{geometry.plane}.",
        f"{human_bytes(total)} in all, {human_bytes(total / max(images, 1))} an image.",
    )
    items: list[Item] = [Gallery("Images and their bands", (contact_sheet(path, 3),))]
    names = [f"{band.band:02d}" for band in manifest.bands]
    items.append(bars("Bytes of each band", ("band", "MB"), names, {"MB": [b.bytes / 1e6 for b in manifest.bands]}))
    items += [_energy(bands, names), _histograms(split, names)]
    clipped = [sum(band.clipped) for band in manifest.bands]
    if any(clipped):
        items.append(bars("Coefficients cut to the range of int8", ("band", "coefficients"), names, {"cut": clipped}))
    items += _classes(split)
    items += _rejects(split)
    facts = (
        (f"{images:,}", f"images of {manifest.classes:,} classes"),
        (human_bytes(total), f"in {geometry.factor} bands of {geometry.plane}x{geometry.plane}"),
    )
    return Section(f"The split {shown(path)}", lead, tuple(items), commands=(_command(split, path),), facts=facts)


def _energy(bands: Sequence[BandManifest], names: list[str]) -> Chart:
    channels = ("Y", "Cb", "Cr") if bands[0].geometry.color == "ycbcr" else ("R", "G", "B")
    series = {
        channel: [float(np.sqrt(band.variance[number])) for band in bands] for number, channel in enumerate(channels)
    }
    return bars("Energy of each band", ("band", "standard deviation, grey levels"), names, series)


def _histograms(split: Split, names: list[str]) -> Chart:
    """Return how often the luma of each band has each value, on some blocks of train."""
    part = "train" if "train" in split.manifest.parts else next(iter(split.manifest.parts))
    reach = 128 * split.manifest.geometry.grid  # of the mean band, whose coefficients are the largest
    edges = np.linspace(-reach, reach, BINS + 1)
    totals = np.zeros((len(names), len(edges) - 1))
    with SplitBlocks(split.store, split.manifest, part) as blocks:
        number = len(blocks.samples)
        for block in np.unique(np.linspace(0, number - 1, min(SAMPLED_BLOCKS, number)).astype(int)):
            coefficients = blocks.read(int(block))
            for place, band in enumerate(split.manifest.bands):
                luma = np.clip(coefficients[band.band, :, 0], edges[0], edges[-1])
                totals[place] += np.histogram(luma, edges)[0]
    shares = totals / np.maximum(totals.sum(1, keepdims=True), 1)
    middles = ((edges[:-1] + edges[1:]) / 2).tolist()
    traces = tuple(
        {"type": "scatter", "mode": "lines", "name": f"band {name}", "x": middles, "y": share.tolist()}
        for name, share in zip(names, shares, strict=True)
    )
    rows = tuple(
        (name, f"{share[abs(np.array(middles)) < reach / 32].sum():.1%}", f"{_spread(share, middles):.1f}")
        for name, share in zip(names, shares, strict=True)
    )
    table = Table(("band", f"within {reach // 32} grey levels of zero", "standard deviation, grey levels"), rows)
    layout = {"yaxis": {"type": "log", "tickformat": ".0e"}}
    return Chart("Coefficients of luma", traces, ("grey levels", "share of coefficients"), table, layout)


def _spread(share: NDArray[np.float64], middles: list[float]) -> float:
    mean = float(share @ middles)
    return float(np.sqrt(share @ (np.array(middles) - mean) ** 2))


def _classes(split: Split) -> list[Item]:
    try:
        rows = [line.split("\t") for line in split.store.read(tables.CLASSES).decode().splitlines()]
    except FileNotFoundError:
        return []
    rows.sort(key=lambda row: -int(row[2]))
    shown_rows = rows if len(rows) <= MOST_CLASSES else [*rows[: MOST_CLASSES // 2], *rows[-MOST_CLASSES // 2 :]]
    title = "Images of each class"
    if len(rows) > MOST_CLASSES:
        title += f": the {MOST_CLASSES // 2} largest and the {MOST_CLASSES // 2} smallest of {len(rows):,}"
    series = {"train": [float(row[2]) for row in shown_rows], "val": [float(row[3]) for row in shown_rows]}
    return [bars(title, ("class", "images"), [row[1] for row in shown_rows], series)]


def _rejects(split: Split) -> list[Item]:
    try:
        lines = split.store.read(tables.REJECTS).decode().splitlines()
    except FileNotFoundError:
        return []
    reasons = Counter(str(json.loads(line)["reason"]) for line in lines)
    if not reasons:
        return []
    rows = tuple((reason, f"{count:,}") for reason, count in reasons.most_common())
    return [Table(("why an image was left out", "images"), rows, "Rejects")]


def _command(split: Split, path: str) -> str:
    """Return the command that makes such a split, as far as the manifest says it."""
    provenance = split.manifest.provenance
    source = provenance.get("source", {})
    words = ["spectral", "split", shlex.quote(source.get("name", "SOURCE"))]
    words += command_options({"factor": split.manifest.geometry.factor, **provenance.get("plan", {})})
    for column in ("image_column", "label_column"):
        words += [f"--{column.replace('_', '-')} {shlex.quote(source[column])}"] if column in source else []
    return " ".join([*words, "--out", shlex.quote(shown(path))])
