"""How far a split is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

from ...shards_manifest.runtime.cli_runner import human_bytes
from .shard_row import RowRecord

INTERVAL = 10.0  # seconds between two lines of a log


class Meter:
    """Counts images, rejects and bytes as rows are committed, and shows them with the rate and the time left."""

    def __init__(self, label: str, total: int, stream: TextIO = sys.stderr) -> None:
        self._label, self._total, self._stream = label, total, stream
        self._done = self._found = self._rejects = self._bytes = 0
        self._started = self._last = time.monotonic()
        self._bar = tqdm(total=total, unit="img", desc=label, smoothing=0.1, file=stream) if stream.isatty() else None

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif kind is None and self._done > self._found:
            self._print()

    def __call__(self, record: RowRecord, candidates: int, new: bool) -> None:
        """Take in a committed row of so many candidates, written now or found from an earlier run."""
        self._done += candidates
        self._rejects += len(record.rejects)
        if new:
            self._bytes += sum(band.shard.bytes for band in record.bands)
        else:
            self._found += candidates
        if self._bar is not None:
            if not new:  # no part of the rate
                self._bar.initial = self._found
            self._bar.update(candidates)
            self._bar.set_postfix_str(f"{self._rejects} rejects, {human_bytes(self._bytes)}")
        elif new and self._done < self._total and time.monotonic() - self._last >= INTERVAL:
            self._print()

    def _print(self) -> None:
        self._last = time.monotonic()
        rate = (self._done - self._found) / max(self._last - self._started, 1e-9)
        left = tqdm.format_interval((self._total - self._done) / rate) if rate else "?"
        self._stream.write(
            f"{self._label}: {self._done} of {self._total} images, {rate:.0f} images/s, {left} left, "
            f"{self._rejects} rejects, {human_bytes(self._bytes)} written\n"
        )
        self._stream.flush()
