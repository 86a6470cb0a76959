"""The one place for bytes in and out: names relative to a root, read and written whole.

`LocalStore` (local.py) keeps them in a folder, `RemoteStore` (object_store.py) in a bucket; `open_store` (opening.py)
chooses by the URL. Both can be pickled, so that workers open what the run opened.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

TEMPORARY = ".tmp"  # ends the names that a killed process may leave behind


def no_space(error: OSError) -> bool:
    """Return True where `error` says that the disk, the quota or the file size limit is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Store(Protocol):
    """Reads and writes what is below one root. Names are relative, with slashes; str() is the root.

    Methods raise StoreError, in one sentence, where the disk or the server refuses.

    Attributes:
        threads: Requests that are worth having under way at once.
        web: Whether it is a web server, which lists nothing, and whose names are percent-encoded as in its addresses.
    """

    threads: int
    web: bool

    def exists(self, name: str) -> bool:
        """Return True if `name` has been committed."""
        ...

    def size(self, name: str) -> int:
        """Return the bytes of `name`. Raises FileNotFoundError."""
        ...

    def stamp(self, name: str) -> str:
        """Return a text that differs when the file or folder `name` has changed; empty where that is not known."""
        ...

    def is_folder(self, name: str) -> bool:
        """Return True if there is a folder `name`."""
        ...

    def names(self, folder: str = "") -> list[str]:
        """Return the sorted names of the files directly in `folder`; none where it is missing."""
        ...

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return names, sorted, and bytes of the files directly in `folder`; none where it is missing."""
        ...

    def folders(self, folder: str = "") -> list[str]:
        """Return the sorted names of the folders directly in `folder`; none where it is missing."""
        ...

    def walk(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield names, in any order, of the files at any depth below `folder`, and their bytes, or -1 for not known."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Return a seekable reader of `name`. Raises FileNotFoundError."""
        ...

    def range(self, name: str, start: int, length: int) -> bytes:
        """Return `length` bytes of `name` from `start`; fewer where it ends before. Raises FileNotFoundError."""
        ...

    def ranges(self, name: str) -> AbstractContextManager[Callable[[int, int], bytes]]:
        """Give a function (start, length) that does what `range` does, for many ranges of one file."""
        ...

    def read(self, name: str) -> bytes:
        """Return the whole of `name`. Raises FileNotFoundError."""
        ...

    def view(self, name: str) -> memoryview:
        """Return the whole of `name`, read-only: mapped where that is possible. Raises FileNotFoundError."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Put `data` under `name`, whole or not at all."""
        ...

    def create(self, name: str, data: bytes) -> None:
        """Put `data` under `name`, which must be new. Raises FileExistsError."""
        ...

    def writing(self, names: list[str]) -> AbstractContextManager[list[BinaryIO]]:
        """Open every name for writing; commit them at the end of the block, none of them if it raises."""
        ...

    def remove(self, name: str) -> None:
        """Remove `name` if it is there."""
        ...

    def flush(self, folders: list[str]) -> None:
        """Return when the names in `folders` are as safe as the files."""
        ...

    def owning(self, records: str) -> AbstractContextManager[None]:
        """Keep the store for one run, whose workers write within `working(records)`.

        Raises BlockingIOError if another run has it.
        """
        ...

    def working(self, records: str) -> AbstractContextManager[None]:
        """Mark a worker of the run that owns the store while it writes."""
        ...
