"""The options of a split and of its source, as frozen dataclasses, with their checks.

The command line reads their defaults and choices at its start, so this module is light: what takes time to load is
imported where it is used.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ..shards_manifest.manifest import COMPRESSIONS, FACTORS, KNOWN, Geometry
from ..shards_manifest.runtime.cli_runner import human_bytes
from .errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ORIENTATIONS = ("stored", "exif")
DEFAULT_SIZE = {1: 224, 4: 224, 16: 224, 36: 336}
DEFAULT_BLOCK = 64
# in grey levels; each keeps 41 dB or more (docs/results.md), and a network's answers (docs/decisions/0019)
DEFAULT_QUANT_STEP = {4: 3.25, 16: 2.75, 36: 3.25}
SHAPE = ("size", "margin", "transform", "color", "dtype")  # options that the defaults of others depend on
CHROMA_STEPS = 3.0  # steps of luma that one of chroma is by default
DEFAULT_ONE_STEP = {1: 1.0, 4: 5.0, 16: 5.0, 36: 6.0}  # for R, G, B, for phases, and for the plain image
LARGEST_STEP = 128.0
LARGEST_SIDE = 4096
LARGEST_BLOCKS = 1_000_000_000  # bytes of memory for the blocks that are being filled
# names in plan.json and manifest.json that differ from those of the fields
JSON_NAMES = {"quant_step": "step", "chroma_quant_step": "chroma_step"}
# options that older splits do not record, with the value that these splits were made with
ADDED_LATER: Mapping[str, Any] = {"min_class_images": 0, "orientation": "stored", "uncompressed": []}
COMPRESSION_CHOICES = (*COMPRESSIONS, "auto")


@dataclass(frozen=True)
class SplitConfig:
    """The options of one split. Together with the source they determine every byte.

    Attributes:
        factor: Number of bands: 1, 4, 16 or 36.
        size: Pixels of a side that the network sees; 0 for the default of the factor.
        margin: Extra pixels of a side that are kept for crops.
        fit: 'squash' scales both axes to the size, 'crop' takes the largest central square.
        transform: Transform over the phases: 'dct', 'dct2' or 'none'.
        color: Stored channels: 'ycbcr' or 'rgb'.
        dtype: Stored type: 'int8' or 'float16'.
        quant_step: Distance of two int8 levels in grey levels, 0.25 to 128; 0 for the default of the factor.
        chroma_quant_step: That of chroma in all bands but the mean band, for int8, ycbcr and a DCT; 0 for three times
            quant_step, at most 128. Elsewhere it is quant_step.
        bands: The bands to write; empty for all.
        samples_per_shard: Samples of a full shard; 0 for a size that depends on the number of samples alone.
        samples_per_block: Samples that are compressed together; -1 for 64, or as many as LARGEST_BLOCKS allows.
        val_per_class: Images of each class that become val where the source has no val; -1 for 5 %, at most 50.
        seed: Seed of the sample order and of the choice of val.
        limit: Largest number of images of each part; 0 for all.
        min_class_images: Classes with fewer images in train are dropped.
        classes: The only classes to take, in the order of their labels; empty for all, sorted.
        orientation: 'stored' takes images as they are stored, 'exif' turns them as their EXIF says.
        compression: 'gzip', 'none', or 'auto', which stores a band uncompressed where gzip saves less than a quarter of
            it (split/compression.py).
        uncompressed: The bands that are stored as they are, which is what `compression` comes to; None for those that
            have to be chosen yet.
    """

    factor: int
    size: int = 0
    margin: int = 0
    fit: str = "squash"
    transform: str = "dct"
    color: str = "ycbcr"
    dtype: str = "int8"
    quant_step: float = 0.0
    chroma_quant_step: float = 0.0
    bands: tuple[int, ...] = ()
    samples_per_shard: int = 0
    samples_per_block: int = -1
    val_per_class: int = -1
    seed: int = 0
    limit: int = 0
    min_class_images: int = 0
    classes: tuple[str, ...] = ()
    orientation: str = "stored"
    compression: str = "gzip"
    uncompressed: tuple[int, ...] | None = None

    def resolved(self) -> SplitConfig:
        """Return the options with their defaults filled in, checked.

        Raises:
            ConfigError: An option is out of range or does not fit the others; the sentence names it.
        """
        if self.factor not in FACTORS:
            *most, last = map(str, FACTORS)
            raise ConfigError(f"--factor {self.factor}: choose {', '.join(most)} or {last}")
        size = self.size or DEFAULT_SIZE[self.factor]
        self._check_size(size)
        quant_step = self._resolved_quant_step()
        chroma_quant_step = self._resolved_chroma_quant_step(quant_step)
        bands = self.bands or tuple(range(self.factor))
        if bands != tuple(sorted(set(bands))) or not all(0 <= b < self.factor for b in bands):
            raise ConfigError(f"--bands: choose from 0 to {self.factor - 1}, each once")
        self._check_names()
        block = self._resolved_block(size)
        if self.min_class_images < 0:
            raise ConfigError(f"--min-class-images {self.min_class_images}: choose 0 or more")
        if self.val_per_class < -1:
            raise ConfigError(f"--val-per-class {self.val_per_class}: choose 0 or more")
        return replace(
            self,
            size=size,
            quant_step=quant_step,
            chroma_quant_step=chroma_quant_step,
            bands=bands,
            samples_per_block=block,
            uncompressed={"gzip": (), "none": bands}.get(self.compression, self.uncompressed),
        )

    def _check_names(self) -> None:
        choices = {
            **{name: KNOWN[name] for name in ("fit", "transform", "color", "dtype")},
            "orientation": ORIENTATIONS,
            "compression": COMPRESSION_CHOICES,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"--{name} {getattr(self, name)}: choose {', '.join(known)}")

    def _check_size(self, size: int) -> None:
        """Check that the phases divide the size and the margin."""
        grid = math.isqrt(self.factor)
        for option, value in (("--size", size), ("--margin", self.margin)):
            if value < 0 or (value and value < grid):
                raise ConfigError(f"{option} {value} is too small: take {grid} or more for --factor {self.factor}")
            if value % grid:
                near = max(round(value / grid), 1) * grid
                raise ConfigError(f"{option} {value} does not divide by {grid}: take {near} for --factor {self.factor}")
        if size + self.margin > LARGEST_SIDE:
            raise ConfigError(f"--size and --margin add up to {size + self.margin} pixels: at most {LARGEST_SIDE}")

    @property
    def _coarse_chroma(self) -> bool:
        """True if the bands beside the mean band have a coarser step for chroma."""
        return self.color == "ycbcr" and self.transform != "none" and self.dtype == "int8" and self.factor > 1

    def _resolved_quant_step(self) -> float:
        defaults = DEFAULT_QUANT_STEP if self._coarse_chroma else DEFAULT_ONE_STEP
        step = self.quant_step or defaults[self.factor]
        if self.dtype == "float16" and self.quant_step not in (0.0, 1.0):
            raise ConfigError("--quant-step does not apply to --dtype float16: leave it out")
        _check_step("--quant-step", step)
        return 1.0 if self.dtype == "float16" else step

    def _resolved_chroma_quant_step(self, quant_step: float) -> float:
        """Return the step of chroma; that of all channels where there is but one."""
        step = self.chroma_quant_step
        if self._coarse_chroma:
            step = step or min(CHROMA_STEPS * quant_step, LARGEST_STEP)
            _check_step("--chroma-quant-step", step)
            return step
        if step not in (0.0, quant_step):
            raise ConfigError(
                f"--chroma-quant-step {step} does not apply: it is for int8, ycbcr, and 4 bands or more of a DCT"
            )
        return quant_step

    def _resolved_block(self, size: int) -> int:
        """Return the samples of a block, such that the blocks of all bands fit into LARGEST_BLOCKS bytes."""
        from ..shards_manifest.manifest import DTYPES

        sample = 3 * (size + self.margin) ** 2 * DTYPES[self.dtype].itemsize
        most = max(LARGEST_BLOCKS // sample, 1)
        block = min(DEFAULT_BLOCK, most) if self.samples_per_block == -1 else self.samples_per_block
        if block < 1 or self.samples_per_shard < 0 or self.limit < 0 or self.seed < 0:
            raise ConfigError(
                "--samples-per-block must be 1 or more; --samples-per-shard, --limit and --seed not negative"
            )
        if block > most:
            margin = f" and --margin {self.margin}" if self.margin else ""
            raise ConfigError(
                f"--samples-per-block {block}: with --size {size}{margin} a block in all bands would take "
                f"{human_bytes(block * sample)}, at most {human_bytes(LARGEST_BLOCKS)}: choose {most} or less"
            )
        return block

    def band_steps(self) -> NDArray[np.float64]:
        """Return the quantising step of each band and channel of resolved options: (K, 3), in grey levels."""
        from ..shards_manifest.spectral.transform import band_steps  # loads NumPy

        return band_steps(self.quant_step, self.chroma_quant_step, self.dtype, self.color, self.transform, self.factor)

    @property
    def geometry(self) -> Geometry:
        """What the manifests say of a stored coefficient."""
        return Geometry(self.factor, self.size, self.margin, self.fit, self.transform, self.color, self.dtype)

    def compression_of(self, band: int) -> str:
        """Return how a band is stored, one of COMPRESSIONS."""
        return "none" if band in (self.uncompressed or ()) else "gzip"

    @property
    def upright(self) -> bool:
        """True if images are turned as their EXIF says."""
        return self.orientation == "exif"

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON values, as plan.json and manifest.json record them.

        A list of classes is given by its length and its digest. Options that were added later are left out where they
        have no effect, so that older splits still compare as equal.
        """
        import hashlib  # loads OpenSSL

        from ..shards_manifest.tables import escape  # loads NumPy

        values = {JSON_NAMES.get(name, name): value for name, value in asdict(self).items()}
        for name in ("classes", "compression"):
            del values[name]
        values["bands"], values["uncompressed"] = list(self.bands), list(self.uncompressed or ())
        if self.classes:
            digest = hashlib.sha256("\n".join(map(escape, self.classes)).encode()).hexdigest()
            values["classes"] = f"{len(self.classes)} listed, SHA-256 {digest}"
        left_out = {name for name, default in ADDED_LATER.items() if values[name] == default}
        if self.chroma_quant_step == self.quant_step:  # of older splits too
            left_out.add("chroma_step")
        return {name: value for name, value in values.items() if name not in left_out}


