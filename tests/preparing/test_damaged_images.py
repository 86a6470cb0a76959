"""A damaged image file becomes a picture or a reason to reject it, never an error of the program."""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image, features

from spectral_shards.preprocess.errors import RejectedImage
from spectral_shards.preprocess.pipeline import decode
from spectral_shards.preprocess.pipeline.decode import Decoder, resizer_name
from support.image_files import (
    CARRIERS,
    COLOUR,
    LIBTIFF,
    RAMP,
    TALL,
    WEBP,
    WIDE,
    chunk,
    palette_tiff,
    png,
    saved,
    stored,
    tiff,
)
from support.pictures import encode
from support.splits import make_split

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
