"""Which names are candidates: endings of images, and the folders of systems and tools, which are no classes."""

from __future__ import annotations

import os

from ...shards_manifest.tables import escape
from .base import HIDDEN_FOLDER, Reject, text
from .path import Place

IMAGE_ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff"),
)
SYSTEM_FOLDERS = (  # in lower case
    *("__macosx", "lost+found", "$recycle.bin", "recycler", "system volume information"),
    *("@eadir", "#recycle", "@recycle", "#snapshot"),
)
OF_A_SYSTEM = "a folder of a system or a tool"
MOST_ENDINGS = 20  # of a class that have a line of their own among the rejects

_ENDINGS = frozenset(os.fsencode(ending) for ending in IMAGE_ENDINGS)


def is_system_folder(name: str) -> bool:
    """True for a folder that a system or a tool keeps for itself."""
    return name.lower() in SYSTEM_FOLDERS


def system_folder(path: bytes) -> bytes:
    """The path of the system's folder that a file lies in; empty for none."""
    if b"/" not in path:
        return b""
    pieces = path.split(b"/")
    for depth, piece in enumerate(pieces[:-1], 1):
        if is_system_folder(text(piece)):
            return b"/".join(pieces[:depth])
    return b""


def system_folders(root: Place) -> list[Reject]:
    """A line for each folder of a system or a tool, and each hidden one, directly in a folder.

    Raises OSError, StoreError.
    """
    lines = [(f"{name}/", OF_A_SYSTEM) for name in root.folders() if is_system_folder(name)]
    return lines + [(f"{name}/", HIDDEN_FOLDER) for name in root.hidden_folders()]


def ending(path: bytes) -> bytes:
    """The ending of a file's name, in lower case, with its dot; empty where the name has no dot."""
    name = path.rpartition(b"/")[2]
    dot = name.rfind(b".")
    return name[dot:].lower() if dot >= 0 else b""


def has_image_ending(name: str) -> bool:
    """True for a name that ends as an image's does and is not hidden."""
    return not name.startswith(".") and ending(os.fsencode(name)) in _ENDINGS


class Candidates:
    """Tells the candidates among the files of one class, or of one flat tar, from the rest.

    The rest is counted, not listed: a line for each ending and for each folder of a system, however many files.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._endings: dict[bytes, tuple[int, bytes]] = {}  # how many files, and the last of them
        self._folders: set[bytes] = set()

    def in_system_folder(self, path: bytes) -> bool:
        """True, and noted, for a file in a folder of a system or a tool."""
        folder = system_folder(path)
        if folder:
            self._folders.add(folder)
        return bool(folder)

    def takes(self, path: bytes) -> bool:
        """True for an image's ending, or none; else the file is noted."""
        found = ending(path)
        if not found or found in _ENDINGS:
            return True
        if found not in self._endings and len(self._endings) >= MOST_ENDINGS:
            found = b""  # all others together
        count, _ = self._endings.get(found, (0, b""))
        self._endings[found] = count + 1, path
        return False

    def rejects(self) -> list[Reject]:
        """A line for each kind of what was noted."""
        lines = [(f"{self._prefix}{text(folder)}/", OF_A_SYSTEM) for folder in self._folders]
        for found, (count, path) in self._endings.items():
            shown = escape(text(found))
            if count == 1:
                lines.append((self._prefix + text(path), f"its ending {escape(text(ending(path)))} is no image's"))
            elif found:
                reason = f"{count} files with the ending {shown}, which is no image's"
                lines.append((f"{self._prefix}*{text(found)}", reason))
            else:
                lines.append((f"{self._prefix}*", f"{count} files with other endings, which are no image's"))
        return lines
