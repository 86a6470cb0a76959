"""Memory that the processes of one user on one machine share by its name, and that ends with the last of them.

On Linux it is an anonymous file (memfd_create), which has no place in any folder: another process finds it among the
open files of the first one, in /proc, and opens it there. So nothing is left behind, however a process ends, and no
process has to serve the others. Elsewhere, and where /proc does not show it, each process has memory of its own.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

PROC = "/proc"
PREFIX = "spectral-"
LEAST_PRIORITY = 19
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, of Linux 5.14


class SharedMemory:
    """Memory that every process of this user gets for the same name and size; zeros at first.

    Args:
        name: What it is for: letters and digits, 200 at most.
        size: Bytes, 1 or more.

    Attributes:
        view: All of it.

    Raises:
        OSError: The system refuses.
    """

    def __init__(self, name: str, size: int) -> None:
        if not hasattr(os, "memfd_create"):
            self._mapped = mmap.mmap(-1, size)
            self.view = memoryview(self._mapped)
            return
        with _one_at_a_time():
            found = _found(f"{PREFIX}{name}", size)
            descriptor = os.memfd_create(f"{PREFIX}{name}") if found is None else found
            try:
                if found is None:
                    os.ftruncate(descriptor, size)
                self._mapped = mmap.mmap(descriptor, size)  # has an open file of its own, which others find
            finally:
                os.close(descriptor)
        self.view = memoryview(self._mapped)

    def populate(self, places: Iterable[slice]) -> None:
        """Get pages from the system ahead of use, by a thread: that takes several times as long as writing to them.

        Args:
            places: Of the memory, in the order of use.
        """
        threading.Thread(target=_populate, args=(self._mapped, weakref.ref(self), places), daemon=True).start()


def is_there(name: str) -> bool:
    """Return whether a process of this user has memory of this name."""
    link = _link(f"{PREFIX}{name}")
    for path in open_files():
        with suppress(OSError):
            if os.readlink(path) == link:
                return True
    return False


def _populate(mapped: mmap.mmap, user: weakref.ref[SharedMemory], places: Iterable[slice]) -> None:
    """Get pages for places of some memory, as long as it has a user; on Linux alone."""
    if not hasattr(os, "memfd_create"):
        return
    try:
        madvise = ctypes.CDLL(None).madvise  # Python's own keeps other threads from running
    except (OSError, AttributeError):
        return
    with suppress(OSError):  # only what no other thread wants of the processors
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LEAST_PRIORITY)
    start = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
    for place in places:
        first = place.start - place.start % mmap.PAGESIZE
        if user() is None or madvise(
            ctypes.c_void_p(start + first), ctypes.c_size_t(place.stop - first), _POPULATE_WRITE
        ):
            break  # an older kernel, or no memory: pages come as they are written to


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Keep other processes from making the same memory meanwhile."""
    with open(__file__, "rb") as file:
        with suppress(OSError):  # a file system without locks: at worst there are two
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _found(name: str, size: int) -> int | None:
    """Return a descriptor of the memory that a process of this user has open; None if there is none."""
    link = _link(name)
    for path in open_files():
        with suppress(OSError):  # it may be closed meanwhile
            if os.readlink(path) == link:
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                if os.fstat(descriptor).st_size == size:
                    return descriptor
                os.close(descriptor)
    return None


def _link(name: str) -> str:
    """Return what /proc says of an open memfd."""
    return f"/memfd:{name} (deleted)"


def open_files() -> Iterator[str]:
    """Yield the links in /proc to the open files of this user's processes, as far as they can be seen."""
    for name in os.listdir(PROC) if os.path.isdir(PROC) else []:
        folder = f"{PROC}/{name}"
        with suppress(OSError):  # it may end meanwhile, or be hidden
            if name.isdecimal() and os.stat(folder).st_uid == os.getuid():
                yield from [f"{folder}/fd/{number}" for number in os.listdir(f"{folder}/fd")]
