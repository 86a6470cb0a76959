"""The options of a split: defaults, checks, and how they are written down."""

from dataclasses import fields

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spectral_shards.preprocess.cli import split as split_command
from spectral_shards.preprocess.config import JSON_NAMES, SplitConfig, command_options, option_name, parse_bands
from spectral_shards.preprocess.errors import ConfigError


def test_bands() -> None:
    assert parse_bands("0-3,7") == (0, 1, 2, 3, 7)
    assert parse_bands("35, 2,2") == (2, 35)
    for wrong in ("", "a", "1-", "-1", "1,,2", "1.5", "3-0", "0-9999999999", "36", "9" * 5000):
        with pytest.raises(ConfigError, match="--bands"):
            parse_bands(wrong)


def test_defaults() -> None:
    config = SplitConfig(36).resolved()
    assert (config.size, config.quant_step, config.geometry.plane, len(config.bands)) == (336, 3.25, 56, 36)
    assert SplitConfig(16).resolved().geometry.plane == 56
    assert SplitConfig(4, size=224, margin=32).resolved().geometry.plane == 128
    assert SplitConfig(1).resolved().quant_step == 1.0


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"factor": 4}, (3.25, 9.75)),
        ({"factor": 16, "transform": "dct2"}, (2.75, 8.25)),
        ({"factor": 36}, (3.25, 9.75)),
        ({"factor": 36, "quant_step": 6.0}, (6.0, 18.0)),
        ({"factor": 36, "quant_step": 100.0}, (100.0, 128.0)),
        ({"factor": 36, "quant_step": 6.0, "chroma_quant_step": 6.0}, (6.0, 6.0)),
        ({"factor": 16, "chroma_quant_step": 5.0}, (2.75, 5.0)),
        ({"factor": 16, "color": "rgb"}, (5.0, 5.0)),
        ({"factor": 36, "transform": "none"}, (6.0, 6.0)),
        ({"factor": 16, "dtype": "float16"}, (1.0, 1.0)),
        ({"factor": 1}, (1.0, 1.0)),
    ],
)
def test_steps(options: dict[str, object], steps: tuple[float, float]) -> None:
    config = SplitConfig(**options).resolved()  # type: ignore[arg-type]
    assert (config.quant_step, config.chroma_quant_step) == steps
    assert config.resolved() == config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 9}, "--factor 9"),
        ({"factor": 36, "size": 224}, "--size 224 does not divide by 6: take 222"),
        ({"factor": 4, "margin": 3}, "--margin 3 does not divide by 2"),
        ({"factor": 4, "margin": -2}, "--margin -2"),
        ({"factor": 36, "size": 2}, "--size 2 is too small: take 6 or more"),
        ({"factor": 4, "samples_per_block": 10**12}, "a block in all bands would take"),
        ({"factor": 4, "size": 9000}, "at most 4096"),
        ({"factor": 4, "quant_step": 0.1}, "--quant-step 0.1"),
        ({"factor": 4, "quant_step": float("nan")}, "--quant-step nan"),
        ({"factor": 4, "dtype": "float16", "quant_step": 4.0}, "--quant-step does not apply"),
        ({"factor": 4, "chroma_quant_step": 129.0}, "--chroma-quant-step 129.0: choose a value from 0.25 to 128"),
        ({"factor": 4, "color": "rgb", "chroma_quant_step": 9.0}, "--chroma-quant-step 9.0 does not apply"),
        ({"factor": 1, "chroma_quant_step": 9.0}, "--chroma-quant-step 9.0 does not apply"),
        ({"factor": 4, "bands": (0, 4)}, "--bands: choose from 0 to 3"),
        ({"factor": 4, "fit": "pad"}, "--fit pad: choose squash, crop"),
        ({"factor": 4, "transform": "fft"}, "--transform fft: choose dct, dct2, none"),
        ({"factor": 4, "color": "lab"}, "--color lab"),
        ({"factor": 4, "dtype": "int4"}, "--dtype int4"),
        ({"factor": 4, "samples_per_block": 0}, "--samples-per-block"),
        ({"factor": 4, "val_per_class": -2}, "--val-per-class -2"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SplitConfig(**options).resolved()  # type: ignore[arg-type]


def test_names_of_options_in_files() -> None:
    """Splits that were written earlier say step."""
    config = SplitConfig(4, quant_step=5.0, chroma_quant_step=5.0).resolved()
    assert config.to_json() == {
        "factor": 4,
        "size": 224,
        "margin": 0,
        "fit": "squash",
        "transform": "dct",
        "color": "ycbcr",
        "dtype": "int8",
        "step": 5.0,
        "bands": [0, 1, 2, 3],
        "samples_per_shard": 0,
        "samples_per_block": 64,
        "val_per_class": -1,
        "seed": 0,
        "limit": 0,
    }
    assert SplitConfig(4).resolved().to_json() == {**config.to_json(), "step": 3.25, "chroma_step": 9.75}
    assert option_name("step") == "quant-step"
    assert option_name("chroma_step") == "chroma-quant-step"
    assert option_name("samples_per_block") == "samples-per-block"
    assert set(JSON_NAMES) <= set(vars(config))


def parsed(words: list[str]) -> SplitConfig:
    """The options that the command line gives."""
    given_values = split_command.make_context("split", ["photos", *words]).params
    names = {field.name for field in fields(SplitConfig)}
    return SplitConfig(**{name: value for name, value in given_values.items() if name in names and value is not None})


STEPS = st.sampled_from([0.0, 1.0, 2.75, 3.25, 4.0, 5.0, 6.0, 9.75, 12.0, 100.0])


@given(
    factor=st.sampled_from([1, 4, 16, 36]),
    size=st.sampled_from([0, 12, 48]),
    margin=st.sampled_from([0, 12]),
    fit=st.sampled_from(["squash", "crop"]),
    transform=st.sampled_from(["dct", "dct2", "none"]),
    color=st.sampled_from(["ycbcr", "rgb"]),
    dtype=st.sampled_from(["int8", "float16"]),
    quant_step=STEPS,
    chroma_quant_step=STEPS,
    bands=st.sampled_from([(), (0,), (1, 2)]),
    samples_per_shard=st.sampled_from([0, 24]),
    samples_per_block=st.sampled_from([-1, 8]),
    val_per_class=st.sampled_from([-1, 0, 7]),
    seed=st.sampled_from([0, 3]),
    limit=st.sampled_from([0, 9]),
    min_class_images=st.sampled_from([0, 4]),
    orientation=st.sampled_from(["stored", "exif"]),
    compression=st.sampled_from(["gzip", "none"]),
)
def test_the_options_of_a_plan_give_the_same_plan(**values: object) -> None:
    try:
        config = SplitConfig(**values).resolved()  # type: ignore[arg-type]
    except ConfigError:
        assume(False)
    again = parsed(" ".join(command_options(config.to_json())).split())
    assert again.resolved() == config


def test_the_options_of_older_plans() -> None:
    older = {"factor": 4, "size": 32, "transform": "dct", "color": "ycbcr", "dtype": "int8", "step": 5.0}
    assert command_options(older) == ["--factor 4", "--size 32", "--quant-step 5.0", "--chroma-quant-step 5.0"]
    assert command_options({"factor": 4}) == ["--factor 4"]
