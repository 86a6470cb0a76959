"""Ctrl-C, SIGTERM and what else ends a run, granted between two steps."""

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
LOOK = 1.0  # seconds between two looks at the file and the parent
ECHO = 2.0  # seconds in which signals are one wish: torchrun and `timeout` send one to a process that had it already


class Stop:
    """Whether the run should end soon. A second signal, ECHO later, ends it at once, as does any outside `granting`.

    file: there when the run should end, for processes of other machines that no signal reaches.  parent: the process
    that this one works for, and ends with; 0 for none.
    """

    def __init__(self, file: Path | None = None, parent: int = 0) -> None:
        self._file, self._parent = file, parent
        self._asked = self._granting = False
        self._signal = signal.SIGINT
        self._first: float | None = None  # when a signal was heard
        self._looked = 0.0

    @property
    def asked(self) -> bool:
        """That the run should end."""
        if not self._asked and (self._file or self._parent) and time.monotonic() - self._looked >= LOOK:
            self._looked = time.monotonic()
            alone = self._parent and os.getppid() != self._parent
            self._asked = bool(alone or (self._file and self._file.exists()))
        return self._asked

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals; only the main thread can."""
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
        """What is in here looks at `asked` itself; with False, within that, it may be left at any point again."""
        before, self._granting = self._granting, deferred
        try:
            yield
        finally:
            self._granting = before

    def now(self) -> None:
        """End the run: KeyboardInterrupt for Ctrl-C, SystemExit for SIGTERM."""
        if self._signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    def _caught(self, number: int, frame: FrameType | None) -> None:
        now, first = time.monotonic(), self._first
        if first is not None and now - first < ECHO:
            return
        self._signal = signal.Signals(number)
        self._first = now if first is None else first
        self._asked = True
        if first is not None or not self._granting:
            self.now()
