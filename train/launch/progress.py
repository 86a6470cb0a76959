"""How far the networks of a split are: a table, read from their run folders wherever they are trained."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TextIO

from ..runs.metrics_log import METRICS, STEPS, last_line
from ..shutdown import StopRequest

REFRESH, LOG_REFRESH = 2.0, 60.0  # seconds between two tables on a terminal, and in a log


@dataclass(frozen=True)
class NetworkProgress:
    """How far a network is; None for what is not known yet.

    Attributes:
        epoch: the last whole epoch, from 1; 0 before.
        loss: of the latest steps.
        train: top-1 on train in the last epoch, as a fraction.
        val: top-1 on val after the last epoch, as a fraction.
        data_wait: fraction of the last epoch that steps spent waiting for data.
        written: when the run last wrote a line, in seconds since 1970; 0 for never.
    """

    epoch: int = 0
    loss: float | None = None
    train: float | None = None
    val: float | None = None
    data_wait: float | None = None
    written: float = 0.0


@dataclass(frozen=True)
class ProgressRow:
    """A row of the table: a network, the epochs of its recipe, how far it is, and its state in one word."""

    name: str
    epochs: int
    progress: NetworkProgress
    state: str


@dataclass(frozen=True)
class ProgressColumn:
    """A column of the table.

    Attributes:
        title: its heading.
        width: in characters; cells are aligned right.
        format: of its cells, as of str.format with one value.
        value: returns the value of a row; None is shown as a dash.
    """

    title: str
    width: int
    format: str
    value: Callable[[ProgressRow], object]

    def cell(self, row: ProgressRow) -> str:
        """Return the text of a row in this column."""
        value = self.value(row)
        return f"{'-' if value is None else self.format.format(value):>{self.width}}"


COLUMNS = (
    ProgressColumn("bands", 5, "{}", lambda row: row.name),
    ProgressColumn("epoch", 9, "{}", lambda row: f"{row.progress.epoch}/{row.epochs}"),
    ProgressColumn("loss", 7, "{:.3f}", lambda row: row.progress.loss),
    ProgressColumn("train", 7, "{:.2%}", lambda row: row.progress.train),
    ProgressColumn("val", 7, "{:.2%}", lambda row: row.progress.val),
    ProgressColumn("data_wait", 9, "{:.2%}", lambda row: row.progress.data_wait),
    ProgressColumn("state", 0, "{}", lambda row: row.state),
)


def read_progress(run: Path) -> NetworkProgress:
    """Return how far a run is, from the last lines of the files in its folder."""
    metrics, steps = last_line(run / METRICS), last_line(run / STEPS)
    newest = 0.0
    for name in (METRICS, STEPS):
        with suppress(OSError):
            newest = max(newest, (run / name).stat().st_mtime)
    return NetworkProgress(
        epoch=int(metrics.get("epoch", 0)),
        loss=steps.get("loss", metrics.get("train_loss")),
        train=metrics.get("train_top1"),
        val=metrics.get("val_top1"),
        data_wait=metrics.get("data_wait"),
        written=newest,
    )


def progress_table(
    runs: Mapping[str, Path], epochs: int, states: Mapping[str, str], active_since: float | None = None
) -> str:
    """Return how far the networks are, and a line that counts them.

    Args:
        runs: the run folder of each network, by its name.
        epochs: of the recipe.
        states: done or failed, of the networks that have ended.
        active_since: show only networks that have written a line since this time and have not ended; None to show all.
    """
    rows = []
    for name, run in runs.items():
        progress = read_progress(run)
        active = name not in states and active_since is not None and progress.written >= active_since
        if active or active_since is None:
            state = states.get(name, "training" if active else "waiting")
            rows.append(ProgressRow(name, epochs, progress, state))
    done = sum(state == "done" for state in states.values())
    failed = len(states) - done
    first = max([COLUMNS[0].width, *map(len, runs)])  # names are as long as their bands are many
    columns = (replace(COLUMNS[0], width=first), *COLUMNS[1:])
    return "\n".join(
        [
            "  ".join(f"{column.title:>{column.width}}" for column in columns),
            *("  ".join(column.cell(row) for column in columns) for row in rows),
            f"{done} of {len(runs)} networks done" + (f", {failed} failed" if failed else ""),
        ]
    )


class ProgressBoard:
    """Shows the table on stderr now and then while it is entered, and once at the end.

    Its thread also passes a request to stop on to the networks, by the file that they look for.

    Args:
        runs: the run folder of each network, by its name.
        epochs: of the recipe.
        stop: the request to stop of this process.
        stop_file: the file that stops the networks.
        quiet: show nothing; the thread passes requests on all the same.
    """

    def __init__(
        self, runs: Mapping[str, Path], epochs: int, stop: StopRequest, stop_file: Path, quiet: bool = False
    ) -> None:
        self._runs, self._epochs, self._stop, self._stop_file = runs, epochs, stop, stop_file
        self._states: dict[str, str] = {}
        self._started = time.time()
        self._shown = ""
        self._lines = 0  # of the table on the terminal
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._out: TextIO | None = None if quiet else sys.stderr

    def __enter__(self) -> ProgressBoard:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        with suppress(OSError):  # the error that ended the block is more important
            self._show(last=True)

    @contextmanager
    def ended(self, name: str, state: str) -> Iterator[None]:
        """Note that a network has ended; what is printed in the block stays above the table.

        Args:
            name: of its run folder.
            state: done or failed.
        """
        with self._writing:
            self._states[name] = state
            self._erase()
            yield
            self._shown = ""

    def _watch(self) -> None:
        refresh = REFRESH if self._out and self._out.isatty() else LOG_REFRESH
        due = time.monotonic() + refresh
        while not self._ended.wait(0.2):
            with suppress(OSError):  # a full disk, or a terminal that is gone: a request to stop is still passed on
                if self._stop.requested and not self._stop_file.exists():
                    self._stop_file.touch()
                if time.monotonic() >= due:
                    due = time.monotonic() + refresh
                    self._show()

    def _show(self, last: bool = False) -> None:
        if self._out is None:
            return
        with self._writing:
            text = progress_table(self._runs, self._epochs, self._states, None if last else self._started)
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
        """Take the table off the terminal; in a log it stays."""
        if self._out and self._lines:
            self._out.write(f"\x1b[{self._lines}A\x1b[J")
            self._out.flush()
        self._lines = 0
