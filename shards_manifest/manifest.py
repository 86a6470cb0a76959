"""The manifests, as plain frozen values and as canonical JSON (see docs/format.md).

Canonical means: sorted keys, one-space indent, UTF-8, no time stamps, no host names, so that equal
contents are equal bytes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from .errors import FormatError
from .spectral.color import COLORS
from .spectral.transform import TRANSFORMS, band_frequency

FORMAT = "spectral-shards"
VERSIONS = (1, 2)  # the second has bands without compression
MANIFEST = "manifest.json"
PARTS = ("train", "val")

# what a split may be; TRANSFORMS and COLORS are in spectral/
FACTORS = (1, 4, 16, 36)
FITS: Mapping[str, str] = {
    "squash": "scale both axes to the size",
    "crop": "scale the centred largest square",
}
COMPRESSIONS = ("gzip", "none")  # of a block's samples
DTYPES: Mapping[str, np.dtype[Any]] = {"int8": np.dtype("|i1"), "float16": np.dtype("<f2")}
KNOWN: Mapping[str, tuple[Any, ...]] = {
    "factor": FACTORS,
    "fit": tuple(FITS),
    "transform": tuple(TRANSFORMS),
    "color": tuple(COLORS),
    "dtype": tuple(DTYPES),
}

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """One tar of a band.

    Attributes:
        name: Within the folder of the band.
        samples: How many it holds.
        blocks: How many it holds.
        bytes: Its size.
        sha256: Of the whole file, in hexadecimal.
    """

    name: str
    samples: int
    blocks: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Part:
    """The shards of train or of val, in order.

    Attributes:
        samples: How many it holds.
        digest: SHA-256 of the text of the sample table.
        index: SHA-256 of the index of the part (shard/index.py).
        shards: In stored order.
    """

    samples: int
    digest: str
    index: str
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class Geometry:
    """What a stored coefficient means; equal in all bands of a split.

    Attributes:
        factor: The number of bands K = s*s, one of FACTORS.
        size: Pixels of a side that the network sees, before the phases.
        margin: Further pixels of a side, kept for crops.
        fit: How images are scaled to a square, a name in FITS.
        transform: A name in spectral.transform.TRANSFORMS.
        color: A name in spectral.color.COLORS.
        dtype: A name in DTYPES.
    """

    factor: int
    size: int
    margin: int
    fit: str
    transform: str
    color: str
    dtype: str

    @property
    def grid(self) -> int:
        """s: the image is cut into s x s phases."""
        return math.isqrt(self.factor)

    @property
    def plane(self) -> int:
        """Stored pixels of a plane's side: (size + margin) / s."""
        return (self.size + self.margin) // self.grid

    @property
    def crop(self) -> int:
        """Pixels of a plane's side that the network sees."""
        return self.size // self.grid


@dataclass(frozen=True)
class BandManifest:
    """All that a trainer needs of one band.

    Attributes:
        dataset: The name of the data set.
        geometry: What a stored coefficient means.
        band: Its number, from 0 to factor - 1.
        frequency: (k,) for dct; (v, u) for dct2, vertical first; the phase (row, column) for none.
        block: Samples of every block but the last of a shard.
        step: For each channel; coefficient = stored value * step.
        mean: For each channel, of the coefficients over train.
        std: For each channel, of the coefficients over train; 1 where all are equal.
        classes: Their names, in the order of labels.
        parts: train, and val where there is one.
        compression: One of COMPRESSIONS.
    """

    dataset: str
    geometry: Geometry
    band: int
    frequency: tuple[int, ...]
    block: int
    step: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    parts: Mapping[str, Part]
    compression: str = "gzip"

    @property
    def variance(self) -> tuple[float, ...]:
        """For each channel, of the coefficients over train: 0 where all are equal, for which `std` is 1."""
        return tuple(0.0 if std == 1 else std**2 for std in self.std)

    @property
    def divisor(self) -> tuple[float, ...]:
        """For each channel, what inputs are divided by: `std`, but half a step at least (docs/decisions/0027)."""
        return tuple(max(std, step / 2) for std, step in zip(self.std, self.step, strict=True))


