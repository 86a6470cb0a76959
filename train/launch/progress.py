"""How far the bands of a split are: a table, read from their run folders wherever they are trained."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from ..runs.run_folder import METRICS, STEPS
from ..shutdown import StopRequest

TAIL = 4096  # bytes at the end of a file that hold its last line
REFRESH, LOG_REFRESH = 2.0, 60.0  # seconds between two tables on a terminal, and in a log
HEAD = f"{'band':>4}  {'epoch':>9}  {'loss':>7}  {'train':>7}  {'val':>7}  {'waiting':>7}  state"


@dataclass(frozen=True)
class Reached:
    """Where a band is: its last whole epoch, the loss since, and whether something was written lately."""

    epoch: int = 0
    loss: float | None = None
    train: float | None = None
    val: float | None = None
    data_wait: float | None = None
    written: float = 0.0


def reached(run: Path) -> Reached:
    """What the last lines of a run's files say; nothing where there are none."""
    metrics, steps = _last(run / METRICS), _last(run / STEPS)
    newest = 0.0
    for name in (METRICS, STEPS):
        with suppress(OSError):
            newest = max(newest, (run / name).stat().st_mtime)
    return Reached(
        epoch=int(metrics.get("epoch", 0)),
        loss=steps.get("loss", metrics.get("train_loss")),
        train=metrics.get("train_top1"),
        val=metrics.get("val_top1"),
        data_wait=metrics.get("data_wait"),
        written=newest,
    )


def _last(path: Path) -> dict[str, Any]:
    """The last whole line of a file of JSON lines."""
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, 2) - TAIL, 0))
            lines = file.read().split(b"\n")
        found = json.loads(lines[-2])  # what follows the last newline is not written yet
    except (OSError, ValueError, IndexError):
        return {}
    return found if isinstance(found, dict) else {}


class Board:
    """Shows the table every now and then while it is entered, and at the end; hands a wish to stop on to the bands.

    runs: the run folder of each band.  stop_file: what the bands look for.  stop: of this process.
    """

    def __init__(self, runs: Mapping[str, Path], epochs: int, stop: StopRequest, stop_file: Path) -> None:
        self._runs, self._epochs, self._stop, self._stop_file = runs, epochs, stop, stop_file
        self._states: dict[str, str] = {}
        self._began = time.time()
        self._shown = ""
        self._lines = 0
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._out: TextIO = sys.stderr

    def __enter__(self) -> Board:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        with suppress(OSError):  # what ended the block is what counts, shown or not
            self._show(last=True)

    @contextmanager
    def ended(self, band: str, state: str) -> Iterator[None]:
        """Note how a band ended; what is printed meanwhile stays above the table."""
        with self._writing:
            self._states[band] = state
            self._erase()
            yield
            self._shown = ""

    def _watch(self) -> None:
        refresh = REFRESH if self._out.isatty() else LOG_REFRESH
        due = time.monotonic() + refresh
        while not self._ended.wait(0.2):
            with suppress(OSError):  # a full disk, or a terminal that is gone: a wish to stop is still handed on
                if self._stop.requested and not self._stop_file.exists():
                    self._stop_file.touch()
                if time.monotonic() >= due:
                    due = time.monotonic() + refresh
                    self._show()

    def _show(self, last: bool = False) -> None:
        with self._writing:
            text = table(self._runs, self._epochs, self._states, None if last else self._began)
            if text == self._shown and not last:
                return
            self._shown = text
            self._erase()
            if self._out.isatty():
                text = "\n".join(line[: shutil.get_terminal_size().columns - 1] for line in text.splitlines())
                self._lines = text.count("\n") + 1
            self._out.write(f"{text}\n")
            self._out.flush()

    def _erase(self) -> None:
        """Take the table off the terminal; a log keeps it."""
        if self._lines:
            self._out.write(f"\x1b[{self._lines}A\x1b[J")
            self._out.flush()
        self._lines = 0


def table(runs: Mapping[str, Path], epochs: int, states: Mapping[str, str], since: float | None = None) -> str:
    """How far the bands are, with a line that counts them.

    runs: the run folder of each band.  states: done or failed, of those that have ended.  since: show those alone that
    have written something since this time and have not ended.
    """
    rows = []
    for band, run in runs.items():
        now = reached(run)
        training = band not in states and since is not None and now.written >= since
        if training or since is None:
            rows.append(_row(band, epochs, now, states.get(band, "training" if training else "waiting")))
    done = sum(state == "done" for state in states.values())
    failed = len(states) - done
    count = f"{done} of {len(runs)} bands done" + (f", {failed} failed" if failed else "")
    return "\n".join([HEAD, *rows, count])


def _row(band: str, epochs: int, now: Reached, state: str) -> str:
    def share(value: float | None) -> str:
        return f"{value:7.2%}" if value is not None else f"{'-':>7}"

    loss = f"{now.loss:7.3f}" if now.loss is not None else f"{'-':>7}"
    place = f"{now.epoch}/{epochs}"
    return f"{band:>4}  {place:>9}  {loss}  {share(now.train)}  {share(now.val)}  {share(now.data_wait)}  {state}"
