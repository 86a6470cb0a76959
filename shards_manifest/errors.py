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
from itertools import takewhile


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
    found = difflib.get_close_matches(word, list(map(str, words)))
    if not found:
        return ""

    def likeness(
        other: str,
    ) -> tuple[float, int]:  # of resnet34 and resnet50, alike to resnet35, the former begins alike
        begins = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(other, word, strict=False)))
        return difflib.SequenceMatcher(None, other, word).ratio(), begins

    return f"; did you mean {max(found, key=likeness)!r}?"