@dataclass(frozen=True)
class BandSummary:
    """One band as the manifest of the whole split lists it.

    Attributes:
        band: Its number, from 0 to factor - 1.
        folder: Within the split.
        frequency: As in BandManifest.
        step: As in BandManifest.
        bytes: Of all its shards.
        clipped: For each channel, how many coefficients were cut to the range of the stored type.
        compression: One of COMPRESSIONS.
    """

    band: int
    folder: str
    frequency: tuple[int, ...]
    step: tuple[float, ...]
    bytes: int
    clipped: tuple[int, ...]
    compression: str = "gzip"


@dataclass(frozen=True)
class PartSummary:
    """Counts of train or val in the whole split.

    Attributes:
        samples: How many there are.
        shards: How many each band has.
        digest: SHA-256 of the text of the sample table.
    """

    samples: int
    shards: int
    digest: str


@dataclass(frozen=True)
class SplitManifest:
    """A whole split: geometry, bands, counts, and where it came from.

    Attributes:
        dataset: The name of the data set.
        geometry: What a stored coefficient means.
        classes: How many there are.
        bands: Those that were written.
        parts: train, and val where there is one.
        rejects: How many images were left out.
        provenance: Source, options and versions of the tools that wrote the split.
    """

    dataset: str
    geometry: Geometry
    classes: int
    bands: tuple[BandSummary, ...]
    parts: Mapping[str, PartSummary]
    rejects: int
    provenance: Mapping[str, Any] = field(default_factory=dict)


def band_folder(band: int) -> str:
    """Return the folder of a band within a split: 00, 01, ..."""
    return f"{band:02d}"


def canonical_json(value: Any) -> bytes:
    """Return `value` as canonical JSON, dataclasses as objects, and a newline. Raises ValueError for NaN."""
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False, default=vars)
    return text.encode("utf-8", "surrogateescape") + b"\n"


def dump(manifest: BandManifest | SplitManifest) -> bytes:
    """Return a manifest as the bytes of its file."""
    if isinstance(manifest, BandManifest):
        kind, values, compressions = "band", _fields(manifest), [manifest.compression]
    else:
        kind, values = "split", {**vars(manifest), "bands": [_fields(band) for band in manifest.bands]}
        compressions = [band.compression for band in manifest.bands]
    return canonical_json({"format": FORMAT, "version": version_of(compressions), "kind": kind, **values})


def version_of(compressions: Iterable[str]) -> int:
    """Return the version of the format that bands with these compressions need: the lowest one."""
    return 1 if set(compressions) <= {"gzip"} else 2


def _fields(band: BandManifest | BandSummary) -> dict[str, Any]:
    """Return what a manifest says of a band: its compression only where that is not gzip."""
    return {name: value for name, value in vars(band).items() if (name, value) != ("compression", "gzip")}


def load_band(data: bytes, where: str) -> BandManifest:
    """Read the manifest of a band. Raises FormatError, naming `where`, for anything that is not one."""

    def build(raw: dict[str, Any]) -> BandManifest:
        found = BandManifest(
            dataset=str(raw["dataset"]),
            geometry=_geometry(raw["geometry"]),
            band=int(raw["band"]),
            frequency=tuple(int(f) for f in raw["frequency"]),
            block=int(raw["block"]),
            step=_floats(raw["step"]),
            mean=_floats(raw["mean"]),
            std=_floats(raw["std"]),
            classes=tuple(str(name) for name in raw["classes"]),
            parts={name: _part(part, int(raw["block"])) for name, part in raw["parts"].items()},
            compression=_compression(raw),
        )
        _check_band(found)
        return found

    return _load(data, where, "band", build)


def load_split(data: bytes, where: str) -> SplitManifest:
    """Read the manifest of a whole split. Raises FormatError, naming `where`, for anything that is not one."""

    def build(raw: dict[str, Any]) -> SplitManifest:
        bands = tuple(
            BandSummary(
                band=int(b["band"]),
                folder=str(b["folder"]),
                frequency=tuple(int(f) for f in b["frequency"]),
                step=_floats(b["step"]),
                bytes=int(b["bytes"]),
                clipped=tuple(int(c) for c in b["clipped"]),
                compression=_compression(b),
            )
            for b in raw["bands"]
        )
        parts = {
            name: PartSummary(int(p["samples"]), int(p["shards"]), str(p["digest"])) for name, p in raw["parts"].items()
        }
        return SplitManifest(
            dataset=str(raw["dataset"]),
            geometry=_geometry(raw["geometry"]),
            classes=int(raw["classes"]),
            bands=bands,
            parts=parts,
            rejects=int(raw["rejects"]),
            provenance=dict(raw["provenance"]),
        )

    return _load(data, where, "split", build)


