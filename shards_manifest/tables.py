"""The tables beside the bands: classes, samples, rejects. Text, one line a row, equal for all bands."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from array import array
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from .errors import FormatError

CLASSES = "classes.tsv"
REJECTS = "rejects.jsonl"

_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def samples_name(part: str) -> str:
    """Return the file name of the sample table of a part."""
    return f"samples-{part}.tsv.gz"


def escape(text: str) -> str:
    """Return `text` on one line: backslash, tab, newline and return escaped, undecodable bytes as \\xNN."""
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text  # nearly all: a third of the time of the rest
    return text.translate(_ESCAPES).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def sample_table(samples: Iterable[tuple[str, int]]) -> bytes:
    """Return lines `key<TAB>label` of escaped keys, in stored order: the text whose SHA-256 is the order's digest."""
    return "".join(f"{key}\t{label}\n" for key, label in samples).encode()


def order_digest(table: bytes) -> str:
    """Return the SHA-256, in hexadecimal, of the uncompressed sample table."""
    return hashlib.sha256(table).hexdigest()


def compress_table(table: bytes) -> bytes:
    """Return the table as gzip without name and time, so that equal tables are equal bytes."""
    stream = _stream()
    return stream.compress(table) + stream.flush()


def _stream() -> zlib._Compress:
    return zlib.compressobj(4, zlib.DEFLATED, 31)  # as small as ISA-L's level 2; higher ones take much longer


class TableWriter:
    """Hashes and compresses a sample table line by line: the text of many millions is never in memory."""

    def __init__(self) -> None:
        self.samples = 0
        self._digest = hashlib.sha256()
        self._pack = _stream()
        self._packed: list[bytes] = []

    def add(self, samples: Iterable[tuple[str, int]]) -> None:
        """Append (escaped key, label) rows."""
        lines = [f"{key}\t{label}\n" for key, label in samples]
        text = "".join(lines).encode()
        self.samples += len(lines)
        self._digest.update(text)
        self._packed.append(self._pack.compress(text))

    def finish(self) -> tuple[bytes, str]:
        """Return the table as `compress_table` does, and its digest as `order_digest` does."""
        self._packed.append(self._pack.flush())
        return b"".join(self._packed), self._digest.hexdigest()


def read_labels(data: bytes, where: str) -> tuple[NDArray[np.int64], str]:
    """Return the labels of a sample table, int64 (n,), and its digest. Memory is flat. Raises FormatError."""
    digest = hashlib.sha256()
    labels = array("q")
    try:
        if not data:
            raise EOFError("empty file")
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            for line in file:
                digest.update(line)
                _, label = line.split(b"\t")
                labels.append(int(label))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise FormatError(f"{where} is not a sample table ({error}): the file is damaged") from None
    return np.frombuffer(labels, np.int64), digest.hexdigest()


def read_samples(data: bytes, where: str) -> tuple[list[tuple[str, int]], str]:
    """Return the (key, label) rows of a sample table and its digest. Raises FormatError."""
    try:
        if not data:
            raise EOFError("empty file")
        table = gzip.decompress(data)
        rows = []
        for line in table.decode().split("\n")[:-1]:
            key, label = line.split("\t")
            rows.append((key, int(label)))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise FormatError(f"{where} is not a sample table ({error}): the file is damaged") from None
    return rows, order_digest(table)


def class_table(classes: Iterable[str], train: Iterable[int], val: Iterable[int]) -> bytes:
    """Return lines `index, class (escaped), images in train, in val`."""
    rows = zip(classes, train, val, strict=True)
    return "".join(f"{i}\t{name}\t{t}\t{v}\n" for i, (name, t, v) in enumerate(rows)).encode()


def reject_lines(rejects: Iterable[tuple[str, str]]) -> bytes:
    """Return one JSON object a line: the (escaped) source of an input that was left out, and the reason."""
    return "".join(
        json.dumps({"reason": reason, "source": source}, sort_keys=True, ensure_ascii=False) + "\n"
        for source, reason in rejects
    ).encode()
