"""TensorBoard's event files, along the samples of the run."""

from __future__ import annotations

import os
import socket
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .errors import TrainError


def check() -> None:
    """Raise TrainError where TensorBoard is not installed."""
    if find_spec("tensorboard") is None:
        raise TrainError("--tensorboard needs the package tensorboard: pip install tensorboard")


class Events:
    """An event file in a run's folder, written as it is added to: torch's own writer has a thread, which a full disk
    ends with a traceback.

    samples: after which the run goes on; what an earlier process wrote later is no longer shown.
    Raises OSError where the disk refuses.
    """

    def __init__(self, folder: Path, samples: int) -> None:
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event = event_pb2.Event
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{os.urandom(4).hex()}"
        self._records = RecordWriter((folder / name).open("wb"))
        self._put(step=samples + 1, file_version="brain.Event:2")
        self._put(step=samples + 1, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))
        self._records.flush()

    def close(self) -> None:
        """End the file."""
        self._records.close()

    def add(self, values: dict[str, Any]) -> None:
        """The numbers of a line of metrics.jsonl or steps.jsonl, which names the samples of the run so far."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        kind = "epoch" if "epoch" in values else "steps"
        shown = {f"{kind}/{name}": value for name, value in values.items() if name not in ("epoch", "samples")}
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in shown.items()])
        self._put(step=values["samples"], summary=summary)
        self._records.flush()

    def _put(self, **content: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **content).SerializeToString())
