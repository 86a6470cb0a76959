"""TensorBoard's event files, along the samples of the run."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .errors import TrainError


def check() -> None:
    """Raise TrainError where TensorBoard is not installed."""
    if find_spec("tensorboard") is None:
        raise TrainError("--tensorboard needs the package tensorboard: pip install tensorboard")


class Events:
    """Event files in a run's folder.

    samples: after which the run goes on; what an earlier process wrote later is no longer shown.
    """

    def __init__(self, folder: Path, samples: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=samples + 1)

    def close(self) -> None:
        """End the files."""
        self._writer.close()

    def add(self, values: dict[str, Any]) -> None:
        """The numbers of a line of metrics.jsonl or steps.jsonl, which names the samples of the run so far."""
        kind = "epoch" if "epoch" in values else "steps"
        for name, value in values.items():
            if name not in ("epoch", "samples"):
                self._writer.add_scalar(f"{kind}/{name}", value, values["samples"])
        self._writer.flush()
