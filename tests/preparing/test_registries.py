"""Each choice is defined once: what is listed in one place is known wherever it is used."""

import pytest
from PIL import Image, features

from spectral_shards.preprocess.cli import split
from spectral_shards.preprocess.config import SourceOptions, SplitConfig, WorkerOptions
from spectral_shards.preprocess.image_formats import FORMATS, IMAGE_ENDINGS
from spectral_shards.preprocess.source_kinds import KINDS
from spectral_shards.preprocess.sources.forms import FORMS
from spectral_shards.shards_manifest.manifest import DTYPES, KNOWN
from spectral_shards.shards_manifest.runtime.executors import BACKENDS
from spectral_shards.shards_manifest.spectral.color import COLORS
from spectral_shards.shards_manifest.spectral.transform import TRANSFORMS
from support.programs import fails


def test_every_kind_of_source_has_a_form() -> None:
    """ILSVRC2012 as it is fetched is two forms in one folder (sources/detect.py)."""
    assert set(FORMS) == set(KINDS) - {"imagenet"}


def test_every_image_format_is_known_to_pillow() -> None:
    Image.init()
    for image_format in FORMATS:
        if not image_format.feature or features.check(image_format.feature):
            assert image_format.name in Image.OPEN
            assert set(image_format.endings) <= set(Image.EXTENSION)
    assert len(set(IMAGE_ENDINGS)) == len(IMAGE_ENDINGS)


def test_choices_are_those_of_the_library() -> None:
    assert (KNOWN["transform"], KNOWN["color"], KNOWN["dtype"]) == (tuple(TRANSFORMS), tuple(COLORS), tuple(DTYPES))
    assert "loky" in BACKENDS


def test_every_option_sets_a_field() -> None:
    """A field that no option sets would have its default for ever.

    The list of classes has an option for its file; which bands are uncompressed follows from `--compression`.
    """
    fields = {name for kind in (SplitConfig, SourceOptions, WorkerOptions) for name in kind.__dataclass_fields__}
    names = {parameter.name for parameter in split.params}
    assert fields - names == {"classes", "uncompressed"}
    assert names - fields == {"source", "class_list", "out", "dry_run", "quiet"}


@pytest.mark.parametrize("option", ["fit", "transform", "color", "dtype", "orientation", "source", "backend"])
def test_a_wrong_choice_is_one_sentence(option: str) -> None:
    sentence = fails("spectral-prep", "split", "x", "--factor", "4", f"--{option}", "bogus")
    assert sentence.startswith(f"Error: Invalid value for '--{option}': 'bogus' is not one of ")
