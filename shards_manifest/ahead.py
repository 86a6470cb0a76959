"""Calls made ahead of the use of their results, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")

AHEAD = 4  # calls asked for at once, for each thread
AHEAD_BYTES = 64 << 20  # of their results, but for a single one that is larger


def ahead(function: Callable[[S], T], items: Iterable[tuple[S, int]], threads: int) -> Iterator[T]:
    """What `function` returns for every item, in order, with up to AHEAD calls for each thread under way.

    items: with the bytes that each result takes; taken as they are needed, so there may be any number.
    With one thread nothing runs ahead: then every call is made when its result is asked for.
    """
    if threads == 1:
        yield from (function(item) for item, _ in items)
        return
    waiting: deque[tuple[int, Future[T]]] = deque()
    held = 0
    pool = ThreadPoolExecutor(threads)
    try:
        for item, size in items:
            waiting.append((size, pool.submit(function, item)))
            held += size
            while len(waiting) >= AHEAD * threads or (held > AHEAD_BYTES and len(waiting) > 1):
                first, future = waiting.popleft()
                yield future.result()
                held -= first
        for _, future in waiting:
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
