"""Checkpoints that carry their own configuration; loading one never unpickles code."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...shards_manifest.manifest import BandManifest, canonical_json

from ..errors import TrainError
from ..networks import build

FORMAT = "spectral-checkpoint"
VERSION = 4


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    reader: of Epochs.state_dict.  sums: of the unfinished epoch so far.  train_top1: of the last whole epoch.
    best, best_epoch: top-1 of the best epoch so far, and its number from 1; 0 for none.  seconds: of the run.
    """

    reader: dict[str, int]
    sums: dict[str, float] = field(default_factory=dict)
    train_top1: float = 0.0
    best: float = 0.0
    best_epoch: int = 0
    seconds: float = 0.0


def content(identity: dict[str, Any], manifest: BandManifest, state: dict[str, Any], progress: Progress) -> bytes:
    """A checkpoint. identity: which run it belongs to.  state: of a session."""
    band = asdict(manifest)
    band.pop("parts")
    buffer = io.BytesIO()
    torch.save(
        {
            "format": FORMAT,
            "version": VERSION,
            "identity": json.loads(canonical_json(identity)),
            "band": band,
            "progress": asdict(progress),
            **state,
        },
        buffer,
    )
    return buffer.getvalue()


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU. Raises TrainError for a damaged or foreign file."""
    try:
        with zipfile.ZipFile(path) as file:
            altered = file.testzip()  # torch does not look at its checksums
    except Exception:  # damage makes zipfile raise many things
        altered = None  # torch says what is wrong
    if altered is not None:
        raise TrainError(f"{path} was altered (the checksum of its {altered} is not right): copy it again")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainError(f"{path} does not exist") from None
    except Exception as error:  # whatever torch's parser stumbles on: nothing else can fail here
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "weights_only" in reason:  # torch's advice to trust the file
            reason = "it holds more than weights"
        raise TrainError(f"{path} is not a checkpoint, or damaged ({reason})") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise TrainError(f"{path} is not a checkpoint of Spectral Shards")
    if found.get("version") != VERSION:
        raise TrainError(f"{path} has version {found.get('version')!r}, this release knows version {VERSION}")
    return found


def load_network(path: Path) -> nn.Module:
    """The network of a checkpoint file, as `network_of` gives it. Raises TrainError."""
    return network_of(load(path))


def network_of(found: dict[str, Any]) -> nn.Module:
    """The network of a checkpoint, with the averaged weights if it has them, in evaluation mode. Raises TrainError."""
    geometry = found["band"]["geometry"]
    plane = geometry["size"] // round(geometry["factor"] ** 0.5)
    network = build(found["identity"]["options"]["network"], plane, len(found["band"]["classes"]))
    network.load_state_dict(found.get("average", found["network"]))
    return network.eval()
