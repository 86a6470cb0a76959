"""Layouts as people have them, of tiny images, and what a split would make of them."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path

import pytest

from spectral_shards.preprocess.config import SourceOptions, SplitConfig
from spectral_shards.preprocess.errors import ConfigError, SourceError
from spectral_shards.preprocess.image_formats import IMAGE_ENDINGS
from spectral_shards.preprocess.split.job import Job, prepare
from support import forms
from support.pictures import encode, picture

IMAGE = encode(picture(1, 20, 30))
SPLIT = ("spectral-prep", "split", "--factor", "4", "--size", "16", "--jobs", "1")


def fill(folder: Path, count: int, ending: str = ".jpg", first: int = 0) -> Path:
    """So many files in a folder: images, and for other endings text."""
    folder.mkdir(parents=True, exist_ok=True)
    image = ending.lower() in IMAGE_ENDINGS
    for i in range(first, first + count):
        (folder / f"{folder.name}_{i:03d}{ending}").write_bytes(IMAGE if image else b"{}")
    return folder


def classes(root: Path, count: int, *names: str) -> Path:
    """An ImageFolder with so many images in each class."""
    for name in names:
        fill(root / name, count)
    return root


def read(root: Path | str, **options: object) -> Job:
    """The source as a split of it would read it."""
    source = {name: options.pop(name) for name in ("kind", "val_labels", "scratch") if name in options}
    plan = SplitConfig(4, size=16, **options)  # type: ignore[arg-type]
    return prepare(root, plan, SourceOptions(**source))  # type: ignore[arg-type]


def counts(root: Path | str, **options: object) -> dict[str, tuple[int, int]]:
    """Images and classes of each part."""
    job = read(root, **options)
    return {part: (images, job.classes[part]) for part, images in job.samples.items()}


def reason(root: Path | str, **options: object) -> str:
    """The one sentence that a source is refused with."""
    with pytest.raises((SourceError, ConfigError)) as caught:
        read(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rejects(root: Path | str, **options: object) -> dict[str, str]:
    return dict(read(root, **options).listing.rejects)


def train_and(out: Path, *parts: str, train: str = "train") -> Path:
    """train/ with 2 x 4 images, and each of `parts` with 2 x 3."""
    classes(out / train, 4, "ant", "bee")
    for part in parts:
        classes(out / part, 3, "ant", "bee")
    return out


def nested(folders: Path, out: Path) -> Path:
    """A tar with class/image.jpg in it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(out, "w") as tar:
        for path in sorted(p for p in folders.rglob("*") if p.is_file()):
            forms.add(tar, str(path.relative_to(folders)), path.read_bytes())
    return out


def pressed(tar: Path) -> Path:
    packed = tar.with_name(f"{tar.name}.gz")
    packed.write_bytes(gzip.compress(tar.read_bytes(), 1))
    tar.unlink()
    return packed


def flat_val(out: Path, lines: str, listing: str = "val.txt", folder: str = "val") -> Path:
    """train/ of two classes, three flat images to validate on, and a list."""
    root = classes(out / "train", 4, "n01", "n02").parent
    (root / folder).mkdir(parents=True)
    for i in range(3):
        (root / folder / f"v{i}.JPEG").write_bytes(IMAGE)
    if listing:
        (root / listing).write_text(lines)
    return root


WNIDS = "v0.JPEG n02\nv1.JPEG n01\nv2.JPEG n02\n"
