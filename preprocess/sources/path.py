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
class Place:
    """One name below the root of a store. Pickles, so that workers read what the run found.

    store: the disk, a bucket or a web server.  key: the whole path in it, without a slash before it; on a web server
    percent-encoded, as it is sent.
    All but the first four methods raise OSError, or StoreError for what a server answers.
    """

    store: Store
    key: str

    @staticmethod
    def of(path: str | os.PathLike[str]) -> Place:
        """The place of a local path, which is made absolute, or of a URL. Raises StoreError for one that is wrong."""
        text = os.fspath(path)
        if not is_url(text):
            return Place(LocalStore("/"), os.path.abspath(text).lstrip("/"))
        address = Address.parse(text)
        return Place(open_store(address.root), address.path)

    def __str__(self) -> str:
        return f"{str(self.store).rstrip('/')}/{self.key}" if self.key else str(self.store)

    def __truediv__(self, name: str) -> Place:
        name = quote(name) if self.store.web else name
        return Place(self.store, f"{self.key}/{name}" if self.key else name)

    @property
    def name(self) -> str:
        """The last part of the path, or the name of the bucket or server."""
        key = unquote(self.key) if self.store.web else self.key
        return PurePosixPath(key or str(self.store)).name

    @property
    def is_pattern(self) -> bool:
        """True where the path has braces, not only encoded ones."""
        return "{" in self.key

    @property
    def stem(self) -> str:
        """The name without its last ending."""
        return PurePosixPath(self.name).stem

    @property
    def parent(self) -> Place:
        """The folder that it lies in."""
        return Place(self.store, self.key.rpartition("/")[0])

    def is_file(self) -> bool:
        """True for a file."""
        return bool(self.key) and self.store.exists(self.key)

    def is_dir(self) -> bool:
        """True for a folder; of a web server's, which lists none, nothing is known."""
        return self.store.is_folder(self.key)

    def size(self) -> int:
        """Bytes of a file."""
        return self.store.size(self.key)

    def stamp(self) -> str:
        """What is another when the file or folder has changed; empty where that cannot be told."""
        return self.store.stamp(self.key)

    def files(self, *endings: str) -> list[str]:
        """Sorted names of the files in a folder; with `endings`, of those that end so and are not hidden."""
        names = (name.rpartition("/")[2] for name in self.store.names(self.key))
        return sorted(n for n in names if not endings or (n.endswith(endings) and not n.startswith(".")))

    def folders(self) -> list[str]:
        """Sorted names of the folders in a folder that are not hidden."""
        return [name for name in self._folders() if not name.startswith(".")]

    def hidden_folders(self) -> list[str]:
        """Sorted names of those that are."""
        return [name for name in self._folders() if name.startswith(".")]

    def _folders(self) -> list[str]:
        return sorted(name.rpartition("/")[2] for name in self.store.folders(self.key))

    def walk(self) -> Iterator[tuple[str, int]]:
        """Paths below a folder of all files in it, in any order, and their bytes, or -1 for not known."""
        start = len(self.key) + 1 if self.key else 0
        return ((name[start:], size) for name, size in self.store.walk(self.key))

    def open(self) -> BinaryIO:
        """A seekable reader."""
        return self.store.open(self.key)

    def read(self) -> bytes:
        """The whole file."""
        return self.store.read(self.key)

    def range(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`. Raises OSError where the file ends before."""
        data = self.store.range(self.key, offset, size)
        if len(data) != size:
            raise OSError(f"{self} is cut short")
        return data


def each(function: Callable[[S], T], items: Iterable[S], threads: int) -> Iterator[T]:
    """What `function` returns for every item, in order, with as many calls under way as there are threads.

    Raises what the function raises. Its threads do not keep a program that ends meanwhile.
    """
    return ahead(function, ((item, 0) for item in items), threads)
