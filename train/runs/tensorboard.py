"""TensorBoard's event files, along the samples of the run."""

from __future__ import annotations

import os
import socket
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import TrainError


def check() -> None:
    """Raise TrainError where TensorBoard is not installed."""
    if find_spec("tensorboard") is None:
        raise TrainError("--tensorboard needs the package tensorboard: pip install tensorboard")


class EventFile:
    """An event file in a run's folder. It is appended to, as the run's JSON lines are.

    torch's own writer does that in a thread, which ends with a traceback on a full disk.

    Args:
        folder: The run's folder.
        samples: Samples after which the run goes on; what an earlier process wrote for later ones is no longer shown.

    Raises:
        OSError: From every method, where the disk refuses.
    """

    def __init__(self, folder: Path, samples: int) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog

        seconds, nanoseconds = divmod(time.time_ns(), 10**9)  # TensorBoard reads files in the order of their names
        started = f"{seconds:010d}.{nanoseconds:09d}"
        unique = f"{started}.{socket.gethostname()}.{os.getpid()}.{os.urandom(4).hex()}"
        self._path = folder / f"events.out.tfevents.{unique}"
        start = SessionLog(status=SessionLog.START)
        self._append(
            {"step": samples + 1, "file_version": "brain.Event:2"}, {"step": samples + 1, "session_log": start}
        )

    def add(self, values: dict[str, Any]) -> None:
        """Add the numbers of a line of metrics.jsonl or steps.jsonl, at the samples that it names."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        kind = "epoch" if "epoch" in values else "steps"
        shown = {f"{kind}/{name}": value for name, value in values.items() if name not in ("epoch", "samples")}
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in shown.items()])
        self._append({"step": values["samples"], "summary": summary})

    def _append(self, *contents: dict[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        with self._path.open("ab") as file:
            for content in contents:
                RecordWriter(file).write(Event(wall_time=time.time(), **content).SerializeToString())
