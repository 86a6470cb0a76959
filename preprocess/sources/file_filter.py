"""Which files are taken for images, by their names, and which folders belong to systems and tools."""

from __future__ import annotations

import os

from ...shards_manifest.tables import escape
from ..image_formats import IMAGE_ENDINGS
from .base import HIDDEN_FOLDER, Reject, name_text
from .path import SourcePath

SYSTEM_FOLDERS = (  # in lower case
    *("__macosx", "lost+found", "$recycle.bin", "recycler", "system volume information"),
    *("@eadir", "#recycle", "@recycle", "#snapshot"),
)
OF_A_SYSTEM = "a folder of a system or a tool"
MOST_ENDINGS = 20  # of one class that get a line each among the rejects

_ENDINGS = frozenset(os.fsencode(ending) for ending in IMAGE_ENDINGS)


def is_system_folder(name: str) -> bool:
    """Return whether a folder belongs to a system or a tool."""
    return name.lower() in SYSTEM_FOLDERS


def system_folder(path: bytes) -> bytes:
    """Return the path of the system's folder that a file is in; empty for none."""
    if b"/" not in path:
        return b""
    pieces = path.split(b"/")
    for depth, piece in enumerate(pieces[:-1], 1):
        if is_system_folder(name_text(piece)):
            return b"/".join(pieces[:depth])
    return b""


def system_folders(root: SourcePath) -> list[Reject]:
    """Return a reject for each folder of a system or a tool, and each hidden one, directly in a folder."""
    lines = [(f"{name}/", OF_A_SYSTEM) for name in root.folders() if is_system_folder(name)]
    return lines + [(f"{name}/", HIDDEN_FOLDER) for name in root.hidden_folders()]


def ending(path: bytes) -> bytes:
    """Return the ending of a file's name, in lower case, with its dot; empty if the name has no dot."""
    name = path.rpartition(b"/")[2]
    dot = name.rfind(b".")
    return name[dot:].lower() if dot >= 0 else b""


def has_image_ending(name: str) -> bool:
    """Return whether a name ends as an image's does and is not hidden."""
    return not name.startswith(".") and ending(os.fsencode(name)) in _ENDINGS


class FileFilter:
    """Finds the images among the files of one class, or of one flat tar.

    The other files are counted, not listed: one reject for each ending and for each folder of a system.

    Args:
        prefix: What stands before each name among the rejects.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._endings: dict[bytes, tuple[int, bytes]] = {}  # how many files, and the last of them
        self._folders: set[bytes] = set()

    def in_system_folder(self, path: bytes) -> bool:
        """Return whether a file is in a folder of a system or a tool; the folder is noted."""
        folder = system_folder(path)
        if folder:
            self._folders.add(folder)
        return bool(folder)

    def accepts(self, path: bytes) -> bool:
        """Return whether a file has an image's ending, or none; any other file is noted."""
        found = ending(path)
        if not found or found in _ENDINGS:
            return True
        if found not in self._endings and len(self._endings) >= MOST_ENDINGS:
            found = b""  # all others together
        count, _ = self._endings.get(found, (0, b""))
        self._endings[found] = count + 1, path
        return False

    def rejects(self) -> list[Reject]:
        """Return a reject for each kind of what was noted."""
        lines = [(f"{self._prefix}{name_text(folder)}/", OF_A_SYSTEM) for folder in self._folders]
        for found, (count, path) in self._endings.items():
            shown = escape(name_text(found))
            if count == 1:
                lines.append(
                    (self._prefix + name_text(path), f"its ending {escape(name_text(ending(path)))} is no image's")
                )
            elif found:
                reason = f"{count} files with the ending {shown}, which is no image's"
                lines.append((f"{self._prefix}*{name_text(found)}", reason))
            else:
                lines.append((f"{self._prefix}*", f"{count} files with other endings, which are no image's"))
        return lines
