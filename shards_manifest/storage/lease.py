"""A lease on a bucket: one run at a time, where nothing can be locked (docs/decisions/0007-buckets.md)."""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, TypeAlias

from ..errors import StoreError
from .base import TEMPORARY
from .environment import seconds

if TYPE_CHECKING:
    from obstore import ObjectMeta

# e_tag and version of an object, as far as the service has them; what conditional writes compare
Version: TypeAlias = dict[str, str]

SECONDS = 60.0  # after which a lease that no one renews is over; SPECTRAL_LEASE_SECONDS is another number, for tests
RENEWALS = 20  # in that time


class LeaseStore(Protocol):
    """What a lease needs of the store that it is kept in."""

    def meta(self, name: str) -> ObjectMeta:
        """Return size, version and time of change of an object. Raises FileNotFoundError."""
        ...

    def read_version(self, name: str) -> tuple[bytes, ObjectMeta]:
        """Return a small object and what `meta` says of it, of one version. Raises FileNotFoundError."""
        ...

    def put_if(self, name: str, data: bytes, version: Version | None) -> Version | None:
        """Put `data` over `version` of an object, or None of it, and return the new one; None if it is another."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Put `data` under `name`."""
        ...

    def remove(self, name: str) -> None:
        """Remove `name` if it is there."""
        ...


def version_of(e_tag: str | None, version: str | None) -> Version:
    """Return what identifies a version of an object."""
    return {key: value for key, value in (("e_tag", e_tag), ("version", version)) if value is not None}


@dataclass(frozen=True)
class LeaseState:
    """A lease as the store has it.

    Attributes:
        data: Its bytes, which every renewal changes.
        version: What conditional writes compare.
        modified: When the server took it, by its own clock.
    """

    data: bytes
    version: Version
    modified: datetime

    @property
    def seconds(self) -> float:
        """Seconds that it lasts unless it is renewed."""
        try:
            return float(json.loads(self.data)["seconds"])
        except (ValueError, KeyError, TypeError):
            return SECONDS

    @property
    def token(self) -> str:
        """The token of the run that has it; empty where it cannot be read."""
        try:
            return str(json.loads(self.data)["token"])
        except (ValueError, KeyError, TypeError):
            return ""


class Lease:
    """The object `name` of a store. One run has it at a time, and a thread of that run renews it.

    Nothing depends on the clocks of the machines: an age is the difference of two times of the server, and a run
    measures its own waiting.
    """

    def __init__(self, store: LeaseStore, name: str, hasty: LeaseStore) -> None:
        """Prepare a lease; nothing is asked of the store yet.

        Args:
            store: Where the lease is kept.
            name: Of its object.
            hasty: The same store with less patience, for renewing, which is tried again soon, and for the end.

        Raises:
            StoreError: SPECTRAL_LEASE_SECONDS is no number.
        """
        self.name, self.token = name, os.urandom(8).hex()
        self._store, self._hasty = store, hasty
        self._seconds = seconds("SPECTRAL_LEASE_SECONDS", SECONDS, os.environ)
        self._renewals = 0
        self._version: Version = {}
        self._stop = threading.Event()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the lease to the end of the block. Raises BlockingIOError if another run has it, StoreError."""
        self._acquire()
        self._store = self._hasty
        thread = threading.Thread(target=self._keep, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()
            with suppress(StoreError):  # then it runs out
                found = _look(self._store, self.name)
                if found is not None and found.token == self.token:
                    self._store.remove(self.name)

    @staticmethod
    def check(store: LeaseStore, name: str, token: str) -> None:
        """Raise StoreError unless the lease `name` has `token`, of the run that this process works for."""
        found = _look(store, name)
        if found is None or found.token != token:
            raise StoreError(
                f"{store} was deleted or taken over by another run while this one stood still: "
                "see that only one runs, and run the same command again"
            )

    def _acquire(self) -> None:
        while True:
            found = _look(self._store, self.name)
            if found is not None and not self._runs_out(found):
                continue
            version = self._put(found.version if found else None)
            if version is not None:
                self._version = version
                return
            if found is not None:
                raise BlockingIOError(f"another run took {self.name} over")

    def _runs_out(self, found: LeaseState) -> bool:
        """Wait, and return True when the lease has run out, False when it was given back.

        Raises BlockingIOError if another run renews it.
        """
        deadline = time.monotonic() + found.seconds + 1 - self._age(found)  # servers count whole seconds
        pause, silent = min(found.seconds / RENEWALS, 1), time.monotonic() + 2 * found.seconds / RENEWALS
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(pause, left))
            now = _look(self._store, self.name)
            if now is None:
                return False
            if now.data != found.data:
                raise BlockingIOError(f"another run renews {self.name}")
            if time.monotonic() > silent:
                silent = math.inf
                logging.getLogger(__name__).warning(
                    "%s: a run that seems to have been killed holds it for another %.0f seconds; waiting",
                    self._store,
                    left,
                )
        return True

    def _age(self, found: LeaseState) -> float:
        """Return the seconds since the lease was renewed, by the server's clock, which only a write shows."""
        probe = f"{self.name}.{self.token}{TEMPORARY}"
        self._store.write(probe, b"")
        try:
            return (self._store.meta(probe)["last_modified"] - found.modified).total_seconds()
        finally:
            self._store.remove(probe)

    def _keep(self) -> None:
        while not self._stop.wait(self._seconds / RENEWALS):
            with suppress(StoreError):  # the server is away: the lease is ours until another run takes it
                version = self._put(self._version)
                if version is None:
                    return  # lost: `check` stops all that still work
                self._version = version

    def _put(self, version: Version | None) -> Version | None:
        """Write the lease over `version`, or over nothing, and return its version; None if another lease is there."""
        self._renewals += 1  # equal bytes would be an equal e_tag
        state = {"renewals": self._renewals, "seconds": self._seconds, "token": self.token}
        data = json.dumps(state, sort_keys=True).encode()
        try:
            written = self._store.put_if(self.name, data, version)
            if written is not None:
                return written
        except StoreError:  # perhaps only the answer was lost
            found = _look(self._store, self.name)
            if found is None or found.token != self.token:
                raise
            return found.version
        found = _look(self._store, self.name)  # a try that obstore repeated may have met the first one's work
        return found.version if found is not None and found.token == self.token else None


def _look(store: LeaseStore, name: str) -> LeaseState | None:
    try:
        data, meta = store.read_version(name)
    except FileNotFoundError:
        return None
    return LeaseState(data, version_of(meta["e_tag"], meta["version"]), meta["last_modified"])
