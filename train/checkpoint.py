"""Checkpoints that carry their own configuration; loading one never unpickles code."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shards_manifest import BandManifest, LocalStore

from .errors import TrainError
from .networks import build
from .plan import TrainPlan

FORMAT = "spectral-checkpoint"
VERSION = 1


def save(
    store: LocalStore,
    name: str,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    plan: TrainPlan,
    manifest: BandManifest,
    epochs_done: int,
) -> None:
    """Write a checkpoint, whole or not at all."""
    band = asdict(manifest)
    band.pop("parts")
    content = {
        "format": FORMAT,
        "version": VERSION,
        "options": plan.result_options(),
        "band": band,
        "epochs_done": epochs_done,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    store.write(name, buffer.getvalue())


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU. Raises TrainError for a damaged or foreign file."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainError(f"{path} does not exist") from None
    except Exception as error:  # whatever torch's parser stumbles on: nothing else can fail here
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrainError(f"{path} is not a checkpoint, or damaged ({reason})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise TrainError(f"{path} is not a checkpoint of Spectral Shards")
    if content.get("version") != VERSION:
        raise TrainError(f"{path} has version {content.get('version')!r}, this release knows version {VERSION}")
    return content


def load_network(path: Path) -> nn.Module:
    """The network of a checkpoint, in evaluation mode. Raises TrainError."""
    content = load(path)
    geometry = content["band"]["geometry"]
    plane = geometry["size"] // round(geometry["factor"] ** 0.5)
    network = build(content["options"]["network"], plane, len(content["band"]["classes"]))
    network.load_state_dict(content["network"])
    return network.eval()