def _check_step(option: str, step: float) -> None:
    if not 0.25 <= step <= LARGEST_STEP:
        raise ConfigError(f"{option} {step}: choose a value from 0.25 to {LARGEST_STEP:g}")


def option_name(json_name: str) -> str:
    """Return the name of an option on the command line, without dashes before it, from its name in plan.json."""
    names = {written: field for field, written in JSON_NAMES.items()}
    return names.get(json_name, json_name).replace("_", "-")


def complete_plan(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of plan.json with those that it leaves out: chroma has the step of luma there."""
    missing = {**ADDED_LATER, **({"chroma_step": plan["step"]} if "step" in plan else {})}
    return {**plan, **{name: value for name, value in missing.items() if name not in plan}}


def command_options(plan: Mapping[str, Any]) -> list[str]:
    """Return the options on the command line that give the values of plan.json; defaults are left out.

    Args:
        plan: the values; of an older split fewer, or of none but the factor.
    """
    values = {option_name(name).replace("-", "_"): value for name, value in complete_plan(plan).items()}
    shape = SplitConfig(**{name: values[name] for name in ("factor", *SHAPE) if name in values})
    steps = replace(shape, quant_step=values.get("quant_step", 0.0)).resolved()  # that of chroma depends on it
    usual = {**vars(shape.resolved()), **{name: getattr(SplitConfig, name) for name in SHAPE}}
    usual.update(chroma_quant_step=steps.chroma_quant_step, bands=list(steps.bands), uncompressed=[])
    written: dict[str, Callable[[Any], str]] = {
        "bands": lambda bands: f"--bands {ranges(bands)}",
        "classes": lambda _: "--classes LIST",
        "uncompressed": lambda bands: f"--compression {'none' if bands == values['bands'] else 'auto'}",
    }
    return [
        written[name](value) if name in written else f"--{option_name(name)} {value}"
        for name, value in values.items()
        if name == "factor" or value != usual.get(name)
    ]


def ranges(bands: Sequence[int]) -> str:
    """Return ascending numbers of bands as --bands takes them: (0, 1, 2, 3, 7) gives '0-3,7', no band 'none'."""
    pieces: list[list[int]] = []
    for band in bands:
        if pieces and pieces[-1][-1] == band - 1:
            pieces[-1][1:] = [band]
        else:
            pieces.append([band])
    return ",".join("-".join(map(str, piece)) for piece in pieces) or "none"


def parse_bands(text: str) -> tuple[int, ...]:
    """Return the numbers of a list of bands: '0-3,7' gives (0, 1, 2, 3, 7).

    Raises:
        ConfigError: The text is no such list.
    """
    bands: set[int] = set()
    for piece in text.split(","):
        found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", piece.strip())
        if not found:
            raise ConfigError(f"--bands {text}: write numbers and ranges, as in 0-3,7")
        first, last = int(found[1]), int(found[2] or found[1])
        if not first <= last < max(FACTORS):
            raise ConfigError(f"--bands {text}: {piece.strip()} is not a range of bands")
        bands.update(range(first, last + 1))
    return tuple(sorted(bands))


@dataclass(frozen=True)
class SourceOptions:
    """What the user says about a source.

    Attributes:
        kind: One of source_kinds.KINDS; empty to detect it.
        val_labels: List of labels, or the devkit, for validation images that are not sorted into classes.
        scratch: Folder for expanded files, shared by all workers. None for a temporary one; empty where the workers
            share none.
        image_column: Column of images in Parquet files; empty to choose it.
        label_column: Column of labels in Parquet files; empty to choose it.
    """

    kind: str = ""
    val_labels: str | os.PathLike[str] | None = None
    scratch: str | os.PathLike[str] | None = None
    image_column: str = ""
    label_column: str = ""


@dataclass(frozen=True)
class WorkerOptions:
    """Where the rows of a split are computed.

    Attributes:
        backend: One of runtime.backends.BACKENDS.
        address: Address of the cluster; empty for the one that its library finds.
        jobs: Number of processes; None for all cores, or all that the cluster has.
    """

    backend: str = "loky"
    address: str = ""
    jobs: int | None = None
