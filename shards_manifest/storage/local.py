"""A store in a folder. A write appears under its name whole or not at all: temporary name, flush to disk, rename."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..errors import StoreError
from .base import TEMPORARY, no_space

KEPT = "what is finished is kept"
ORPHANS = 30.0  # seconds that workers of a killed run get to end with their row


class LocalStore:
    """Files below one folder.

    Methods raise StoreError, which names the file, where the operating system refuses a write.
    """

    web = False
    threads = 1  # what is not in the page cache, the system reads ahead of itself

    def __init__(self, root: str | os.PathLike[str], then: str = KEPT) -> None:
        """Open the store; the folder may be missing.

        Args:
            root: The folder.
            then: How the sentence about a full disk ends, after "make room and run the same command again".
        """
        self.root, self._then = Path(root), then
        self._prefix = os.path.join(os.fspath(root), "")

    def __str__(self) -> str:
        return str(self.root)

    def __reduce__(self) -> tuple[type[LocalStore], tuple[Path, str]]:
        return LocalStore, (self.root.absolute(), self._then)  # a worker of a cluster starts in another folder

    def path(self, name: str) -> Path:
        """Return the path of `name`, whether it exists or not."""
        return self.root / name

    def exists(self, name: str) -> bool:
        """Return True if `name` has been committed."""
        return self.path(name).is_file()

    def size(self, name: str) -> int:
        """Return the bytes of `name`. Raises FileNotFoundError."""
        return os.stat(f"{self._prefix}{name}").st_size

    def stamp(self, name: str) -> str:
        """Return size and time of change. They miss bytes that were rewritten in place with the time put back."""
        found = self.path(name).stat()
        size = 0 if stat.S_ISDIR(found.st_mode) else found.st_size  # a folder's size is not of its contents
        return f"{size} {found.st_mtime_ns}"

    def is_folder(self, name: str) -> bool:
        """Return True if there is a folder `name`."""
        return self.path(name).is_dir()

    def names(self, folder: str = "") -> list[str]:
        """Return the sorted names of the files directly in `folder`; none where it is missing."""
        return sorted(name for name, entry in self._entries(folder) if entry.is_file())

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return names, sorted, and bytes of the files directly in `folder`; none where it is missing."""
        return dict(sorted((name, entry.stat().st_size) for name, entry in self._entries(folder) if entry.is_file()))

    def folders(self, folder: str = "") -> list[str]:
        """Return the sorted names of the folders directly in `folder`; none where it is missing."""
        return sorted(name for name, entry in self._entries(folder) if entry.is_dir())

    def walk(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield the names of the files at any depth below `folder`, and -1. Links are followed, but not in circles."""
        seen = set()

        def stop(error: OSError) -> None:
            raise error

        for base, folders, files in os.walk(self.path(folder), onerror=stop, followlinks=True):
            place = os.stat(base)
            if (place.st_dev, place.st_ino) in seen:  # a link that leads back
                folders.clear()
                continue
            seen.add((place.st_dev, place.st_ino))
            below = os.path.relpath(base, self._prefix)
            yield from ((os.path.join(below, name), -1) for name in files)

    def open(self, name: str) -> BinaryIO:
        """Return a seekable reader of `name`. Raises FileNotFoundError."""
        return self.path(name).open("rb")

    def range(self, name: str, start: int, length: int) -> bytes:
        """Return `length` bytes of `name` from `start`; fewer where it ends before. Raises FileNotFoundError."""
        descriptor = os.open(f"{self._prefix}{name}", os.O_RDONLY)  # 20 us: nothing beside decoding
        try:
            length = max(min(length, os.fstat(descriptor).st_size - start), 0)
            data = os.pread(descriptor, length, start)
            while 0 < len(data) < length and (more := os.pread(descriptor, length - len(data), start + len(data))):
                data += more
            return data
        finally:
            os.close(descriptor)

    @contextmanager
    def ranges(self, name: str) -> Iterator[Callable[[int, int], bytes]]:
        """Give a function (start, length) that does what `range` does, on one open file."""
        descriptor = os.open(f"{self._prefix}{name}", os.O_RDONLY)
        try:
            yield lambda start, length: os.pread(descriptor, length, start)
        finally:
            os.close(descriptor)

    def read(self, name: str) -> bytes:
        """Return the whole of `name`. Raises FileNotFoundError."""
        return self.path(name).read_bytes()

    def view(self, name: str) -> memoryview:
        """Return the whole of `name`, mapped read-only instead of copied. Raises FileNotFoundError."""
        with self.path(name).open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def write(self, name: str, data: bytes) -> None:
        """Put `data` under `name`, whole or not at all."""
        with self.writing([name]) as (file,):
            file.write(data)

    def create(self, name: str, data: bytes) -> None:
        """Put `data` under `name`, which must be new. Raises FileExistsError."""
        temporary = f"{name}.{os.urandom(4).hex()}{TEMPORARY}"
        self.write(temporary, data)
        try:
            os.link(self.path(temporary), self.path(name))
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links: only the lock of `owning` keeps others away
            if self.exists(name):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self.path(name))) from None
            os.replace(self.path(temporary), self.path(name))
        finally:
            self.remove(temporary)

    def flush(self, folders: list[str]) -> None:
        """Return when the names in `folders` have reached the disk, as the contents did on commit."""
        for folder in folders:
            _sync_folder(self.path(folder))

    def remove(self, name: str) -> None:
        """Remove `name` if it is there."""
        self.path(name).unlink(missing_ok=True)

    @contextmanager
    def writing(self, names: list[str]) -> Iterator[list[BinaryIO]]:
        """Open every name for writing; commit them at the end of the block, none of them if it raises."""
        unique = f".{os.urandom(4).hex()}{TEMPORARY}"  # a process left over from a killed run cannot get in the way
        temporary = [self.path(name + unique) for name in names]
        files: list[BinaryIO] = []
        try:
            for path in temporary:
                path.parent.mkdir(parents=True, exist_ok=True)
                files.append(path.open("wb"))
            yield files
            with ThreadPoolExecutor(max_workers=16) as threads:  # the disk takes many flushes as one
                list(threads.map(_flush, files))
            for name, path in zip(names, temporary, strict=True):
                os.replace(path, self.path(name))
        except BaseException as error:
            for file in files:
                _close_quietly(file)
            for path in temporary:
                with suppress(OSError):  # a file system that is read-only refuses even to look: as above
                    path.unlink()
            if isinstance(error, OSError):
                raise self.refused(error, names[0] if len(names) == 1 else "") from error
            raise

    @contextmanager
    def owning(self, records: str) -> Iterator[None]:
        """Keep the folder for this process; wait for workers of a killed run, in `records`, to end.

        Raises BlockingIOError if another process has it.
        """
        with self.locked("", exclusive=True):
            if self.path(records).is_dir():
                with self.locked(records, exclusive=True, patience=ORPHANS):
                    pass
            yield

    def working(self, records: str) -> AbstractContextManager[None]:
        """Mark a worker from its first shard to its record: a run that takes over waits for its end."""
        return self.locked(records, exclusive=False, patience=60)

    @contextmanager
    def locked(self, folder: str, exclusive: bool, patience: float = 0.0) -> Iterator[None]:
        """Lock a folder for the block; the system unlocks it however the process ends.

        A file system without locks is taken as it is: commits are whole files, and equal for equal runs.

        Args:
            folder: What to lock.
            exclusive: Whether to share it with no other process.
            patience: Seconds to wait.

        Raises:
            BlockingIOError: Others have it after that time.
        """
        self.path(folder).mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path(folder), os.O_RDONLY)
        deadline = time.monotonic() + patience
        try:
            while True:
                try:
                    fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise
                    time.sleep(0.05)
                except OSError:
                    break
            yield
        finally:
            os.close(descriptor)

    def _entries(self, folder: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Yield what is directly in `folder`, with its name relative to the root; nothing where that is missing."""
        base = self.path(folder)
        if base.is_dir():
            prefix = f"{folder}/" if folder else ""
            yield from ((prefix + entry.name, entry) for entry in os.scandir(base))

    def refused(self, error: OSError, name: str = "") -> StoreError:
        """Return the error for a write that the system refused. name: of the file; empty for several files."""
        where = self.path(name) if name else self.root
        if no_space(error):
            reason = error.strerror or str(error)
            return StoreError(
                f"no space left to write to {where} ({reason}): make room and run the same command again, {self._then}"
            )
        return StoreError(f"cannot write to {self.root}: {error.strerror} ({error.filename or where})")


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()


def _close_quietly(file: BinaryIO) -> None:
    with suppress(OSError):  # the flush of a file that is thrown away: the first error is the one to report
        file.close()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
