"""Progress of a split: a bar on a terminal, a line every ten seconds in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

from ...shards_manifest.runtime.cli_runner import human_bytes
from .shard_row import RowRecord

INTERVAL = 10.0  # seconds between two lines of a log


class SplitProgress:
    """Counts images, rejects and bytes as rows are committed, and shows them with the rate and the time left.

    On a terminal tqdm draws a bar. A log gets whole lines, as tqdm's bars are one long line there.

    Args:
        label: What is written, at the start of each line.
        total: Images of the whole split.
        stream: Where to write; None for stderr.
    """

    def __init__(self, label: str, total: int, stream: TextIO | None = None) -> None:
        self._label, self._total, self._stream = label, total, stream or sys.stderr
        self._done = self._earlier = self._rejects = self._bytes = 0
        self._started = self._last = time.monotonic()
        self._bar = None
        if self._stream.isatty():
            self._bar = tqdm(total=total, unit="img", desc=label, smoothing=0.1, file=self._stream)

    def __enter__(self) -> SplitProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif kind is None and self._done > self._earlier:
            self._print()

    def __call__(self, record: RowRecord, images: int, new: bool) -> None:
        """Count a committed row.

        Args:
            record: The row.
            images: Images that were planned for it.
            new: False if an earlier run had written it.
        """
        self._done += images
        self._rejects += len(record.rejects)
        if new:
            self._bytes += sum(band.shard.bytes for band in record.bands)
        else:
            self._earlier += images
        if self._bar is not None:
            if not new:
                self._bar.initial = self._earlier  # which tqdm leaves out of the rate
            self._bar.update(images)
            self._bar.set_postfix_str(f"{self._rejects} rejects, {human_bytes(self._bytes)}")
        elif new and self._done < self._total and time.monotonic() - self._last >= INTERVAL:
            self._print()

    def _print(self) -> None:
        self._last = time.monotonic()
        rate = (self._done - self._earlier) / max(self._last - self._started, 1e-9)
        left = tqdm.format_interval((self._total - self._done) / rate) if rate else "?"
        self._stream.write(
            f"{self._label}: {self._done} of {self._total} images, {rate:.0f} images/s, {left} left, "
            f"{self._rejects} rejects, {human_bytes(self._bytes)} written\n"
        )
        self._stream.flush()
