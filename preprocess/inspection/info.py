"""A description of a split or a band in a few lines."""

from __future__ import annotations

from ...shards_manifest import tables
from ...shards_manifest.dataset import open_data
from ...shards_manifest.manifest import BandManifest, Geometry, SplitManifest
from ...shards_manifest.runtime.cli_runner import counted, human_bytes
from ...shards_manifest.storage.address import shown
from ...shards_manifest.storage.base import Store
from ..split.summary import images_of_classes


def describe(path: str) -> str:
    """Return what a split or a band contains, for people. Raises FormatError."""
    store, manifest = open_data(path)
    lines = _band(manifest) if isinstance(manifest, BandManifest) else _split(manifest, _classes(store))
    return "\n".join([f"{shown(path)}: {lines[0]}", *(f"  {line}" for line in lines[1:])])


def _geometry(geometry: Geometry) -> str:
    margin = f" with a margin of {geometry.margin}" if geometry.margin else ""
    side = geometry.plane
    return (
        f"planes 3x{side}x{side} {geometry.dtype}, {geometry.color}, from images of "
        f"{geometry.size}x{geometry.size}{margin} ({geometry.fit}), transform {geometry.transform}"
    )


def _classes(store: Store) -> dict[str, int]:
    """Return the number of classes that have images, for each part; nothing if the table of classes is missing."""
    try:
        lines = store.read(tables.CLASSES).decode().splitlines()
    except FileNotFoundError:
        return {}
    counts = [line.split("\t")[2:] for line in lines]
    return {part: sum(row[column] != "0" for row in counts) for column, part in enumerate(("train", "val"))}


def _split(manifest: SplitManifest, classes: dict[str, int]) -> list[str]:
    total = sum(band.bytes for band in manifest.bands)
    lines = [
        f"{manifest.dataset} in {len(manifest.bands)} of {manifest.geometry.factor} bands",
        _geometry(manifest.geometry),
        f"{manifest.classes} classes, {counted(manifest.rejects, 'reject')}, {human_bytes(total)}",
    ]
    for name, part in sorted(manifest.parts.items()):
        images = f"{part.samples} images"
        if name in classes:
            images = images_of_classes(part.samples, classes[name], manifest.classes)
        lines.append(f"{name}: {images}, {part.shards} shards a band, order {part.digest[:12]}")
    tools = manifest.provenance.get("tools", {})
    lines.append("made with " + ", ".join(str(tools[key]) for key in sorted(tools)))
    lines.append("band  frequency   step      size  compression  clipped")
    for band in manifest.bands:
        frequency = ",".join(map(str, band.frequency))
        lines.append(
            f"{band.band:4d}  {frequency:>9}  {band.step[0]:5.2f}  {human_bytes(band.bytes):>8}  "
            f"{band.compression:>11}  {sum(band.clipped)}"
        )
    return lines


def _band(manifest: BandManifest) -> list[str]:
    frequency = ",".join(map(str, manifest.frequency))
    lines = [
        f"band {manifest.band} (frequency {frequency}) of {manifest.dataset}, factor {manifest.geometry.factor}",
        _geometry(manifest.geometry),
        f"{len(manifest.classes)} classes, compression {manifest.compression}",
    ]
    for name, part in sorted(manifest.parts.items()):
        size = human_bytes(sum(shard.bytes for shard in part.shards))
        lines.append(f"{name}: {part.samples} samples in {len(part.shards)} shards, {size}, order {part.digest[:12]}")
    for channel, (step, mean, std) in enumerate(zip(manifest.step, manifest.mean, manifest.std, strict=True)):
        name = ("Y Cb Cr" if manifest.geometry.color == "ycbcr" else "R G B").split()[channel]
        lines.append(f"{name}: step {step:.2f}, mean {mean:.2f}, std {std:.2f}")
    return lines
