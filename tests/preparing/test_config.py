"""The options of a split: defaults, checks, and how they are written down."""

import pytest

from spectral_shards.preprocess.config import JSON_NAMES, SplitConfig, option_name, parse_bands
from spectral_shards.preprocess.errors import ConfigError


def test_bands() -> None:
    assert parse_bands("0-3,7") == (0, 1, 2, 3, 7)
    assert parse_bands("35, 2,2") == (2, 35)
    for wrong in ("", "a", "1-", "-1", "1,,2", "1.5", "3-0", "0-9999999999", "36"):
        with pytest.raises(ConfigError, match="--bands"):
            parse_bands(wrong)


def test_defaults() -> None:
    config = SplitConfig(36).resolved()
    assert (config.size, config.quant_step, config.geometry.plane, len(config.bands)) == (336, 6.0, 56, 36)
    assert SplitConfig(16).resolved().geometry.plane == 56
    assert SplitConfig(4, size=224, margin=32).resolved().geometry.plane == 128
    assert SplitConfig(1).resolved().quant_step == 1.0


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
    config = SplitConfig(4).resolved()
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
    assert option_name("step") == "quant-step"
    assert option_name("samples_per_block") == "samples-per-block"
    assert set(JSON_NAMES) <= set(vars(config))
