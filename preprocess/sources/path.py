"""A file or folder of a source, wherever it lies: on a disk, in a bucket, on a web server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO, TypeVar
from urllib.parse import quote, unquote

from ...shards_manifest.storage.address import Address, is_url
from ...shards_manifest.storage.base import Store
from ...shards_manifest.storage.local import LocalStore
from ...shards_manifest.storage.opening import open_store
from ...shards_manifest.storage.prefetch import ahead

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class SourcePath:
    """A file or a folder of a source. It can be pickled, so that workers read what the run has found.

    All methods that look at the store raise OSError, or StoreError if a server refuses.

    Attributes:
        store: The disk, a bucket or a web server.
        key: The whole path in it, without a slash before it; percent-encoded on a web server, as it is sent.
    """

    store: Store
    key: str

    @staticmethod
    def of(path: str | os.PathLike[str]) -> SourcePath:
        """Return a local path, made absolute, or a URL. Raises StoreError if the URL is wrong."""
        text = os.fspath(path)
        if not is_url(text):
            return SourcePath(LocalStore("/"), os.path.abspath(text).lstrip("/"))
        address = Address.parse(text)
        return SourcePath(open_store(address.root), address.path)

    def __str__(self) -> str:
        return f"{str(self.store).rstrip('/')}/{self.key}" if self.key else str(self.store)

    def __truediv__(self, name: str) -> SourcePath:
        name = quote(name) if self.store.web else name
        return SourcePath(self.store, f"{self.key}/{name}" if self.key else name)

    @property
    def name(self) -> str:
        """The last part of the path, or the name of the bucket or server."""
        key = unquote(self.key) if self.store.web else self.key
        return PurePosixPath(key or str(self.store)).name

    @property
    def is_pattern(self) -> bool:
        """True if the path has braces that are not percent-encoded."""
        return "{" in self.key

    @property
    def stem(self) -> str:
        """The name without its last ending."""
        return PurePosixPath(self.name).stem

    @property
    def parent(self) -> SourcePath:
        """The folder that it is in."""
        return SourcePath(self.store, self.key.rpartition("/")[0])

    def is_file(self) -> bool:
        """Return whether it is a file."""
        return bool(self.key) and self.store.exists(self.key)

    def is_dir(self) -> bool:
        """Return whether it is a folder; always False on a web server, which lists none."""
        return self.store.is_folder(self.key)

    def size(self) -> int:
        """Return the bytes of a file."""
        return self.store.size(self.key)

    def stamp(self) -> str:
        """Return a text that changes when the file or folder changes; empty if the store has none."""
        return self.store.stamp(self.key)

    def files(self, *endings: str) -> list[str]:
        """Return the sorted names of the files in a folder; with `endings`, of those that end so and are not hidden."""
        names = (name.rpartition("/")[2] for name in self.store.names(self.key))
        return sorted(n for n in names if not endings or (n.endswith(endings) and not n.startswith(".")))

    def folders(self) -> list[str]:
        """Return the sorted names of the folders in a folder that are not hidden."""
        return [name for name in self._folders() if not name.startswith(".")]

    def hidden_folders(self) -> list[str]:
        """Return the sorted names of the hidden folders in a folder."""
        return [name for name in self._folders() if name.startswith(".")]

    def _folders(self) -> list[str]:
        return sorted(name.rpartition("/")[2] for name in self.store.folders(self.key))

    def walk(self) -> Iterator[tuple[str, int]]:
        """Yield the path below this folder of every file in it, in any order, and its bytes, or -1 if not known."""
        start = len(self.key) + 1 if self.key else 0
        return ((name[start:], size) for name, size in self.store.walk(self.key))

    def open(self) -> BinaryIO:
        """Open a file as a seekable reader."""
        return self.store.open(self.key)

    def read(self) -> bytes:
        """Return the whole file."""
        return self.store.read(self.key)

    def range(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`. Raises OSError if the file ends before."""
        data = self.store.range(self.key, offset, size)
        if len(data) != size:
            raise OSError(f"{self} is cut short")
        return data


def map_in_order(function: Callable[[S], T], items: Iterable[S], threads: int) -> Iterator[T]:
    """Yield what `function` returns for every item, in order, with so many calls at once.

    It raises what the function raises. The threads do not keep a program from ending.
    """
    return ahead(function, ((item, 0) for item in items), threads)
