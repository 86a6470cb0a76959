"""A store in a bucket (s3://, gs://, az://), by way of obstore; web_server.py has the one for web servers."""

from __future__ import annotations

import errno
import io
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError, PreconditionError

from ..errors import StoreError
from .address import Address
from .clients import connect, panic, panicked, refusal
from .environment import seconds
from .lease import Lease, Version, version_of
from .object_file import Reader, Upload
from .prefetch import ahead, call_in_thread

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutMode, UpdateVersion
    from obstore.store import ObjectStore

T = TypeVar("T")

FIRST = 6.0  # seconds to go on asking a server that has never answered
HASTE = 2.0  # seconds to go on renewing a lease, before it is tried again
PATIENCE = 90.0  # seconds to go on asking one that has; SPECTRAL_RETRY_SECONDS is another number, for tests
FETCH = 8 << 20  # bytes asked for at once when reading
PAGE = 1000  # objects listed at once
SLOW = 180.0  # seconds that a single request may take, once the server has answered
SLOW_READ = 30.0  # the same for what reads, FETCH bytes at most


class RemoteStore:
    """Objects below one prefix of a bucket.

    Where the server fails or is away, requests are repeated, with growing pauses: for FIRST seconds if it has never
    answered, else for PATIENCE. After that, or at once where it refuses, StoreError is raised, which names the URL.
    """

    threads = 16
    web = False

    def __init__(
        self,
        address: Address,
        patience: float | None = None,
        reached: bool = False,
        lease: tuple[str, str] | None = None,
    ) -> None:
        """Open the store; nothing is asked of the server yet.

        Args:
            address: The bucket with the prefix.
            patience: Seconds to go on asking, in place of FIRST and PATIENCE.
            reached: Whether the server has answered before.
            lease: Name and token of the lease of the run that this process works for.

        Raises:
            StoreError: SPECTRAL_RETRY_SECONDS is no number.
        """
        self.address = address
        self._patience, self._reached, self._lease = patience, reached, lease
        self._longest = patience or seconds("SPECTRAL_RETRY_SECONDS", PATIENCE, os.environ)
        self._clients: dict[tuple[Address, float, float], ObjectStore] = {}

    def __str__(self) -> str:
        return str(self.address)

    def __reduce__(self) -> tuple[type[RemoteStore], tuple[Address, float | None, bool, tuple[str, str] | None]]:
        return type(self), (self.address, self._patience, self._reached, self._lease)

    def exists(self, name: str) -> bool:
        """Return True if `name` is there."""
        try:
            self.meta(name)
        except FileNotFoundError:
            return False
        return True

    def size(self, name: str) -> int:
        """Return the bytes of `name`. Raises FileNotFoundError."""
        return self.meta(name)["size"]

    def stamp(self, name: str) -> str:
        """Return size, version and time of change by the server; empty for a folder, which has none."""
        try:
            found = self.meta(name)
        except FileNotFoundError:
            return ""
        return f"{found['size']} {found['e_tag']} {found['last_modified'].isoformat()}"

    def is_folder(self, name: str) -> bool:
        """Return True if there are objects below `name`."""
        return next(self.walk(name), None) is not None

    def names(self, folder: str = "") -> list[str]:
        """Return the sorted names of the objects directly in `folder`; none where it is missing."""
        return list(self.sizes(folder))

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return names, sorted, and bytes of the objects directly in `folder`; none where it is missing."""
        listed = self.ask(folder, lambda client, key: obstore.list_with_delimiter(client, key or None))
        found = ((entry["path"], entry["size"]) for entry in listed["objects"])
        marked = {folder, *listed["common_prefixes"]}  # some keep an empty object for a folder
        return dict(sorted((name, size) for name, size in found if size or name not in marked))

    def folders(self, folder: str = "") -> list[str]:
        """Return the sorted names of the prefixes directly in `folder`; none where it is missing."""
        listed = self.ask(folder, lambda client, key: obstore.list_with_delimiter(client, key or None))
        return sorted(listed["common_prefixes"])

    def walk(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield names and bytes of the objects at any depth below `folder`, as the server lists them."""
        after: str | None = None
        pages: Iterator[Sequence[ObjectMeta]] | None = None

        def page(client: ObjectStore, key: str) -> Sequence[ObjectMeta]:
            nonlocal pages
            if pages is None:
                pages = iter(obstore.list(client, key or None, offset=after, chunk_size=PAGE))
            try:
                return next(pages, [])
            except BaseException:
                pages = None  # the next try goes on after the last page
                raise

        while found := self.ask(folder, page):
            yield from ((entry["path"], entry["size"]) for entry in found if entry["path"] != folder)
            after = found[-1]["path"]

    def open(self, name: str) -> BinaryIO:
        """Return a seekable, buffered reader of `name`. Raises FileNotFoundError."""
        return cast(BinaryIO, io.BufferedReader(Reader(partial(self.range, name), self.size(name)), 1 << 20))

    def range(self, name: str, start: int, length: int) -> bytes:
        """Return `length` bytes of `name` from `start`; fewer where it ends before. Raises FileNotFoundError."""
        if length <= 0:
            return b""
        return self._fetch(name, start, length)[0][:length]

    @contextmanager
    def ranges(self, name: str) -> Iterator[Callable[[int, int], bytes]]:
        """Give a function (start, length) like `range`; it raises StoreError where a server sends whole files only."""
        yield lambda start, length: self._fetch(name, start, length, in_parts=True)[0]

    def read(self, name: str) -> bytes:
        """Return the whole of `name`. Raises FileNotFoundError."""
        return bytes(self.view(name))

    def view(self, name: str) -> memoryview:
        """Return the whole of `name`, in memory; large objects are fetched in pieces. Raises FileNotFoundError."""
        first, size = self._fetch(name, 0, FETCH)
        if len(first) == size:
            return memoryview(first)
        out = bytearray(size)
        out[: len(first)] = first

        def fetch(start: int) -> None:
            piece, _ = self._fetch(name, start, FETCH)
            if len(piece) != min(FETCH, size - start):
                raise StoreError(f"{self}/{name} changed while it was read: run the same command again")
            out[start : start + len(piece)] = piece

        with closing(ahead(fetch, ((start, 0) for start in range(len(first), size, FETCH)), threads=4)) as pieces:
            deque(pieces, maxlen=0)
        return memoryview(out).toreadonly()

    def write(self, name: str, data: bytes) -> None:
        """Put `data` under `name`, whole or not at all."""
        self._check_own()
        self.ask(name, lambda client, key: obstore.put(client, key, data))

    def create(self, name: str, data: bytes) -> None:
        """Put `data` under `name`, which must be new. Raises FileExistsError.

        Where the answer of the server was lost, the object may be our own: compare what is there.
        """
        self._check_own()
        if self.put_if(name, data, None) is None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), f"{self}/{name}")

    def remove(self, name: str) -> None:
        """Remove `name` if it is there."""
        with suppress(FileNotFoundError):
            self.ask(name, lambda client, key: obstore.delete(client, key))

    def flush(self, folders: list[str]) -> None:
        """Do nothing: what a bucket has taken is safe."""

    @contextmanager
    def writing(self, names: list[str]) -> Iterator[list[BinaryIO]]:
        """Open every name for writing; they are uploaded as they are written, in parts.

        They appear at the end of the block, one by one; none of them if it raises.
        """
        self._read_only()
        uploads = [Upload(self, name) for name in names]
        each = [(upload, 0) for upload in uploads]
        try:
            yield [cast(BinaryIO, upload) for upload in uploads]
            self._check_own()
            failures = list(ahead(Upload.try_commit, each, self.threads))  # all have ended before any is aborted
            if failure := next(filter(None, failures), None):
                raise failure
        except BaseException:
            deque(ahead(Upload.abort, each, self.threads), maxlen=0)
            raise

    @contextmanager
    def owning(self, records: str) -> Iterator[None]:
        """Keep the store for one run by a lease, an object in `records` (docs/decisions/0007).

        Waits for the lease of a killed run to end. Raises BlockingIOError if another run has the store.
        """
        self._read_only()
        patient, hasty = (RemoteStore(self.address, patience) for patience in (FIRST, HASTE))
        lease = Lease(patient, f"{records}/lease.json", hasty)
        with lease.hold():
            self._lease = lease.name, lease.token
            try:
                yield
            finally:
                self._lease = None

    def working(self, records: str) -> AbstractContextManager[None]:
        """Do nothing: every commit asks for the lease."""
        return nullcontext()

    def meta(self, name: str) -> ObjectMeta:
        """Return size, version and the server's time of the last change. Raises FileNotFoundError."""
        return self.ask(name, obstore.head)

    def read_version(self, name: str) -> tuple[bytes, ObjectMeta]:
        """Return a small object and what `meta` says of it, of one version. Raises FileNotFoundError."""

        def get(client: ObjectStore, key: str) -> tuple[bytes, ObjectMeta]:
            found = obstore.get(client, key)
            meta = found.meta
            return bytes(found.bytes()), meta

        return self.ask(name, get)

    def put_if(self, name: str, data: bytes, version: Version | None) -> Version | None:
        """Put `data` over `version` of an object, or None of it, and return the new one; None if it is another.

        Never tried again here: the first try may have changed what the second finds.
        """
        self._read_only()

        def put(client: ObjectStore, key: str) -> Version:
            mode: PutMode = cast("UpdateVersion", version) if version else "create"
            done = obstore.put(client, key, data, mode=mode, use_multipart=False)
            return version_of(done["e_tag"], done["version"])

        try:
            return self.ask(name, put, tries=1)
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            return None

    def _target(self, name: str) -> tuple[Address, str]:
        """Return what to connect to for `name`, and its key there."""
        return self.address, name

    def _client(self, address: Address, slow: float, left: float | None = None) -> ObjectStore:
        """Return a client for single tries of `slow` seconds, which goes on for `left` seconds, or as long as usual."""
        patience = self._patience or (self._longest if self._reached else FIRST)
        timeout = slow if patience > FIRST else FIRST
        if left is not None and left < patience:
            return connect(address, max(left, 1.0), timeout)
        if (address, patience, timeout) not in self._clients:
            self._clients[address, patience, timeout] = connect(address, patience, timeout)
        return self._clients[address, patience, timeout]

    def ask(self, name: str, request: Callable[[ObjectStore, str], T], tries: int = 5, slow: float = SLOW) -> T:
        """Return what `request` returns of a client and the key of `name`. A signal ends the wait.

        obstore itself tries again, but not where an answer breaks off in its body: this does.

        Args:
            name: Of an object.
            request: Takes a client of obstore and the key.
            tries: How often to ask, at most.
            slow: Seconds that one try may take.

        Raises:
            FileNotFoundError: There is no such object.
            StoreError: The server refuses, or does not answer in time.
        """
        address, key = self._target(name)
        deadline = time.monotonic() + self._longest
        for attempt in range(1, tries + 1):
            client = self._client(address, slow, deadline - time.monotonic() if attempt > 1 else None)
            try:
                answer = call_in_thread(partial(request, client, key))
            except (AlreadyExistsError, PreconditionError):
                self._reached = True
                raise
            except (BaseError, OSError, ValueError) as error:
                problem, passing = refusal(self.address.at(name) if self.web else self.address, error)
                if not problem:
                    self._reached = True
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self}/{name}") from None
                if not passing or not self._reached or attempt == tries or time.monotonic() > deadline:
                    raise StoreError(problem) from None
                time.sleep(0.1 * 2**attempt)
            except BaseException as error:
                if not panicked(error):
                    raise
                raise StoreError(panic(address, error)) from None
            else:
                self._reached = True
                return answer
        raise AssertionError

    def _fetch(self, name: str, start: int, length: int, in_parts: bool = False) -> tuple[bytes, int]:
        """Return `length` bytes of `name` from `start`, and the size of the whole.

        A server without ranges gives all bytes that follow; with `in_parts` StoreError is raised for it.
        """

        def get(client: ObjectStore, key: str) -> tuple[bytes, int]:
            try:
                found = obstore.get(client, key, options={"range": (start, start + length)})
                size = found.meta["size"]
                return bytes(found.bytes()), size
            except NotSupportedError:  # a web server without ranges
                if in_parts:
                    raise StoreError(
                        f"{self}/{name}: the server sends whole files only: fetch it, and name the copy"
                    ) from None
                whole = bytes(obstore.get(client, key).bytes())
                return whole[start:], len(whole)
            except BaseError as error:
                if "status code: 416" in str(error):  # past the end
                    return b"", start
                raise

        return self.ask(name, get, slow=SLOW_READ)

    def _read_only(self) -> None:
        """Raise StoreError where nothing can be written."""

    def _check_own(self) -> None:
        """Raise StoreError where another run has taken the store since this one began."""
        self._read_only()
        if self._lease is not None:
            Lease.check(self, *self._lease)
