"""Ctrl-C and SIGTERM, granted between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """asked: that the run should end soon. A second signal ends it at once, as does any outside `granting`."""

    def __init__(self) -> None:
        self.asked = False
        self._granting = False
        self._signal = signal.SIGINT

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
    def granting(self, granting: bool = True) -> Iterator[None]:
        """What is in here looks at `asked` itself; with False, within that, it may be left at any point again."""
        before, self._granting = self._granting, granting
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
        self._signal = signal.Signals(number)
        at_once = self.asked or not self._granting
        self.asked = True
        if at_once:
            self.now()
