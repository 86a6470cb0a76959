"""Blocks of remote shards on a local disk, for every process of this machine that names the same folder.

A shard's blocks lie where they do in the shard, in a file with holes, named by the shard's SHA-256; beside it a map
has one byte for each block that is there. Whatever is read is checked against the index, and fetched again where it
is not right: a crash, or a damaged disk, costs no more than that.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ...shards_manifest.errors import ShardError
from ...shards_manifest.shard.index import PartIndex

CHECK = 32 << 20  # bytes that a process adds between two looks at the size of all: so much it may be exceeded by
IN_USE = 60.0  # seconds since its last use for which a shard is not removed
TOUCH = 15.0  # seconds between two notes of use
OPEN = 128  # shards kept open


@dataclass
class _Entry:
    """An open shard of the cache: descriptors of the blocks and of the map, and when its use was last noted."""

    blocks: int
    map: int
    noted: float

    def close(self) -> None:
        os.close(self.blocks)
        os.close(self.map)


class BlockCache:
    """A folder of at most about `limit` bytes; shards that were used least recently are removed first.

    What another run is using, or this one, stays: a band that is larger than the limit is cached in part.
    Raises nothing but for a folder that cannot be made (OSError): a disk that is full or fails only caches less.
    """

    def __init__(self, folder: str | os.PathLike[str], limit: int) -> None:
        self.folder, self.limit = Path(folder).absolute(), limit
        self.folder.mkdir(parents=True, exist_ok=True)
        self._open: dict[str, _Entry] = {}
        self._added = CHECK  # look before the first
        self._full = self._broken = False
        self._used: set[str] = set()  # shards of this run
        self._lock = threading.Lock()  # no one closes a descriptor that another thread is about to use

    def __reduce__(self) -> tuple[type[BlockCache], tuple[Path, int]]:
        return BlockCache, (self.folder, self.limit)

    def __del__(self) -> None:
        for entry in self.__dict__.get("_open", {}).values():
            entry.close()

    def get(self, index: PartIndex, block: int) -> bytes | None:
        """The bytes of a block, checked; None if it is not there."""
        number, shard = self._number(index, block)
        with self._lock, suppress(OSError):
            entry = self._entry(shard, create=False)
            if entry is None or os.pread(entry.map, 1, number) != b"\1":
                return None
            data = os.pread(entry.blocks, int(index.size[block]), int(index.start[block]))
            try:
                index.check(block, data, shard)
            except ShardError:
                os.pwrite(entry.map, b"\0", number)
                return None
            return data
        return None

    def put(self, index: PartIndex, block: int, data: bytes) -> None:
        """Keep the bytes of a block, if there is room."""
        with self._lock:
            if not self._broken:
                self._put(index, block, data)

    def _put(self, index: PartIndex, block: int, data: bytes) -> None:
        try:
            if self._added >= CHECK:
                self._full = not self._make_room()
                self._added = 0
            self._added += len(data)
            if self._full:
                return
            number, shard = self._number(index, block)
            entry = self._entry(shard, create=True)
            assert entry is not None
            os.pwrite(entry.blocks, data, int(index.start[block]))
            os.pwrite(entry.map, b"\1", number)
        except OSError as error:
            warnings.warn(f"{self.folder} takes no more ({error.strerror}): going on without", stacklevel=3)
            self._broken = True

    @staticmethod
    def _number(index: PartIndex, block: int) -> tuple[int, str]:
        """The block's number within its shard, and the shard's name here."""
        shard = int(index.shard[block])
        return block - int(index.shard.searchsorted(shard)), index.part.shards[shard].sha256

    def _entry(self, shard: str, create: bool) -> _Entry | None:
        entry = self._open.get(shard)
        self._used.add(shard)
        if entry is None:
            flags = os.O_RDWR | (os.O_CREAT if create else 0)
            try:
                entry = self._opened(shard, flags)
            except FileNotFoundError:
                return None
        now = time.monotonic()
        if now - entry.noted > TOUCH:
            if os.fstat(entry.map).st_nlink == 0:  # removed by another process
                self._open.pop(shard).close()
                return self._entry(shard, create)
            os.utime(entry.map)
            entry.noted = now
        return entry

    def _opened(self, shard: str, flags: int) -> _Entry:
        while len(self._open) >= OPEN:
            self._open.pop(next(iter(self._open))).close()
        blocks = os.open(self.folder / f"{shard}.blocks", flags, 0o644)
        try:
            entry = _Entry(blocks, os.open(self.folder / f"{shard}.map", flags, 0o644), 0.0)
        except OSError:
            os.close(blocks)
            raise
        self._open[shard] = entry
        return entry

    def _make_room(self) -> bool:
        """Remove what was used least recently until all is within the limit; False if what is in use is too much."""
        with self._locked():
            for shard in self._used:  # all are, however long ago a slow run read from them
                with suppress(FileNotFoundError):
                    os.utime(self.folder / f"{shard}.map")
            found = []
            for blocks in self.folder.glob("*.blocks"):
                with suppress(FileNotFoundError):
                    here, noted = blocks.stat(), blocks.with_suffix(".map")
                    used_at = noted.stat().st_mtime if noted.exists() else here.st_mtime
                    found.append((used_at, 512 * here.st_blocks, blocks, noted))
            used = sum(size for _, size, _, _ in found) + CHECK
            for used_at, size, blocks, noted in sorted(found):
                if used <= self.limit or time.time() - used_at < IN_USE:
                    break
                blocks.unlink(missing_ok=True)
                noted.unlink(missing_ok=True)
                used -= size
            return used <= self.limit

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            with suppress(OSError):  # a file system without locks: two may remove the same shard
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
