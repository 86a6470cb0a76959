"""Tars read in place: where each member's bytes lie, and which members are no images."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from ..errors import SourceError
from .base import LARGEST_IMAGE, Reject, hidden, text, too_large

# name, mode, owner and group, size, time, checksum, a regular file, and no prefix to the name
_PLAIN = re.compile(
    rb"(?!.{0,99}/\0)[^\0].{99}.{24}[0-7]{11}[\0 ].{12}[0-7]{6}[\0 ].0.{100}ustar.{83}\0.{166}", re.DOTALL
)
_AHEAD = 1024  # a header, and the byte before it that tarfile looks at


class Window:
    """A range of an open file, as tarfile reads it: an inner tar without unpacking the outer one."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        self._descriptor, self.start, self.size = descriptor, start, size
        self._place, self._held, self._held_at = 0, b"", 0

    def seek(self, place: int) -> int:
        """Go to a byte of the range."""
        self._place = place
        return place

    def tell(self) -> int:
        """The byte of the range to be read next."""
        return self._place

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; fewer at the end of the range, or of the file. Raises OSError."""
        size = min(size, self.size - self._place)
        if size <= 0:
            return b""
        at = self._place - self._held_at
        if at < 0 or at + size > len(self._held):
            ahead = min(max(size, _AHEAD), self.size - self._place)
            self._held, self._held_at, at = os.pread(self._descriptor, ahead, self.start + self._place), self._place, 0
        data = self._held[at : at + size]
        self._place += len(data)
        return data

    def at(self, place: int, size: int) -> bytes:
        """Up to `size` bytes from `place`, within the range; does not move."""
        return os.pread(self._descriptor, max(min(size, self.size - place), 0), self.start + place)

    def within(self, place: int, size: int) -> Window:
        """A part of the range as a file of its own."""
        return Window(self._descriptor, self.start + place, size)


@contextmanager
def window(path: Path) -> Iterator[Window]:
    """A whole file, open for reading. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield Window(descriptor, 0, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def tar_members(file: Window, where: str) -> Iterator[tarfile.TarInfo]:
    """The members of a plain tar but its folders. Raises SourceError, naming `where`, unless it is whole.

    tarfile takes a cut at a member's boundary, or a damaged header, for the end: so the end is checked.
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


def _plain_member(file: Window, tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    """The next member if it is a file with a plain header, as nearly all are: several times as fast as tarfile.

    None leaves everything else to tarfile: the first member, long names, links, the end, damage.
    """
    if tar.firstmember is not None or tar.pax_headers:  # type: ignore[attr-defined]
        return None
    header = file.at(tar.offset, tarfile.BLOCKSIZE)
    if not _PLAIN.fullmatch(header):
        return None
    size, checksum = int(header[124:135], 8), int(header[148:154], 8)
    if sum(header) - sum(header[148:156]) + 8 * 32 != checksum:
        return None
    member = tarfile.TarInfo(text(header[:100].partition(b"\0")[0]))
    member.offset, member.offset_data, member.size = tar.offset, tar.offset + tarfile.BLOCKSIZE, size
    tar.offset = member.offset_data + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return member


def member_name(member: tarfile.TarInfo) -> str:
    """The name of a member without a leading ./"""
    return member.name.removeprefix("./")


def why_not(member: tarfile.TarInfo) -> str | None:
    """The reason to leave a member out, or None."""
    name = os.fsencode(member_name(member))
    if not member.isreg() or member.issparse():
        return "not a regular file"
    if name.startswith(b"/") or b".." in name.split(b"/"):
        return "a name that leads out of the tar"
    return "hidden file" if hidden(name) else None


def images(file: Window, where: str, prefix: str, rejects: list[Reject]) -> list[tuple[bytes, int, int]]:
    """The (name, offset in the outermost file, size) of a tar's images; the rest goes to `rejects`.

    Raises SourceError unless the tar is whole.
    """
    found: dict[bytes, tuple[bytes, int, int]] = {}
    for member in tar_members(file, where):
        name = os.fsencode(member_name(member))
        reason = why_not(member)
        if reason is None and name in found:
            reason = "a second member of this name"
        if reason is None and member.size > LARGEST_IMAGE:
            reason = too_large(member.size)
        if reason:
            rejects.append((prefix + text(name), reason))
        else:
            found[name] = (name, file.start + member.offset_data, member.size)
    return list(found.values())
