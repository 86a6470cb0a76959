"""The lines of metrics.jsonl, one an epoch, and of steps.jsonl, one for some steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...shards_manifest.runtime.cli_runner import human_seconds
from ...shards_manifest.storage.local import LocalStore

METRICS = "metrics.jsonl"
STEPS = "steps.jsonl"
TAIL = 4096  # bytes at the end of a file that hold its last line


@dataclass(frozen=True)
class StepLine:
    """Some steps.

    Attributes:
        samples: Samples that the run has been trained on.
        loss: Mean loss of the samples of these steps.
        lr: Learning rate of the last one.
    """

    samples: int
    loss: float
    lr: float

    def to_json(self) -> dict[str, Any]:
        """Return the line as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class EpochLine:
    """A whole epoch.

    Attributes:
        epoch: Counted from 1.
        samples: Samples that the run has been trained on.
        train_loss, train_top1: Means over the samples of the epoch, while they were trained on.
        train_seconds: Seconds of the steps.
        data_wait: Share of them that was spent waiting for batches, 0 to 1.
        lost: Samples that could not be read.
        lr: Learning rate of the last step.
        evaluations: For each evaluated part ('holdout', 'val') the metrics, and samples lost.
    """

    epoch: int
    samples: int
    train_loss: float
    train_top1: float
    train_seconds: float
    data_wait: float
    lost: int
    lr: float
    evaluations: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the line as JSON values; a metric of a part is PART_METRIC."""
        values = asdict(self)
        for part, metrics in values.pop("evaluations").items():
            values |= {f"{part}_{name}": value for name, value in metrics.items()}
        return values

    def text(self, epochs: int, left: float) -> str:
        """Return the line for a terminal.

        Args:
            epochs: of the whole run.
            left: seconds that the rest of it will take.
        """
        val, holdout = self.evaluations.get("val"), self.evaluations.get("holdout")
        kept = f"  holdout {holdout['top1']:6.2%}" if holdout else ""
        scores = f"  val loss {val['loss']:.3f}  top-1 {val['top1']:6.2%}  top-5 {val['top5']:6.2%}" if val else ""
        lost = f", {self.lost} samples lost" if self.lost else ""
        return (
            f"epoch {self.epoch:3d}/{epochs}  loss {self.train_loss:.3f}  train {self.train_top1:6.2%}{kept}{scores}"
            f"  {self.train_seconds:.1f} s, {self.data_wait:.1%} waiting for data{lost}"
            + (f", {human_seconds(left)} left" if left else "")
        )


def append(store: LocalStore, name: str, values: Mapping[str, Any]) -> None:
    """Add a line to a file. Raises OSError."""
    with store.path(name).open("a") as file:
        file.write(json.dumps(values, sort_keys=True) + "\n")


def prune(store: LocalStore, name: str, samples: int, epochs: int) -> None:
    """Keep the lines of a run that goes on after so many samples and whole epochs. Raises StoreError."""
    lines = store.read(name).splitlines(keepends=True) if store.exists(name) else []
    store.write(name, b"".join(line for line in lines if _belongs(line, samples, epochs)))


def last_line(path: Path) -> dict[str, Any]:
    """Return the last whole line of a file of JSON lines; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, 2) - TAIL, 0))
            lines = file.read().split(b"\n")
        found = json.loads(lines[-2])  # what follows the last newline is not written yet
    except (OSError, ValueError, IndexError):
        return {}
    return found if isinstance(found, dict) else {}


def _belongs(line: bytes, samples: int, epochs: int) -> bool:
    """Return whether a line is of the run so far. Half a line, as a killed process may leave, is not."""
    try:
        found = json.loads(line)
        return bool(0 < found["samples"] <= samples and found.get("epoch", 0) <= epochs)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