def manifest_kind(data: bytes, where: str) -> str:
    """Return 'band' or 'split'. Raises FormatError if `data` is not a manifest of a known version."""
    return str(_header(data, where)["kind"])


def _header(data: bytes, where: str) -> dict[str, Any]:
    try:
        raw = json.loads(data)
    except ValueError as error:
        raise FormatError(f"{where} is not valid JSON ({error}): the file is damaged") from None
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise FormatError(f"{where} is not a manifest of Spectral Shards")
    if raw.get("version") not in VERSIONS:
        raise FormatError(
            f"{where} has format version {raw.get('version')!r}, this release knows versions "
            f"{' and '.join(map(str, VERSIONS))}: install the release that wrote it, or split again"
        )
    if raw.get("kind") not in ("band", "split"):
        raise FormatError(f"{where} has the unknown kind {raw.get('kind')!r}")
    return raw


def _load(data: bytes, where: str, kind: str, build: Callable[[dict[str, Any]], T]) -> T:
    raw = _header(data, where)
    if raw["kind"] != kind:
        other = "one band" if kind == "split" else "a whole split"
        raise FormatError(f"{where} describes {other}, not {'a whole split' if kind == 'split' else 'one band'}")
    try:
        return build(raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else f"is malformed ({error})"
        raise FormatError(f"{where} {what}: the file is damaged") from None


def _compression(raw: Mapping[str, Any]) -> str:
    found = str(raw.get("compression", "gzip"))
    if found not in COMPRESSIONS:
        raise ValueError(f"unknown compression {found!r}")
    return found


def _geometry(raw: Mapping[str, Any]) -> Geometry:
    for name, known in KNOWN.items():
        if raw[name] not in known:
            raise ValueError(f"unknown {name} {raw[name]!r}")
    found = Geometry(
        factor=int(raw["factor"]),
        size=int(raw["size"]),
        margin=int(raw["margin"]),
        fit=str(raw["fit"]),
        transform=str(raw["transform"]),
        color=str(raw["color"]),
        dtype=str(raw["dtype"]),
    )
    if found.size < found.grid or found.margin < 0 or found.size % found.grid or found.margin % found.grid:
        raise ValueError(f"{found.factor} bands of size {found.size} and margin {found.margin} have no planes")
    return found


def _check_band(band: BandManifest) -> None:
    geometry = band.geometry
    axes = len(band_frequency(geometry.transform, geometry.factor, 0))
    if not 0 <= band.band < geometry.factor or len(band.frequency) != axes:
        raise ValueError(f"there is no band {band.band} of frequency {list(band.frequency)}")
    for name in ("step", "mean", "std"):
        values = getattr(band, name)
        if len(values) != 3 or not all(map(math.isfinite, values)) or (name != "mean" and min(values) <= 0):
            raise ValueError(f"{name} {list(values)} is not one for each channel")


def _part(raw: Mapping[str, Any], block: int) -> Part:
    shards = tuple(
        Shard(str(s["name"]), int(s["samples"]), int(s["blocks"]), int(s["bytes"]), str(s["sha256"]))
        for s in raw["shards"]
    )
    for shard in shards:
        if not re.fullmatch(r"\w[\w.-]*", shard.name) or not re.fullmatch(r"[0-9a-f]{64}", shard.sha256):
            raise ValueError(f"{shard.name!r} with SHA-256 {shard.sha256!r} is no shard")
    if sum(s.samples for s in shards) != int(raw["samples"]):
        raise ValueError("its shards do not add up to its samples")
    if block < 1 or any(s.blocks != -(-s.samples // block) for s in shards):
        raise ValueError("its shards' blocks do not add up to their samples")
    return Part(int(raw["samples"]), str(raw["digest"]), str(raw["index"]), shards)


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
