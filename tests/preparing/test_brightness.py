"""Images keep their brightness and colours, whatever their format; others are rejected with a reason."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from spectral_shards.preprocess.errors import RejectedImage
from spectral_shards.preprocess.inspection.fidelity import fidelity
from spectral_shards.preprocess.pipeline import orientation, pil_decode
from spectral_shards.preprocess.pipeline.decode import Decoder
from support.image_files import (
    COLOUR,
    LIBTIFF,
    RAMP,
    WIDE,
    few,
    grey_tiff,
    palette_tiff,
    png,
    saved,
    stored,
    tiff,
    twelve_bits,
)
from support.pictures import class_folders, encode, picture
from support.splits import make_split

GREYS: dict[str, tuple[bytes, NDArray[np.uint8]]] = {
    "8-bit TIFF": (tiff(RAMP), RAMP),
    "8-bit TIFF, white is zero": (tiff(255 - RAMP, 0), RAMP),
    "16-bit TIFF": (tiff(WIDE), RAMP),
    "16-bit TIFF, big-endian": (tiff(WIDE, end=">"), RAMP),
    "16-bit TIFF, white is zero": (tiff(65535 - WIDE, 0), RAMP),
    "12-bit TIFF": (twelve_bits(), RAMP),
    "palette TIFF": (palette_tiff(256), RAMP),
    "palette TIFF of 8-bit values": (palette_tiff(1), RAMP),
    "grey and alpha TIFF": (tiff(np.stack([RAMP, RAMP // 2], -1), t338=2), RAMP),
    "palette and alpha TIFF": (
        tiff(np.stack([RAMP, RAMP // 2], -1), 3, t338=2, t320=("H", [256 * v for v in range(256)] * 3)),
        RAMP,
    ),
    "16-bit PNG": (png(WIDE), RAMP),
    "16-bit grey and alpha PNG": (png(np.stack([WIDE, WIDE // 2], -1), 4), RAMP),
    "16-bit PGM": (b"P5 16 12 65535\n" + WIDE.astype(">u2").tobytes(), RAMP),
    "12-bit PGM": (b"P5 16 12 4095\n" + (RAMP.astype(np.uint16) * 16 + 3).astype(">u2").tobytes(), RAMP),
    "plain PGM": (b"P2 16 12 255\n" + b" ".join(b"%d" % value for value in RAMP.ravel()), RAMP),
    **{f"{bits}-bit TIFF": (grey_tiff(bits, 1), few(bits) * (255 // ((1 << bits) - 1))) for bits in (1, 2, 4)},
    **{f"{b}-bit TIFF, white is zero": (grey_tiff(b, 0), 255 - few(b) * (255 // ((1 << b) - 1))) for b in (1, 2, 4)},
}


@pytest.mark.parametrize("form", GREYS)
def test_grey_images_keep_their_brightness(form: str) -> None:
    data, wanted = GREYS[form]
    found = stored(data)
    assert np.ptp(found.astype(int), axis=2).max() == 0  # grey
    assert np.abs(found[..., 0].astype(int) - wanted).max() <= 1


COLOURS = {
    "RGB TIFF": tiff(COLOUR, 2),
    "RGB TIFF, big-endian": tiff(COLOUR, 2, end=">"),
    "16-bit RGB TIFF": tiff(COLOUR.astype(np.uint16) * 257, 2),
    "16-bit RGB TIFF, big-endian": tiff(COLOUR.astype(np.uint16) * 257, 2, end=">"),
    "RGB TIFF in planes": tiff(COLOUR, 2, t284=2),
    "RGB and alpha TIFF": tiff(np.dstack([COLOUR, COLOUR[..., :1]]), 2, t338=2),
    "16-bit RGB PNG": png(COLOUR.astype(np.uint16) * 257, 2),
    "16-bit RGB and alpha PNG": png(np.dstack([COLOUR, COLOUR[..., :1]]).astype(np.uint16) * 257, 6),
    "CMYK TIFF": tiff(np.dstack([255 - COLOUR, np.zeros_like(COLOUR[..., :1])]), 5),
    "CMYK and more TIFF": tiff(np.dstack([255 - COLOUR, np.zeros_like(COLOUR[..., :2])]), 5, t338=0),
    "16-bit PPM": b"P6 16 12 65535\n" + (COLOUR.astype(np.uint16) * 257).astype(">u2").tobytes(),
}


@pytest.mark.parametrize("form", COLOURS)
def test_colour_images_keep_their_colours(form: str) -> None:
    assert np.abs(stored(COLOURS[form]).astype(int) - COLOUR).max() <= 1


@pytest.mark.skipif(not LIBTIFF, reason="this PIL reads no compressed TIFF")
@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_compressed_tiffs(compression: str) -> None:
    found = stored(saved(Image.fromarray(COLOUR), "TIFF", compression=compression))
    assert np.abs(found.astype(int) - COLOUR).mean() < (12 if compression == "jpeg" else 0.01)
    if compression != "jpeg":
        found = stored(saved(Image.fromarray(WIDE), "TIFF", compression=compression))
        assert np.abs(found[..., 0].astype(int) - RAMP).max() == 0


NO_WHITE = "whose white is not known: convert it to 8 or 16 bits"
UNKNOWN = {
    "unsigned 32-bit TIFF": (tiff(RAMP.astype(np.uint32)), f"a TIFF with 32-bit integers, {NO_WHITE}"),
    "signed 32-bit TIFF": (tiff(RAMP.astype(np.int32), t339=2), f"a TIFF with 32-bit signed integers, {NO_WHITE}"),
    "32-bit TIFF, big-endian": (tiff(RAMP.astype(np.uint32), end=">"), f"a TIFF with 32-bit integers, {NO_WHITE}"),
    "signed 16-bit TIFF": (tiff(WIDE.astype(np.int16), t339=2), f"a TIFF with 16-bit signed integers, {NO_WHITE}"),
    "signed 8-bit TIFF": (tiff(RAMP.astype(np.int8), t339=2), f"a TIFF with 8-bit signed integers, {NO_WHITE}"),
    "float16 TIFF": (
        tiff(RAMP.astype(np.float16) / 255, t339=3),
        f"a TIFF with 16-bit floating-point numbers, {NO_WHITE}",
    ),
    "float32 TIFF": (
        tiff(RAMP.astype(np.float32) / 255, t339=3),
        f"a TIFF with 32-bit floating-point numbers, {NO_WHITE}",
    ),
    "float64 TIFF": (
        tiff(RAMP.astype(np.float64) / 255, t339=3),
        f"a TIFF with 64-bit floating-point numbers, {NO_WHITE}",
    ),
    "float32 RGB TIFF": (
        tiff(COLOUR.astype(np.float32) / 255, 2, t339=("H", [3, 3, 3])),
        f"a TIFF with 32-bit floating-point numbers, {NO_WHITE}",
    ),
    "Lab TIFF": (tiff(COLOUR, 8), "a TIFF with CIE Lab colours: convert it to RGB"),
    "ICC Lab TIFF": (tiff(COLOUR, 9), "a TIFF with CIE Lab colours: convert it to RGB"),
    "YCbCr TIFF": (tiff(COLOUR, 6), "a TIFF with YCbCr samples outside JPEG: convert it to RGB"),
    "16-bit TIFF in planes": (
        tiff(COLOUR.astype(np.uint16) * 257, 2, t284=2),
        "a TIFF with 16-bit channels in planes of their own: convert it to 8 bits",
    ),
    "two samples a pixel": (
        tiff(np.dstack([RAMP, RAMP])),
        "a TIFF with 2 samples of 8 bits a pixel and photometric interpretation 1, which PIL does not read: "
        "convert it to 8-bit RGB",
    ),
    "PFM": (b"Pf 16 12 -1.0\n" + RAMP.astype("<f4").tobytes(), f"a PPM with floating-point numbers, {NO_WHITE}"),
}


@pytest.mark.parametrize("form", UNKNOWN)
def test_what_has_no_known_brightness_is_rejected(form: str) -> None:
    data, reason = UNKNOWN[form]
    with pytest.raises(RejectedImage) as caught:
        pil_decode.read(data)
    if form != "PFM" or str(caught.value).startswith("a PPM"):  # older PILs do not know it
        assert str(caught.value) == reason


def test_lab_and_others_do_not_depend_on_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    def converted(*_: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "load", converted)
    for form in ("Lab TIFF", "YCbCr TIFF", "signed 16-bit TIFF"):
        with pytest.raises(RejectedImage, match="a TIFF with"):
            pil_decode.read(UNKNOWN[form][0])


@pytest.mark.parametrize("mode", ["LAB", "HSV", "La", "RGBa", "I", "F"])
def test_modes_that_a_format_may_come_to_have(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No format gives the first four today; whatever gives them has no brightness that all builds of PIL agree on."""

    def loaded(*_: object) -> tuple[Image.Image, int]:
        return Image.new(mode, (4, 4)), 1

    monkeypatch.setattr(orientation, "load", loaded)
    with pytest.raises(RejectedImage, match="whose white is not known"):
        pil_decode.read(encode(COLOUR, "BMP"))


