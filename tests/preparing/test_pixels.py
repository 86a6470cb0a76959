"""Whatever a file holds, it becomes a picture of the right brightness, the right way up, or a reason to reject it."""

import io
import json
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin, features

from spectral_shards.preprocess.errors import RejectedImage
from spectral_shards.preprocess.inspection.fidelity import fidelity
from spectral_shards.preprocess.pipeline import decode, orientation, pil_decode
from spectral_shards.preprocess.pipeline.decode import Decoder, resizer_name
from support.pictures import class_folders, encode, picture
from support.programs import fails, program
from support.splits import make_split, tree

RAMP = np.add.outer(np.arange(12), np.arange(16)).astype(np.uint8) * 9  # 0 to 234
WEBP, LIBTIFF = features.check("webp"), features.check("libtiff")
TYPES = {"B": 1, "H": 3, "I": 4}  # struct letters and the numbers of their types in a TIFF


def tiff(
    samples: NDArray[np.generic], photometric: int = 1, end: str = "<", **tags: int | tuple[str, list[int]]
) -> bytes:
    """An uncompressed TIFF. samples: (height, width, ...); tags: as t339=3, or t320=("H", [...]).

    One strip, or with t284=2 (channels in planes of their own) one for each channel.
    """
    height, width, *more = samples.shape
    channels = more[0] if more else 1
    strips = channels if tags.get("t284") == 2 else 1
    data = samples.transpose(2, 0, 1) if strips > 1 else samples
    body = data.astype(samples.dtype.newbyteorder(end)).tobytes()
    entries: dict[int, tuple[str, list[int]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [8 * samples.dtype.itemsize] * channels),
        259: ("H", [1]),
        262: ("H", [photometric]),
        273: ("I", [0] * strips),
        277: ("H", [channels]),
        278: ("I", [height]),
        279: ("I", [len(body) // strips] * strips),
    }
    entries |= {int(name[1:]): ("H", [value]) if isinstance(value, int) else value for name, value in tags.items()}
    start = 8 + 2 + 12 * len(entries) + 4
    size = sum(struct.calcsize(f"{len(v)}{k}") for k, v in entries.values() if struct.calcsize(f"{len(v)}{k}") > 4)
    entries[273] = ("I", [start + size + len(body) // strips * strip for strip in range(strips)])
    directory = longer = b""
    for tag, (kind, values) in sorted(entries.items()):
        value = struct.pack(f"{end}{len(values)}{kind}", *values)
        if len(value) > 4:
            value, longer = struct.pack(f"{end}I", start + len(longer)), longer + value
        directory += struct.pack(f"{end}HHI", tag, TYPES[kind], len(values)) + value.ljust(4, b"\0")
    head = (b"II*\0" if end == "<" else b"MM\0*") + struct.pack(f"{end}IH", 8, len(entries))
    return head + directory + bytes(4) + longer + body


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples: NDArray[np.generic], colour: int = 0, extra: bytes = b"") -> bytes:
    """A PNG as it says; samples: (height, width, ...) of uint8 or uint16."""
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in samples)
    bits = 8 * samples.dtype.itemsize
    head = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def stored(data: bytes, upright: bool = False) -> NDArray[np.uint8]:
    """The pixels of a file, uint8 (height, width, 3); a warning is a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return np.asarray(pil_decode.read(data, upright)[0])


def packed(values: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Values of 1, 2 or 4 bits, as many to a byte as go in."""
    each = np.unpackbits(values[..., None], axis=-1)[..., 8 - bits :]
    return np.packbits(each.reshape(len(values), -1), axis=-1)


def few(bits: int) -> NDArray[np.uint8]:
    return RAMP % (1 << bits)


def grey_tiff(bits: int, photometric: int) -> bytes:
    return tiff(
        packed(few(bits), bits), photometric, t256=("I", [RAMP.shape[1]]), t258=bits
    )  # the writer takes bytes for samples


def twelve_bits() -> bytes:
    """Two samples of 12 bits to three bytes."""
    wide = RAMP.astype(np.uint16) * 16 + 3
    first, second = wide[:, ::2], wide[:, 1::2]
    three = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1).astype(np.uint8)
    return tiff(three.reshape(len(RAMP), -1), t256=("I", [RAMP.shape[1]]), t258=12)


def palette_tiff(scale: int) -> bytes:
    """Colours of a palette that are grey, from dark to light, with values of 16 bits or, as some write, of 8."""
    return tiff(RAMP, 3, t320=("H", [scale * value for value in range(256)] * 3))


WIDE = RAMP.astype(np.uint16) * 256 + 77
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


COLOUR = picture(3, 12, 16)
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


# --- orientation

TALL = picture(8, 30, 44)
CARRIERS: dict[str, Callable[[int], bytes]] = {
    "JPEG": lambda way: saved(Image.fromarray(TALL), "JPEG", quality=95, exif=exif(way)),
    "PNG": lambda way: saved(Image.fromarray(TALL), "PNG", exif=exif(way)),
    "TIFF": lambda way: tiff(TALL, 2, t274=way),
    "grey TIFF": lambda way: tiff(TALL[..., 0], t274=way),
    "16-bit TIFF, big-endian": lambda way: tiff(TALL[..., 0].astype(np.uint16) * 257, end=">", t274=way),
}
if LIBTIFF:
    CARRIERS["compressed TIFF"] = lambda way: saved(
        Image.fromarray(TALL), "TIFF", compression="tiff_lzw", tiffinfo={274: way}
    )
if WEBP:
    CARRIERS["WebP"] = lambda way: saved(Image.fromarray(TALL), "WEBP", lossless=True, exif=exif(way))


def exif(way: int) -> bytes:
    made = Image.Exif()
    made[0x0112] = way
    return made.tobytes()


@pytest.mark.parametrize("way", range(1, 9))
@pytest.mark.parametrize("form", CARRIERS)
def test_one_rule_of_orientation_for_all_formats(form: str, way: int) -> None:
    data = CARRIERS[form](way)
    plain = stored(CARRIERS[form](1))
    with Image.open(io.BytesIO(CARRIERS[form](1))) as image:
        expected = pil_decode.read(data)[0]
        assert expected.size == image.size == (44, 30)
    assert np.array_equal(stored(data), plain)
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)  # of a TIFF, PIL does that while loading it
        wanted = np.asarray(upright) if upright.mode == "RGB" else None
    turned = stored(data, upright=True)
    again = ImageOps.exif_transpose(_with(Image.fromarray(plain), way))
    assert np.array_equal(turned, np.asarray(again))
    assert wanted is None or np.array_equal(turned, wanted)
    assert turned.shape[:2] == ((44, 30) if way >= 5 else (30, 44))
    assert pil_decode.read(data)[1] == pil_decode.read(data, upright=True)[1] == way


