"""Sources whose labels are odd, and what their scans hold."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from spectral_shards.preprocess.config import SourceOptions
from spectral_shards.preprocess.errors import ConfigError, SourceError
from spectral_shards.preprocess.listing import Listing
from spectral_shards.preprocess.sources import find_source
from support import forms

OPTIONS = {"factor": 4, "size": 16, "samples_per_shard": 8, "samples_per_block": 4, "val_per_class": 1}


COMMAND = ("spectral-prep", "split", "--factor", "4", "--size", "16", "--jobs", "1")


NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def scan(path: Path, **options: str | Path) -> Listing:
    return find_source(path, SourceOptions(**options)).scan()  # type: ignore[arg-type]


def refusal(path: Path, **options: str | Path) -> str:
    with pytest.raises((SourceError, ConfigError)) as caught:
        scan(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def counts(listing: Listing, part: str = "train") -> dict[str, int]:
    """The images of each class."""
    labels = listing.parts[part].label.tolist()
    return {name: labels.count(number) for number, name in enumerate(listing.classes)}


def names(listing: Listing, part: str = "train") -> set[str]:
    entries = listing.parts[part]
    return {listing.key(entries, i) for i in range(len(entries))}


def shard(path: Path, labels: list[object], classes: str | bytes | None = None, ending: str = "cls") -> Path:
    """A shard of an image for each label, scanned but not decoded; its folder. None: an image without a label."""
    path.parent.mkdir(parents=True, exist_ok=True)
    members = {}
    for number, label in enumerate(labels):
        members[f"{number:03d}.jpg"] = b"image"
        if label is not None:
            members[f"{number:03d}.{ending}"] = label if isinstance(label, bytes) else str(label).encode()
    forms.flat_tar(members, path)
    if classes is not None:
        data = classes if isinstance(classes, bytes) else classes.encode()
        (path.parent / "classes.txt").write_bytes(data)
    return path.parent


def tables(out: Path) -> dict[str, bytes]:
    files = [*out.glob("*.tsv*"), *out.glob("0*/*.tar"), out / "rejects.jsonl"]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def named_shards(folders: Path, out: Path, ending: str = "cls") -> Path:
    """Shards whose labels are the names of the folders."""
    out.mkdir(parents=True)
    for number, path in enumerate(sorted(folders.glob("*/*"))):
        text = path.parent.name if ending == "cls" else json.dumps({"label": path.parent.name})
        forms.flat_tar(
            {path.name: path.read_bytes(), f"{path.stem}.{ending}": text.encode()}, out / f"{number:03d}.tar"
        )
    return out
