"""The tables beside the bands: classes, samples, rejects. Text, one line a row, equal for all bands."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable

from isal import igzip_lib

from .errors import FormatError

CLASSES = "classes.tsv"
REJECTS = "rejects.jsonl"

_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def samples_name(part: str) -> str:
    """The file name of a part's sample table."""
    return f"samples-{part}.tsv.gz"


def escape(text: str) -> str:
    """`text` on one line: backslash, tab, newline and return escaped, undecodable bytes as \\xNN."""
    return text.translate(_ESCAPES).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def sample_table(samples: Iterable[tuple[str, int]]) -> bytes:
    """Lines `key<TAB>label` of escaped keys, in stored order: the text whose SHA-256 is the order's digest."""
    return "".join(f"{key}\t{label}\n" for key, label in samples).encode()


def order_digest(table: bytes) -> str:
    """SHA-256, in hexadecimal, of the uncompressed sample table."""
    return hashlib.sha256(table).hexdigest()


def compress_table(table: bytes) -> bytes:
    """The table as gzip without name and time, so that equal tables are equal bytes."""
    return bytes(igzip_lib.compress(table, 2, igzip_lib.COMP_GZIP))


def read_samples(data: bytes, where: str) -> tuple[list[tuple[str, int]], str]:
    """The (key, label) rows of a sample table and its digest. Raises FormatError."""
    try:
        if not data:
            raise EOFError("empty file")
        table = gzip.decompress(data)
        rows = []
        for line in table.decode().split("\n")[:-1]:
            key, label = line.split("\t")
            rows.append((key, int(label)))
    except (OSError, EOFError, ValueError) as error:
        raise FormatError(f"{where} is not a sample table ({error}): the file is damaged") from None
    return rows, order_digest(table)


def class_table(classes: Iterable[str], train: Iterable[int], val: Iterable[int]) -> bytes:
    """Lines `index, class (escaped), images kept for train, for val`."""
    rows = zip(classes, train, val, strict=True)
    return "".join(f"{i}\t{name}\t{t}\t{v}\n" for i, (name, t, v) in enumerate(rows)).encode()


def reject_lines(rejects: Iterable[tuple[str, str]]) -> bytes:
    """One JSON object a line: the (escaped) source of an input that was left out, and the reason."""
    return "".join(
        json.dumps({"reason": reason, "source": source}, sort_keys=True, ensure_ascii=False) + "\n"
        for source, reason in rejects
    ).encode()
