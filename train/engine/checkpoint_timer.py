"""When checkpoints are written."""

from __future__ import annotations

import time


class CheckpointTimer:
    """When a checkpoint is due: after every epoch, and within an epoch every so many seconds, about.

    Args:
        seconds: Between two checkpoints within an epoch.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = time.perf_counter()

    def due(self, epoch_ends: bool = False) -> bool:
        """Return whether it is time for one."""
        return epoch_ends or time.perf_counter() - self._last >= self._seconds

    def saved(self) -> None:
        """Note that one was written."""
        self._last = time.perf_counter()
