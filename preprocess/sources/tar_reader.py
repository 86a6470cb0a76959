"""Tars read in place: where each member's bytes lie, and which members are no images."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, cast

from ..errors import SourceError
from .base import LARGEST_IMAGE, Reject, hidden, text, too_large
from .file_names import OF_A_SYSTEM, Candidates, system_folder
from .path import Place

Image = tuple[bytes, int, int]  # name, offset in the file, size

# name, mode, owner and group, size, time, checksum, a regular file, and no prefix to the name
_PLAIN = re.compile(
    rb"(?!.{0,99}/\0)[^\0].{99}.{24}[0-7]{11}[\0 ].{12}[0-7]{6}[\0 ].0.{100}ustar.{83}\0.{166}", re.DOTALL
)
_DISK = 1024, 1024  # a header, and the byte before it that tarfile looks at
# A server takes as long for the first byte as for the next megabyte or two: so headers that lie closer than NEAR are
# read with what is between them, in pieces that grow; those farther apart one by one.
_SERVER = 16 << 10, 4 << 20
_NEAR = 1 << 20


class Window:
    """A range of an open file, as tarfile reads it: an inner tar without unpacking the outer one.

    fetch: (offset, length) to bytes.  ahead: how many bytes to fetch at least, at a jump and while going straight on.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], start: int, size: int, ahead: tuple[int, int]) -> None:
        self.start, self.size = start, size
        self._fetch, (self._least, self._most) = fetch, ahead
        self._ahead, self._place, self._held, self._held_at = self._least, 0, b"", 0

    def seek(self, place: int) -> int:
        """Go to a byte of the range."""
        self._place = place
        return place

    def tell(self) -> int:
        """The byte of the range to be read next."""
        return self._place

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; fewer at the end of the range, or of the file. Raises OSError, StoreError."""
        data = self.at(self._place, size)
        self._place += len(data)
        return data

    def at(self, place: int, size: int) -> bytes:
        """Up to `size` bytes from `place`, within the range; does not move. Raises OSError, StoreError."""
        size = min(size, self.size - place)
        if size <= 0:
            return b""
        at = place - self._held_at
        if at < 0 or at + size > len(self._held):
            near = 0 <= at < len(self._held) + _NEAR
            self._ahead = min(4 * self._ahead, self._most) if near else self._least
            wanted = min(max(size, self._ahead), self.size - place)
            self._held, self._held_at, at = self._fetch(self.start + place, wanted), place, 0
        return self._held[at : at + size]


@contextmanager
def window(place: Place, part: slice | None = None) -> Iterator[Window]:
    """A file, or a part of it, open for reading. Raises OSError, StoreError."""
    part = part or slice(0, place.size())
    with place.store.ranges(place.key) as fetch:
        yield Window(fetch, part.start, part.stop - part.start, _DISK if place.store.threads == 1 else _SERVER)


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
    if system_folder(name):
        return f"in {OF_A_SYSTEM}"
    return "hidden file" if hidden(name) else None


def images(file: Window, where: str, prefix: str, rejects: list[Reject]) -> list[Image]:
    """The (name, offset in the outermost file, size) of a tar's images; the rest goes to `rejects`.

    Raises SourceError unless the tar is whole.
    """
    found: dict[bytes, Image] = {}
    candidates = Candidates(prefix)
    for member in tar_members(file, where):
        name = os.fsencode(member_name(member))
        if candidates.in_system_folder(name):
            continue
        reason = why_not(member)
        if reason is None and name in found:
            reason = "a second member of this name"
        if reason is None and member.size > LARGEST_IMAGE:
            reason = too_large(member.size)
        if reason:
            rejects.append((prefix + text(name), reason))
        elif candidates.takes(name):
            found[name] = (name, file.start + member.offset_data, member.size)
    rejects += candidates.rejects()
    return list(found.values())