def _with(image: Image.Image, way: int) -> Image.Image:
    image.getexif()[0x0112] = way
    return image


@pytest.mark.parametrize("applies", [True, False])
@pytest.mark.parametrize("way", range(1, 9))
def test_a_tiff_is_the_same_whether_pil_turns_it_or_not(
    way: int, applies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not applies:
        monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "load_end", lambda _: None)
    data = tiff(TALL, 2, t274=way)
    assert np.array_equal(stored(data), TALL)
    wanted = np.asarray(ImageOps.exif_transpose(_with(Image.fromarray(TALL), way)))
    assert np.array_equal(stored(data, upright=True), wanted)


def test_pil_turns_a_tiff_while_loading_it() -> None:
    """What is undone: should a version of PIL stop doing it, orientation.load can be simpler."""
    with Image.open(io.BytesIO(tiff(TALL, 2, t274=6))) as image:
        image.load()
        assert image.size == (30, 44)
        assert orientation.orientation(image) == 1


@pytest.mark.parametrize("fit", ["squash", "crop"])
@pytest.mark.parametrize("way", range(1, 9))
def test_jpegs_that_are_scaled_while_decoding_are_turned_too(way: int, fit: str) -> None:
    """The last column of 333 is half a pixel at half the size: it must not become a whole first one."""
    large = picture(4, 251, 333)
    data = saved(Image.fromarray(large), "JPEG", quality=95, exif=exif(way))
    upright = ImageOps.exif_transpose(_with(Image.fromarray(large), way))
    edge = min(upright.size)
    left, top = (upright.width - edge) / 2, (upright.height - edge) / 2
    box = (left, top, left + edge, top + edge) if fit == "crop" else None
    wanted = np.asarray(upright.resize((48, 48), Image.Resampling.BILINEAR, box)).astype(float)
    decoder = Decoder(48, fit, 2, upright=True)
    error = np.mean((decoder(data)[..., :3] - wanted) ** 2)
    assert 10 * np.log10(255**2 / error) > 40
    assert decoder.turned == (way != 1)
    still = Decoder(48, fit, 2)
    plain = still(saved(Image.fromarray(large), "JPEG", quality=95)).copy()
    assert still.turned == 0
    assert np.array_equal(still(data), plain)
    assert still.turned == (way != 1)


