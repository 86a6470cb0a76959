"""What can only be streamed is expanded once into a scratch folder and read in place there."""

from __future__ import annotations

import atexit
import gzip
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from isal import igzip, igzip_lib
from tqdm import tqdm

from ...shards_manifest.runtime.cli_runner import human_bytes
from ...shards_manifest.storage.base import no_space
from ...shards_manifest.tables import escape
from ..errors import SourceError
from ..listing import Entries, Listing
from .base import OnProgress, Source, no_progress
from .file_names import system_folders
from .path import Place

LARGEST_RATIO = 20  # expanded bytes for one packed: tars of photographs have 1 to 3
ALWAYS_ALLOWED = 64 * 2**20  # bytes; padding alone may make a small tar shrink further
PIECE = 4 * 2**20
GZIPPED = (".tar.gz", ".tgz")
DAMAGED = cast("type[Exception]", igzip_lib.IsalError)


def scratch_folder(scratch: str | None, out: str, source: str) -> Path:
    """Where a split of `source` to `out` expands: a folder of its own in `scratch`, else beside `out`."""
    home = Path(scratch) if scratch else Path(tempfile.gettempdir()) if "://" in out else Path(out).absolute().parent
    pair = os.path.abspath(source), out if "://" in out else os.path.abspath(out)
    name = os.path.basename(out.rstrip("/"))
    return home.absolute() / f"{name}.scratch-{hashlib.sha256(os.fsencode(repr(pair))).hexdigest()[:8]}"


def temporary_folder() -> Path:
    """A scratch folder for a program that names none, gone when the process ends."""
    folder = tempfile.mkdtemp(prefix="spectral-scratch-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@dataclass(frozen=True)
class Gunzipped(Source):
    """Gzip-compressed tars, and the source that reads them once they are expanded.

    pairs: each .tar.gz, and the plain tar that is made of it.
    """

    kind: str
    pairs: tuple[tuple[Place, Path], ...]
    plain: Source

    def scan(self, found: OnProgress = no_progress) -> Listing:
        """Expand what is not yet there, then scan the plain tars."""
        self.stage()
        listing = self.plain.scan(found)
        if self.kind != "class-tars-gz":
            return listing
        known = {packed.name for packed, _ in self.pairs}
        strays = [(escape(name), "not in a class") for name in self.pairs[0][0].parent.files() if name not in known]
        strays += system_folders(self.pairs[0][0].parent)
        return replace(listing, rejects=tuple(sorted([*listing.rejects, *strays])))

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """From the plain tar."""
        return self.plain.read(part, class_name, entries, i)

    def describe(self) -> dict[str, str]:
        """Kind and name."""
        return {**self.plain.describe(), "kind": self.kind}

    def files(self) -> Iterable[Place]:
        """The compressed tars."""
        return [packed for packed, _ in self.pairs]

    def stage(self) -> None:
        """Expand one tar after another. Raises SourceError where one is damaged, a bomb, or does not fit."""
        for packed, plain in missing(self.pairs):
            with expanding(packed, plain) as write:
                _gunzip(packed, write)


def missing(pairs: tuple[tuple[Place, Path], ...]) -> Iterator[tuple[Place, Path]]:
    """The pairs whose expanded file is not there yet, with a bar on a terminal: this can take hours.

    Raises SourceError where there is no room.
    """
    todo = {packed: (plain, packed.size()) for packed, plain in pairs if not plain.exists()}
    if not todo:
        return
    folder = pairs[0][1].parent
    total = sum(size for _, size in todo.values())
    check_space(total, folder, pairs[0][0].parent)
    with tqdm(total=total, unit="B", unit_scale=True, desc=f"expand to {folder}", disable=None) as bar:
        for packed, (plain, size) in todo.items():
            yield packed, plain
            bar.update(size)


def check_space(need: int, folder: Path, source: Place) -> None:
    """Raises SourceError where even the packed bytes would not fit: images hardly shrink."""
    home = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(home).free
    if need > free:
        raise SourceError(
            f"{source} has to be expanded, which takes {human_bytes(need)} or more, and {home} has "
            f"{human_bytes(free)} free: name a larger disk with --scratch"
        )


@contextmanager
def expanding(packed: Place, plain: Path) -> Iterator[Callable[[bytes], None]]:
    """Give a function that appends to `plain`, which appears under its name when all is written.

    Raises SourceError at a disk that is full, and at more bytes than a data set of images makes of `packed`.
    """
    size = packed.size()
    limit = max(LARGEST_RATIO * size, ALWAYS_ALLOWED)
    temporary = plain.with_name(f"{plain.name}.{os.urandom(4).hex()}.tmp")

    def write(data: bytes) -> None:
        if file.tell() + len(data) > limit:
            raise SourceError(
                f"{packed} expands to more than {human_bytes(limit)}, {human_bytes(size)} packed: "
                "that is no data set of images"
            )
        file.write(data)

    try:
        plain.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield write
        os.replace(temporary, plain)
    except OSError as error:
        if error.filename is not None and os.fspath(error.filename) == str(packed):
            raise
        advice = "name a larger disk with --scratch" if no_space(error) else "name another folder with --scratch"
        raise SourceError(f"cannot expand {packed} to {plain.parent} ({error.strerror or error}): {advice}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _gunzip(packed: Place, write: Callable[[bytes], None]) -> None:
    """The expanded bytes of a .gz, in pieces. Raises SourceError unless it is whole."""
    with packed.open() as raw:
        try:
            with igzip.open(raw, "rb") as file:  # type: ignore[no-untyped-call]
                while piece := file.read(PIECE):
                    write(piece)
        except (EOFError, gzip.BadGzipFile, DAMAGED) as error:
            raise SourceError(f"{packed} is not a complete gzip file ({error}): fetch it again") from None
