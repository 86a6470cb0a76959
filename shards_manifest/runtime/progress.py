"""Progress of what may take long: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import NoReturn, TextIO

from tqdm import tqdm

LOG_INTERVAL = 10.0  # seconds between two lines of a log
DELAY = 1.0  # seconds in which a quick command has ended, and shows nothing


class ProgressLine:
    """Shows on stderr how far a command is, while the block that enters it runs.

    On a terminal tqdm draws a bar as wide as the terminal, which is gone at the end. A log gets whole lines, as tqdm's
    bars are one long line there.

    Args:
        label: What is done, at the start of each line.
        unit: What is counted; nothing for a command of stages.
        total: How many there are; None if that is not known.
        done: How many an earlier run has done.
        quiet: Show nothing.
        interval: Seconds between two lines of a log.
        stream: Where to write; None for stderr.
    """

    def __init__(
        self,
        label: str,
        unit: str = "",
        total: int | None = None,
        done: int = 0,
        quiet: bool = False,
        interval: float = LOG_INTERVAL,
        stream: TextIO | None = None,
    ) -> None:
        self._label, self._unit, self._total, self._interval = label, unit, total, interval
        self._stream = stream or sys.stderr
        self._done = self._earlier = done
        self._note = ""
        self._started = self._last = time.monotonic()
        self._bar: tqdm[NoReturn] | None = None
        self._log = not quiet and not self._stream.isatty()
        if not quiet and not self._log:
            self._bar = tqdm(
                desc=label,
                unit=unit,
                total=total,
                initial=done,
                delay=DELAY,
                leave=False,
                dynamic_ncols=True,
                file=self._stream,
                bar_format=None if unit else "{desc}",
            )

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, count: int, note: str = "") -> None:
        """Count what has been done since the last call. note: what else is known, as in `loss 2.3`."""
        self._done, self._note = self._done + count, note
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
        elif self._due() and self._done != self._total:
            self._print(self._counts())

    def skip(self, count: int) -> None:
        """Count what an earlier run has done, and leave it out of the rate."""
        self._done, self._earlier = self._done + count, self._earlier + count
        if self._bar is not None:
            self._bar.initial = self._earlier
            self._bar.update(count)

    def stage(self, text: str) -> None:
        """Say what is done from now on."""
        if self._bar is not None and time.monotonic() - self._started >= DELAY:
            self._bar.set_description_str(f"{self._label}: {text}")
        elif self._due():
            self._print(text)

    def _due(self) -> bool:
        return self._log and time.monotonic() - self._last >= self._interval

    def _counts(self) -> str:
        total = "" if self._total is None else f" of {self._total}"
        text = f"{self._done}{total} {self._unit}"
        rate = (self._done - self._earlier) / (time.monotonic() - self._started)
        text += f", {rate:.4g} {self._unit}/s"
        if self._total is not None and rate:
            text += f", {tqdm.format_interval((self._total - self._done) / rate)} left"
        return f"{text}, {self._note}" if self._note else text

    def _print(self, text: str) -> None:
        self._last = time.monotonic()
        self._stream.write(f"{self._label}: {text}\n")
        self._stream.flush()
