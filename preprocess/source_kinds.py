"""The forms of sources by name: one line for each, for --source, for --help and for error messages.

This module imports nothing, as --help shows it. What files belong to a form and which class reads them is in
sources/forms.py, under the same names.
"""

from __future__ import annotations

KINDS = {
    "folders": "one folder of images a class (ImageFolder)",
    "tars": "one plain tar a class",
    "tars-gz": "one .tar.gz a class",
    "tar-of-tars": "one .tar, or .tar.gz, of class tars (fall11_whole.tar)",
    "imagenet": "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar with its devkit or labels",
    "webdataset": "tars of key.jpg with key.cls",
    "parquet": "Parquet files with a column of images and one of labels",
}


def kinds_sentence() -> str:
    """Return all kinds on one line."""
    return "; ".join(f"{name}: {text}" for name, text in KINDS.items())


def kind_words(kind: str) -> str:
    """Return a kind as a manifest names it in words: class-tars-gz becomes compressed class tars."""
    words = kind.replace("-", " ")
    if words.endswith(" gz"):
        return f"compressed {words.removesuffix(' gz')}"
    return {"webdataset": "WebDataset shards", "parquet": "Parquet files"}.get(
        kind, words.replace("labelled folder", "labelled images").replace("labelled tar", "labelled images")
    )