def test_sixteen_bits_are_known_by_the_format_where_the_mode_is_i(monkeypatch: pytest.MonkeyPatch) -> None:
    """PIL before version 11 calls a 16-bit grey PNG I, and every version a PGM."""

    def loaded(*_: object) -> tuple[Image.Image, int]:
        return Image.fromarray(WIDE.astype(np.int32)), 1

    monkeypatch.setattr(orientation, "load", loaded)
    assert np.array_equal(stored(png(WIDE))[..., 0], RAMP)
    with pytest.raises(RejectedImage, match="a BMP with 32-bit integers"):
        pil_decode.read(encode(COLOUR, "BMP"))


def test_the_real_images(shared_data: Path) -> None:
    images = shared_data / "faults" / "images"
    if not images.is_dir():
        pytest.skip("the made faults are not here")
    for name, reason in (
        ("tif_i32_8bitrange.tif", "32-bit (signed )?integers, whose white is not known"),
        ("tif_lab.tif", "CIE Lab colours"),
        ("jpg_no_eoi.jpg", "does not decode: image file is truncated"),
    ):
        with pytest.raises(RejectedImage, match=reason):
            Decoder(32, "squash", 2)((images / name).read_bytes())
    for upright in (False, True):
        decoder = Decoder(32, "squash", 2, upright=upright)
        forms = [
            decoder((images / f"{name}_exif6.{name}").read_bytes()).copy()[..., :3].astype(int)
            for name in ("jpg", "png", "tif")
        ]
        assert decoder.turned == 3
        assert max(np.abs(form - forms[1]).mean() for form in forms) < 3
        assert np.abs(forms[1] - np.rot90(forms[1])).mean() > 10


def test_sixteen_bits_are_compared_as_they_were_stored(tmp_path: Path) -> None:
    """`verify --against` must not take the low bytes' clipping for another picture."""
    source = class_folders(tmp_path / "set", {"a": 3})
    grey = picture(2, 40, 40)[..., 0].astype(np.uint16) * 257
    (source / "a" / "wide.tif").write_bytes(tiff(grey))
    (source / "a" / "wide.png").write_bytes(png(grey))
    out = make_split(source, tmp_path / "out", factor=4, size=16, val_per_class=0)
    found = fidelity(out, source, 100)
    assert (len(found.psnr), found.bad) == (5, ())
