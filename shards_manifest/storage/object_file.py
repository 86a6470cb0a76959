"""Objects as files: read by ranges, written in parts."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import obstore

from ..errors import StoreError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

T = TypeVar("T")

PART = 5 << 20  # bytes of a part, S3's least; at most two parts of a file are in memory


class UploadStore(Protocol):
    """What an upload needs of the store that it goes to."""

    def ask(self, name: str, request: Callable[[ObjectStore, str], T], tries: int = ...) -> T:
        """Return what `request` returns of a client and the key of `name`. Raises StoreError."""
        ...

    def remove(self, name: str) -> None:
        """Remove `name` if it is there."""
        ...


class Reader(io.RawIOBase):
    """A seekable reader of an object; wrap it to have it buffered."""

    def __init__(self, read_range: Callable[[int, int], bytes], size: int) -> None:
        """Begin at the first byte.

        Args:
            read_range: Returns so many bytes from a start, as (start, length).
            size: Bytes of the object.
        """
        self._read_range, self._size, self._at = read_range, size, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to `offset` from the start, from here or from the end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`, less only at the end. Raises StoreError."""
        data = self._read_range(self._at, min(len(buffer), self._size - self._at))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class Upload(io.RawIOBase):
    """An object that is uploaded as it is written, and appears when it is committed."""

    def __init__(self, store: UploadStore, name: str) -> None:
        self._store, self._name = store, name
        # one part under way while the next fills: obstore waits in `write` when both are full
        self._file = store.ask(
            name, lambda client, key: obstore.open_writer(client, key, buffer_size=PART, max_concurrency=1)
        )
        self._committed = False

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, data: Any) -> int:
        """Append `data`. Raises StoreError."""
        self._store.ask(self._name, lambda *_: self._file.write(data), tries=1)
        return len(data)

    def commit(self) -> None:
        """Upload the rest; the object is there when this returns. Raises StoreError."""
        self._store.ask(self._name, lambda *_: self._file.close(), tries=1)
        self._committed = True

    def try_commit(self) -> StoreError | None:
        """Commit, and return the error where that fails."""
        try:
            self.commit()
        except StoreError as error:
            return error
        return None

    def abort(self) -> None:
        """Forget what was uploaded, and take back what was committed, as far as the server can be reached."""
        with suppress(Exception):
            if self._committed:
                self._store.remove(self._name)
            else:
                self._store.ask(self._name, lambda *_: self._file.__exit__(StoreError, StoreError(), None), tries=1)
