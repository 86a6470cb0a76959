"""What can go wrong, as one tree.

SpectralError               a problem the user can act on; its text is one sentence
├── FormatError             manifests and tables: missing, malformed, or of an unknown version
├── ShardError              a shard that is missing, cut, altered, or out of line with its manifest
├── StoreError              the disk or the store refused
├── BackendError            processes or a cluster that cannot do the work
│   └── WorkerLostError     one of its processes was killed
└── preprocess.errors.*, train.errors.*
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SpectralError(Exception):
    """A problem with the input or the environment; commands print it and exit with code 2."""


class FormatError(SpectralError):
    """A manifest or a table is missing, malformed, or of a version that this release does not know."""


class ShardError(SpectralError):
    """A shard is missing, cut short, altered, or does not match its manifest."""


class StoreError(SpectralError):
    """The disk or the object store refused an operation."""


class BackendError(SpectralError):
    """Processes or a cluster that cannot be reached, died, or compute with other versions."""


class WorkerLostError(BackendError):
    """A process that did a task was killed, perhaps for lack of memory."""


def did_you_mean(word: str, words: Iterable[object]) -> str:
    """Return a question that names the word most like a mistyped one, after a semicolon; nothing if none is like it."""
    found = difflib.get_close_matches(word, list(map(str, words)), 1)
    return f"; did you mean {found[0]!r}?" if found else ""
