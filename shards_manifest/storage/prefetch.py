"""Calls made by other threads: ahead of the use of their results, or to be left when a signal comes.

The threads do not keep a process alive: a process whose server does not answer has to be able to end.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")

AHEAD = 4  # calls under way at once, for each thread
AHEAD_BYTES = 64 << 20  # of their results; more only for a single result that is larger


def ahead(function: Callable[[S], T], items: Iterable[tuple[S, int]], threads: int) -> Generator[T, None, None]:
    """Yield what `function` returns for every item, in order, with up to AHEAD calls for each thread under way.

    Args:
        function: What to call.
        items: Each with the bytes that its result takes; taken as they are needed, so there may be any number.
        threads: How many call. With one, nothing runs ahead: every call is made when its result is asked for.
    """
    if threads == 1:
        yield from (function(item) for item, _ in items)
        return
    waiting: deque[tuple[int, Future[T]]] = deque()
    asked: SimpleQueue[tuple[Future[T], Callable[[], T]] | None] = SimpleQueue()
    under_way = 0  # bytes
    for _ in range(threads):
        threading.Thread(target=_answer, args=(asked,), daemon=True).start()
    try:
        for item, size in items:
            future: Future[T] = Future()
            asked.put((future, lambda item=item: function(item)))  # type: ignore[misc]
            waiting.append((size, future))
            under_way += size
            while len(waiting) >= AHEAD * threads or (under_way > AHEAD_BYTES and len(waiting) > 1):
                first, oldest = waiting.popleft()
                yield oldest.result()
                under_way -= first
        for _, future in waiting:
            yield future.result()
    finally:
        for _, future in waiting:
            future.cancel()
        for _ in range(threads):
            asked.put(None)


def call_in_thread(function: Callable[[], T]) -> T:
    """Return what `function` returns, called by another thread where this is the main one.

    Python handles a signal in the main thread, when the call that this is in returns. A wait for another thread
    returns at once; a wait for a server may not.
    """
    if threading.current_thread() is not threading.main_thread():
        return function()
    asked: SimpleQueue[tuple[Future[T], Callable[[], T]] | None] = SimpleQueue()
    future: Future[T] = Future()
    asked.put((future, function))
    asked.put(None)
    threading.Thread(target=_answer, args=(asked,), daemon=True).start()
    return future.result()


def _answer(asked: SimpleQueue[tuple[Future[T], Callable[[], T]] | None]) -> None:
    while (call := asked.get()) is not None:
        future, function = call
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)
        del call, future, function  # or a waiting thread would keep an error, whose frames keep their caller