def test_exif_that_says_nothing() -> None:
    bad = (b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12")
    decoder = Decoder(24, "squash", 2, upright=True)
    plain = decoder(saved(Image.fromarray(TALL), "JPEG")).copy()
    for block in (*bad, exif(0), exif(9), exif(65535)):
        assert np.array_equal(decoder(saved(Image.fromarray(TALL), "JPEG", exif=block)), plain)
        assert len(stored(saved(Image.fromarray(TALL), "PNG", exif=block), upright=True)) == 30
    assert decoder.turned == 0
    assert np.array_equal(stored(tiff(TALL, 2, t274=9), upright=True), TALL)


def test_exif_is_found_behind_other_segments() -> None:
    made = saved(Image.fromarray(TALL), "JPEG", exif=exif(6))
    place = made.index(b"\xff\xe1")
    comment = b"\xff\xfe" + struct.pack(">H", 60_002) + bytes(60_000)
    for data in (made, made[:place] + 3 * comment + made[place:], made[:2] + b"\xff\xff" + made[2:]):
        assert orientation.of_jpeg(data) == 6
    assert orientation.of_jpeg(saved(Image.fromarray(TALL), "JPEG", comment=b"Exif\0\0 tiff:Orientation 6")) == 1
    assert orientation.of_jpeg(made[:20]) == 1
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="8"/></x:xmpmeta>'
    data = saved(Image.fromarray(TALL), "JPEG", xmp=xmp)
    with Image.open(io.BytesIO(data)) as image:
        assert orientation.of_jpeg(data) == image.getexif().get(0x0112, 1)


def test_the_option_of_the_split(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "set", {"a": 4, "b": 4})
    for number, form in enumerate(("JPEG", "PNG", "TIFF")):
        (source / "a" / f"turned.{form}").write_bytes(CARRIERS[form](6 + number))
    command = ("spectral-prep", "split", "--factor", "4", "--size", "24", "--val-per-class", "0", source, "--out")
    done = program(*command, tmp_path / "as-stored")
    assert done.returncode == 0, done.stderr
    assert "3 images have an EXIF orientation, which was ignored; --orientation exif applies it" in done.stdout
    turned = program(*command, tmp_path / "turned", "--orientation", "exif")
    assert turned.returncode == 0, turned.stderr
    assert "3 images have an EXIF orientation, which was applied" in turned.stdout
    assert tree(tmp_path / "turned") != tree(tmp_path / "as-stored")
    for name in ("as-stored", "turned"):
        found = fidelity(tmp_path / name, source, 100)
        assert (len(found.psnr), found.bad) == (11, ())
        assert found.psnr.min() > 30
    plan = json.loads((tmp_path / "as-stored" / "rows" / "plan.json").read_text())["plan"]
    assert "orientation" not in plan
    again = program(*command, tmp_path / "as-stored", "--orientation", "stored")
    assert "nothing to do" in again.stdout
    assert "3 images have an EXIF orientation" in again.stdout
    assert "(orientation stored there, exif here)" in fails(*command, tmp_path / "as-stored", "--orientation", "exif")
    assert "(orientation exif there, stored here)" in fails(*command, tmp_path / "turned")
    wrong = fails(*command, tmp_path / "x", "--orientation", "up")
    assert "'--orientation': 'up' is not one of 'stored', 'exif'" in wrong
    (source / "a" / "turned.PNG").unlink()
    (source / "a" / "turned.TIFF").unlink()
    assert "1 image has an EXIF orientation" in program(*command, tmp_path / "one").stdout
    (source / "a" / "turned.JPEG").unlink()
    assert "orientation" not in program(*command, tmp_path / "none").stdout


def test_sixteen_bits_are_compared_as_they_were_stored(tmp_path: Path) -> None:
    """`verify --against` must not take the low bytes' clipping for another picture."""
    source = class_folders(tmp_path / "set", {"a": 3})
    grey = picture(2, 40, 40)[..., 0].astype(np.uint16) * 257
    (source / "a" / "wide.tif").write_bytes(tiff(grey))
    (source / "a" / "wide.png").write_bytes(png(grey))
    out = make_split(source, tmp_path / "out", factor=4, size=16, val_per_class=0)
    found = fidelity(out, source, 100)
    assert (len(found.psnr), found.bad) == (5, ())


# --- damage

FORMS = {
    "JPEG": encode(COLOUR),
    "JPEG with EXIF": CARRIERS["JPEG"](6),
    "PNG": encode(COLOUR, "PNG"),
    "PNG with EXIF": CARRIERS["PNG"](6),
    "palette PNG": saved(Image.fromarray(COLOUR).convert("P"), "PNG", transparency=3),
    "GIF": saved(Image.fromarray(COLOUR), "GIF"),
    "GIF of two frames": saved(
        Image.fromarray(COLOUR), "GIF", save_all=True, append_images=[Image.fromarray(255 - COLOUR)]
    ),
    "BMP": encode(COLOUR, "BMP"),
    "PPM": encode(COLOUR, "PPM"),
    "TIFF": tiff(COLOUR, 2, t274=6),
    "16-bit TIFF": tiff(WIDE),
    "palette TIFF": palette_tiff(256),
    "BigTIFF": saved(Image.fromarray(COLOUR), "TIFF", big_tiff=True),
    **({"WebP": encode(COLOUR, "WEBP")} if WEBP else {}),
    **{
        f"TIFF, {name}": saved(Image.fromarray(COLOUR), "TIFF", compression=name)
        for name in (("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg") if LIBTIFF else ())
    },
}


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """Bytes flipped, a piece cut out, or the end cut off."""
    bad = bytearray(data)
    for place in random.integers(0, len(bad), random.integers(1, 4)):
        bad[place] = int(random.choice([0, 1, 127, 255, random.integers(256)]))
    kind, (first, last) = random.integers(4), sorted(random.integers(0, len(bad) + 1, 2))
    if kind == 0:
        del bad[last:]
    elif kind == 1:
        del bad[first:last]
    return bytes(bad)


@pytest.mark.parametrize("form", FORMS)
def test_damage_is_a_picture_or_a_reason(form: str) -> None:
    """The same one every time, since it is written down; anything but a reject fails the test."""
    random = np.random.default_rng(sum(form.encode()))
    decoder = Decoder(16, "squash", 2, upright=True)
    for _ in range(60):
        bad = damaged(FORMS[form], random)
        reasons = []
        for _ in range(2):
            try:
                decoder(bad)
            except RejectedImage as reason:
                reasons.append(str(reason))
        assert len(reasons) != 1
        assert len(set(reasons)) <= 1
        assert all(reason.strip() and " at 0x" not in reason for reason in reasons)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("odd"), KeyError(7), struct.error("x"), RecursionError()]
)
def test_whatever_a_parser_raises_is_that_file_s_reject(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*_: object, **__: object) -> None:
        raise error

    good, bad = encode(COLOUR), encode(COLOUR, "PNG")
    for name in ("a.jpg", "b.png"):
        path = tmp_path / "set" / "c" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(good if name == "a.jpg" else bad)
    monkeypatch.setattr(PIL.PngImagePlugin.PngImageFile, "load", stumble)
    out = make_split(tmp_path / "set", tmp_path / "out", factor=4, size=16, val_per_class=0)
    (line,) = (out / "rejects.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert found["source"] == "c/b.png"
    assert found["reason"].startswith("does not decode: ")
    assert found["reason"] != "does not decode: "
    # and what the fast decoder stumbles on, PIL may still read
    monkeypatch.undo()
    monkeypatch.setattr(decode.simplejpeg, "decode_jpeg", stumble)
    assert Decoder(12, "squash", 2)(good).shape == (12, 12, 4)


def test_ctrl_c_is_no_reject(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PIL.PngImagePlugin.PngImageFile, "load", stop)
    with pytest.raises(KeyboardInterrupt):
        Decoder(16, "squash", 2)(encode(COLOUR, "PNG"))


def test_bombs_and_empty_pictures() -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    empty = tiff(COLOUR, 2, t256=("I", [0]))
    for what, data in {
        "iCCP": png(RAMP, extra=chunk(b"iCCP", b"x\0\0" + bomb)),
        "zTXt": png(RAMP, extra=chunk(b"zTXt", b"x\0\0" + bomb)),
        "no columns": png(np.zeros((4, 0), np.uint8)),
        "no columns, TIFF": empty,
        "GIF of nothing": b"GIF89a" + bytes(4) + b"\0\0\0;",
        "PPM of nothing": b"P6 0 0 255\n",
    }.items():
        with pytest.raises(RejectedImage) as caught:
            Decoder(16, "squash", 2)(data)
        assert str(caught.value), what


def test_the_first_of_many_frames_is_taken() -> None:
    first = stored(saved(Image.fromarray(COLOUR), "GIF"))
    assert np.array_equal(stored(FORMS["GIF of two frames"]), first)
    pages = saved(Image.fromarray(COLOUR), "TIFF", save_all=True, append_images=[Image.fromarray(255 - COLOUR)])
    assert np.array_equal(stored(pages), COLOUR)


@pytest.mark.parametrize("cut", [2, 1, 60])
def test_a_jpeg_without_its_end_is_rejected_as_others_do(cut: int) -> None:
    """PIL, torchvision's ImageFolder and torchvision.io refuse it; so does this."""
    data = encode(TALL)[:-cut]
    with Image.open(io.BytesIO(data)) as image, pytest.raises(OSError, match="truncated"):
        image.convert("RGB")
    with pytest.raises(RejectedImage, match=r"does not decode: .*truncated"):
        Decoder(8, "squash", 2)(data)


@pytest.mark.parametrize("lacking", [(), ("webp",), ("libtiff",), ("webp", "libtiff")])
def test_the_resizer_says_what_it_lacks(lacking: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda feature: feature not in lacking)
    names = [{"webp": "WebP", "libtiff": "compressed TIFF"}[feature] for feature in lacking]
    assert resizer_name().endswith(f"), without {', '.join(names)}" if names else ")")
