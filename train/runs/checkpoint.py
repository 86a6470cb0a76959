"""Checkpoints that carry their own configuration. Loading one never unpickles code."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...shards_manifest.errors import FormatError
from ...shards_manifest.manifest import BandManifest, canonical_json, dump, load_band
from ..errors import TrainError
from .run_record import RunIdentity

FORMAT = "spectral-checkpoint"
VERSION = 8


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        loader: Where the samples go on (`BandLoader.state_dict`).
        totals: What the unfinished epoch added up to so far (`EpochTotals`).
        train_top1: Of the last whole epoch.
        best_top1, best_epoch: The best epoch so far, counted from 1; 0 for none.
        seconds: Of the run.
    """

    loader: Mapping[str, int]
    totals: Mapping[str, float] = field(default_factory=dict)
    train_top1: float = 0.0
    best_top1: float = 0.0
    best_epoch: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Checkpoint:
    """A network with its configuration and all that is needed to go on.

    Attributes:
        identity: The run that it belongs to.
        bands: The manifests of the bands that the network reads, without their parts.
        progress: How far the run is.
        state: Tensors of the network, the averaged weights, the optimizer and the scaler (`TrainStep.state_dict`).
    """

    identity: RunIdentity
    bands: tuple[BandManifest, ...]
    progress: Progress
    state: Mapping[str, Any]

    @staticmethod
    def of(
        identity: RunIdentity, bands: Sequence[BandManifest], progress: Progress, state: Mapping[str, Any]
    ) -> Checkpoint:
        """Return a checkpoint of a run on some bands."""
        return Checkpoint(identity, tuple(replace(band, parts={}) for band in bands), progress, state)

    def to_bytes(self) -> bytes:
        """Return the bytes of the file."""
        head = {"identity": self.identity, "progress": self.progress}
        buffer = io.BytesIO()
        torch.save(
            {
                "format": FORMAT,
                "version": VERSION,
                "head": canonical_json(head).decode(),
                "bands": [dump(band).decode() for band in self.bands],
                **self.state,
            },
            buffer,
        )
        return buffer.getvalue()

    def network(self) -> nn.Module:
        """Return the network, with the averaged weights if there are any, in evaluation mode. Raises TrainError."""
        options = self.identity.options.network
        network = options.build(options.shape(self.bands))
        network.load_state_dict(self.state.get("ema", self.state["network"]))
        return network.eval()


def load_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint of a file, with its tensors on the CPU.

    Raises:
        TrainError: The file is missing, damaged, of another kind or of another version.
    """
    found = _tensors(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise TrainError(f"{path} is not a checkpoint of Spectral Shards")
    if found.get("version") != VERSION:
        there = f"{path} has version {found.get('version')!r}, this release knows version {VERSION}"
        raise TrainError(f"{there}: train again, with --no-resume")
    try:
        head = json.loads(found["head"])
        bands = tuple(load_band(band.encode(), str(path)) for band in found["bands"])
        state = {name: value for name, value in found.items() if name not in ("format", "version", "head", "bands")}
        return Checkpoint(RunIdentity.from_json(head["identity"]), bands, Progress(**head["progress"]), state)
    except (FormatError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainError(f"{path} is not a checkpoint, or damaged ({error})") from None


def load_network(path: Path) -> nn.Module:
    """Return the network of a checkpoint file (`Checkpoint.network`). Raises TrainError."""
    return load_checkpoint(path).network()


def _tensors(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as file:
            altered = file.testzip()  # torch does not look at its checksums
    except Exception:  # damage makes zipfile raise many things
        altered = None  # torch says what is wrong
    if altered is not None:
        raise TrainError(f"{path} was altered (the checksum of its {altered} is not right): copy it again")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainError(f"{path} does not exist") from None
    except Exception as error:  # whatever torch's parser stumbles on: nothing else can fail here
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "weights_only" in reason:  # torch's advice to trust the file
            reason = "it holds more than weights"
        raise TrainError(f"{path} is not a checkpoint, or damaged ({reason})") from None
