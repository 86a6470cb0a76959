"""What is written down of a run: which data and options it is of, and how it ended. run.json has all of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ...shards_manifest.manifest import BandManifest, Geometry, canonical_json
from ..config import RunOptions, TrainPlan
from ..errors import TrainError

FORMAT = "spectral-run"
VERSION = 6
RUN = "run.json"


@dataclass(frozen=True)
class RunData:
    """The data of a run.

    Attributes:
        dataset, geometry: As in the manifests of the bands.
        bands: The numbers of the bands that the network reads, in the order of its input's channels.
        classes: The number of classes.
        order: The digest of the sample order of each part.
        sha256: Over the shards' own: it changes with any stored byte.
    """

    dataset: str
    geometry: Geometry
    bands: tuple[int, ...]
    classes: int
    order: Mapping[str, str]
    sha256: str

    @staticmethod
    def of(bands: Sequence[BandManifest]) -> RunData:
        """Return what a run on some bands is known by."""
        first = bands[0]
        parts = [part for band in bands for _, part in sorted(band.parts.items())]
        hashes = [shard.sha256 for part in parts for shard in part.shards]
        return RunData(
            dataset=first.dataset,
            geometry=first.geometry,
            bands=tuple(band.band for band in bands),
            classes=len(first.classes),
            order={name: part.digest for name, part in first.parts.items()},
            sha256=hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
        )

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> RunData:
        """Read it. Raises KeyError, TypeError or ValueError."""
        return RunData(
            dataset=str(raw["dataset"]),
            geometry=Geometry(**raw["geometry"]),
            bands=tuple(int(band) for band in raw["bands"]),
            classes=int(raw["classes"]),
            order={str(name): str(digest) for name, digest in raw["order"].items()},
            sha256=str(raw["sha256"]),
        )


@dataclass(frozen=True)
class RunIdentity:
    """What a run is known by: its data, and the options that change its result."""

    data: RunData
    options: RunOptions

    @staticmethod
    def of(bands: Sequence[BandManifest], plan: TrainPlan) -> RunIdentity:
        """Return the identity of the run of a plan on some bands."""
        return RunIdentity(RunData.of(bands), plan.result_options())

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> RunIdentity:
        """Read it. Raises KeyError, TypeError or ValueError."""
        return RunIdentity(RunData.from_json(raw["data"]), RunOptions.from_json(raw["options"]))

    def difference(self, wanted: RunIdentity, any_precision: bool = False) -> str:
        """Return in what this differs from the identity that is wanted, in words; empty if in nothing.

        Args:
            wanted: The other identity.
            any_precision: The precisions may differ.
        """
        there, here = (json.loads(canonical_json(identity)) for identity in (self, wanted))
        if any_precision:
            del there["options"]["precision"], here["options"]["precision"]
        for section in ("data", "options"):
            # the digest of the shards changes with everything else, so it is named last
            for key in sorted(here[section], key=lambda key: (key == "sha256", key)):
                if there[section][key] != here[section][key]:
                    return _in_words(key, there[section][key], here[section][key])
        return ""


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        top1, top5, loss: On val, 0 to 1 and in nats; None where the band has no val part.
        holdout_top1: On the holdout; None where there is none.
        train_top1: On the samples of the last epoch, while it was trained.
        best_epoch: The epoch of best.pt, counted from 1; None where nothing was evaluated.
        seconds: Of all epochs with their evaluations.
        parameter_bytes: Of the float32 parameters.
        multiply_adds: Of one image's forward pass.
    """

    top1: float | None
    top5: float | None
    loss: float | None
    holdout_top1: float | None
    train_top1: float
    best_epoch: int | None
    seconds: float
    parameter_bytes: int
    multiply_adds: int


@dataclass(frozen=True)
class RunRecord:
    """A finished run: its identity, the names of its classes, and its result."""

    identity: RunIdentity
    classes: tuple[str, ...]
    result: Result

    def to_bytes(self) -> bytes:
        """Return the bytes of run.json."""
        return canonical_json(
            {
                "format": FORMAT,
                "version": VERSION,
                "data": self.identity.data,
                "options": self.identity.options,
                "classes": self.classes,
                "result": self.result,
            }
        )


def read_run(path: Path) -> RunRecord:
    """Return the record of the finished run in a folder.

    Raises:
        TrainError: There is none, or it is damaged, or of another version.
    """
    where = path / RUN
    try:
        raw: dict[str, Any] = json.loads(where.read_bytes())
        if raw["format"] != FORMAT or raw["version"] != VERSION:
            raise TrainError(f"{where} is of a version that this release does not know: train again, with --no-resume")
        result = Result(**{field.name: raw["result"][field.name] for field in fields(Result)})
        return RunRecord(RunIdentity.from_json(raw), tuple(raw["classes"]), result)
    except FileNotFoundError:
        raise TrainError(f"{where} does not exist: the run is not finished") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainError(f"{where} is damaged ({error})") from None


def _in_words(key: str, there: Any, here: Any) -> str:
    """Return in what two identities differ that have other values under `key`."""
    if key == "sha256":
        return "data that has changed: the shards hold other bytes"
    if key == "order":
        return "other samples, or the same in another order"
    if key == "bands":
        there, here = ("+".join(map(str, bands)) for bands in (there, here))
    if isinstance(here, dict):
        inner = there if isinstance(there, dict) else {}
        name = next((name for name, value in here.items() if inner.get(name) != value), "")
        there, here, key = inner.get(name), here.get(name), f"{key} {name}".strip()
    return f"{key.replace('_', '-')} {there} there, {here} here"
