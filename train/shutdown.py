"""Requests to end a run: Ctrl-C, SIGTERM and others, deferred until a step is done."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
POLL_SECONDS = 1.0  # between two looks at the file and the parent
REPEAT_SECONDS = 2.0  # signals within this time are one request: torchrun and `timeout` send one twice


class StopRequest:
    """Whether the run was asked to end.

    A first signal inside `deferred` only makes `requested` true. Outside of it a signal ends the run at once, and so
    does a second signal that comes REPEAT_SECONDS after the first.

    Args:
        file: exists when the run should end; it reaches processes of other machines, which signals do not.
        parent: id of the process that this one works for, and ends with; 0 for none.
    """

    def __init__(self, file: Path | None = None, parent: int = 0) -> None:
        self._file, self._parent = file, parent
        self._requested = self._deferring = False
        self._signal = signal.SIGINT
        self._first_signal: float | None = None  # the time of it
        self._polled = 0.0

    @property
    def requested(self) -> bool:
        """Whether the run should end."""
        if not self._requested and (self._file or self._parent) and time.monotonic() - self._polled >= POLL_SECONDS:
            self._polled = time.monotonic()
            orphaned = self._parent and os.getppid() != self._parent
            self._requested = bool(orphaned or (self._file and self._file.exists()))
        return self._requested

    @contextmanager
    def catching_signals(self) -> Iterator[None]:
        """Catch SIGINT and SIGTERM while the block runs, if this is the main thread; no other thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._caught) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self, deferred: bool = True) -> Iterator[None]:
        """Defer signals while the block runs: the block looks at `requested` by itself.

        Args:
            deferred: False, within such a block, lets a signal end the inner block at any point.
        """
        before, self._deferring = self._deferring, deferred
        try:
            yield
        finally:
            self._deferring = before

    def end_now(self) -> None:
        """End the run: raise KeyboardInterrupt after Ctrl-C, SystemExit after SIGTERM."""
        if self._signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    def _caught(self, number: int, frame: FrameType | None) -> None:
        now, first = time.monotonic(), self._first_signal
        if first is not None and now - first < REPEAT_SECONDS:
            return
        self._signal = signal.Signals(number)
        self._first_signal = now if first is None else first
        self._requested = True
        if first is not None or not self._deferring:
            self.end_now()
