"""The scratch folder: what can only be read as a stream is expanded once into it and read in place there."""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from ...shards_manifest.runtime.cli_runner import human_bytes
from ...shards_manifest.storage.base import no_space
from ..errors import SourceError
from .path import SourcePath

LARGEST_RATIO = 20  # expanded bytes for each packed byte; tars of photographs have 1 to 3
ALWAYS_ALLOWED = 64 * 2**20  # bytes; the padding of a small tar can shrink further than that
GZIPPED = (".tar.gz", ".tgz")


def scratch_folder(scratch: str | os.PathLike[str] | None, out: str, source: str) -> Path:
    """Return the folder where a split of `source` to `out` expands: within `scratch` if given, else beside `out`."""
    home = Path(scratch) if scratch else Path(tempfile.gettempdir()) if "://" in out else Path(out).absolute().parent
    pair = os.path.abspath(source), out if "://" in out else os.path.abspath(out)
    name = os.path.basename(out.rstrip("/"))
    return home.absolute() / f"{name}.scratch-{hashlib.sha256(os.fsencode(repr(pair))).hexdigest()[:8]}"


def temporary_folder() -> Path:
    """Make a scratch folder that is removed when the process ends."""
    folder = tempfile.mkdtemp(prefix="spectral-scratch-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def missing(pairs: tuple[tuple[SourcePath, Path], ...]) -> Iterator[tuple[SourcePath, Path]]:
    """Yield the pairs whose expanded file is not there yet, with a bar on a terminal, as this can take hours.

    Args:
        pairs: Each packed file, and the file that it is expanded to.

    Raises:
        SourceError: The disk has not enough space.
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


def check_space(need: int, folder: Path, source: SourcePath) -> None:
    """Raise SourceError if not even the packed bytes fit; images hardly shrink."""
    home = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(home).free
    if need > free:
        raise SourceError(
            f"{source} has to be expanded, which takes {human_bytes(need)} or more, and {home} has "
            f"{human_bytes(free)} free: name a larger disk with --scratch"
        )


@contextmanager
def expanding(packed: SourcePath, plain: Path) -> Iterator[Callable[[bytes], None]]:
    """Give a function that appends to `plain`, which gets its name when everything is written.

    Raises:
        SourceError: The disk is full, or `packed` expands to more bytes than a data set of images does.
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
