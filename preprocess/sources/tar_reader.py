"""Tars read without unpacking: where the bytes of each member are, and which members are images."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, cast

from ..errors import SourceError
from .base import HIDDEN, LARGEST_IMAGE, Reject, is_hidden, name_text, too_large
from .file_filter import OF_A_SYSTEM, FileFilter, system_folder
from .path import SourcePath

ImageSpan = tuple[bytes, int, int]  # name, offset in the file, size

# name, mode, owner and group, size, time, checksum, a regular file, and no prefix to the name
_PLAIN = re.compile(
    rb"(?!.{0,99}/\0)[^\0].{99}.{24}[0-7]{11}[\0 ].{12}[0-7]{6}[\0 ].0.{100}ustar.{83}\0.{166}", re.DOTALL
)
_DISK = 1024, 1024  # a header, and the byte before it that tarfile looks at
# A server takes as long for the first byte as for the next megabyte or two. So headers that are closer than NEAR are
# read together with what is between them, in growing pieces; other headers are read one by one.
_SERVER = 16 << 10, 4 << 20
_NEAR = 1 << 20


class RangeReader:
    """A range of an open file, as tarfile reads it: a tar, or an inner tar without unpacking the outer one.

    Args:
        fetch: Returns the bytes at (offset, length) of the file.
        start: First byte of the range.
        size: Bytes of the range.
        ahead: How many bytes to fetch at least: after a jump, and while reading on.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], start: int, size: int, ahead: tuple[int, int]) -> None:
        self.start, self.size = start, size
        self._fetch, (self._least, self._most) = fetch, ahead
        self._ahead, self._position, self._buffer, self._buffer_start = self._least, 0, b"", 0

    def seek(self, position: int) -> int:
        """Go to a byte of the range."""
        self._position = position
        return position

    def tell(self) -> int:
        """Return the byte of the range that is read next."""
        return self._position

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes; fewer at the end of the range, or of the file. Raises OSError, StoreError."""
        data = self.at(self._position, size)
        self._position += len(data)
        return data

    def at(self, position: int, size: int) -> bytes:
        """Return up to `size` bytes from `position`, without moving there. Raises OSError, StoreError."""
        size = min(size, self.size - position)
        if size <= 0:
            return b""
        at = position - self._buffer_start
        if at < 0 or at + size > len(self._buffer):
            near = 0 <= at < len(self._buffer) + _NEAR
            self._ahead = min(4 * self._ahead, self._most) if near else self._least
            wanted = min(max(size, self._ahead), self.size - position)
            self._buffer, self._buffer_start, at = self._fetch(self.start + position, wanted), position, 0
        return self._buffer[at : at + size]


@contextmanager
def open_range(path: SourcePath, part: slice | None = None) -> Iterator[RangeReader]:
    """Open a file, or a part of it, for reading. Raises OSError, StoreError."""
    part = part or slice(0, path.size())
    with path.store.ranges(path.key) as fetch:
        yield RangeReader(fetch, part.start, part.stop - part.start, _DISK if path.store.threads == 1 else _SERVER)


def tar_members(file: RangeReader, where: str) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a plain tar without its folders.

    tarfile takes a cut between two members, or a damaged header, for the end of a tar, so the end is checked.

    Raises:
        SourceError: The tar is cut or damaged; the sentence names `where`.
    """
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", file), mode="r:") as tar:
            before = -1
            while (member := _plain_member(file, tar) or tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # flat memory over millions of members
                if tar.offset <= before or member.size < 0:
                    raise tarfile.ReadError(f"damaged at byte {member.offset}")
                before = tar.offset
                if not member.isdir():
                    yield member
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"cut or damaged at byte {tar.offset}")
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise SourceError(f"{where} is not a complete plain tar ({error}): fetch it again") from None


def _plain_member(file: RangeReader, tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    """Return the next member if it is a file with a plain header, as nearly all are: several times as fast as tarfile.

    Return None to leave everything else to tarfile: the first member, long names, links, the end, damage.
    """
    if tar.firstmember is not None or tar.pax_headers:  # type: ignore[attr-defined]
        return None
    header = file.at(tar.offset, tarfile.BLOCKSIZE)
    if not _PLAIN.fullmatch(header):
        return None
    size, checksum = int(header[124:135], 8), int(header[148:154], 8)
    if sum(header) - sum(header[148:156]) + 8 * 32 != checksum:
        return None
    member = tarfile.TarInfo(name_text(header[:100].partition(b"\0")[0]))
    member.offset, member.offset_data, member.size = tar.offset, tar.offset + tarfile.BLOCKSIZE, size
    tar.offset = member.offset_data + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return member


def member_name(member: tarfile.TarInfo) -> str:
    """Return the name of a member without a leading ./"""
    return member.name.removeprefix("./")


def reject_reason(member: tarfile.TarInfo) -> str | None:
    """Return the reason to leave a member out, or None."""
    name = os.fsencode(member_name(member))
    if not member.isreg() or member.issparse():
        return "not a regular file"
    if name.startswith(b"/") or b".." in name.split(b"/"):
        return "a name that leads out of the tar"
    if system_folder(name):
        return f"in {OF_A_SYSTEM}"
    return HIDDEN if is_hidden(name) else None


def list_images(file: RangeReader, where: str, prefix: str, rejects: list[Reject]) -> list[ImageSpan]:
    """Return the images of a tar, with offsets in the outermost file.

    Args:
        file: The tar.
        where: Its name, for messages.
        prefix: What stands before each name among the rejects.
        rejects: What is left out is appended here.

    Raises:
        SourceError: The tar is cut or damaged.
    """
    found: dict[bytes, ImageSpan] = {}
    file_filter = FileFilter(prefix)
    for member in tar_members(file, where):
        name = os.fsencode(member_name(member))
        if file_filter.in_system_folder(name):
            continue
        reason = reject_reason(member)
        if reason is None and name in found:
            reason = "a second member of this name"
        if reason is None and member.size > LARGEST_IMAGE:
            reason = too_large(member.size)
        if reason:
            rejects.append((prefix + name_text(name), reason))
        elif file_filter.accepts(name):
            found[name] = (name, file.start + member.offset_data, member.size)
    rejects += file_filter.rejects()
    return list(found.values())
