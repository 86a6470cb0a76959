"""The encoded images of a row, read in order; ahead of use where their source is far away."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from .errors import RejectedImage, SourceError
from .listing import Entries
from .sources import Source

AHEAD = 4  # images asked for at once, for each thread that reads
AHEAD_BYTES = 64 << 20  # of them, but for a single image that is larger


@dataclass(frozen=True)
class Images:
    """Some samples of one part of a source. part, classes: as in its listing."""

    source: Source
    part: str
    classes: tuple[str, ...]
    entries: Entries

    def __len__(self) -> int:
        return len(self.entries)

    def read(self, i: int) -> bytes:
        """The encoded bytes of image i. Raises RejectedImage, StoreError, and SourceError, naming it."""
        class_name = self.classes[int(self.entries.label[i])]
        try:
            return self.source.read(self.part, class_name, self.entries, i)
        except OSError as error:  # not a reject: a disk that went away must not cost images
            key = f"{class_name}/{self.entries.name(i).decode('utf-8', 'backslashreplace')}"
            raise SourceError(
                f"cannot read {key} of the source ({error.strerror or error}): mend it and run again"
            ) from None

    def __iter__(self) -> Iterator[bytes | RejectedImage]:
        """Every image, or why it cannot be used. Raises StoreError, SourceError."""
        threads = self.source.threads
        if threads == 1:
            yield from map(self._outcome, range(len(self)))
            return
        sizes = self.entries.size.clip(min=0).tolist()
        waiting: deque[tuple[int, Future[bytes | RejectedImage]]] = deque()
        held = 0
        pool = ThreadPoolExecutor(threads)
        try:
            for i, size in enumerate(sizes):
                waiting.append((size, pool.submit(self._outcome, i)))
                held += size
                while len(waiting) >= AHEAD * threads or (held > AHEAD_BYTES and len(waiting) > 1):
                    first, outcome = waiting.popleft()
                    yield outcome.result()
                    held -= first
            for _, outcome in waiting:
                yield outcome.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _outcome(self, i: int) -> bytes | RejectedImage:
        try:
            return self.read(i)
        except RejectedImage as reason:
            return reason
