import io
import warnings
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from spectral_shards.preprocess.errors import RejectedImage
from spectral_shards.preprocess.pipeline.decode import Decoder
from support.image_files import saved
from support.pictures import encode, huge_png, picture

PIXELS = picture(5, 60, 80)


def reference(image: Image.Image, side: int = 24) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))


def decode(data: bytes, side: int = 24, fit: str = "squash") -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return Decoder(side, fit, 2)(data)[..., :3].copy()


PICTURE = Image.fromarray(PIXELS)
FORMS = {
    "JPEG": encode(PIXELS, quality=95),
    "progressive JPEG": encode(PIXELS, quality=95, progressive=True),
    "4:4:4 JPEG": encode(PIXELS, quality=95, subsampling=0),
    "grey JPEG": saved(PICTURE.convert("L"), "JPEG"),
    "CMYK JPEG": saved(PICTURE.convert("CMYK"), "JPEG"),
    "PNG": encode(PIXELS, "PNG"),
    "palette PNG": saved(PICTURE.convert("P"), "PNG"),
    "palette PNG with transparency": saved(PICTURE.convert("P"), "PNG", transparency=bytes(range(256))),
    "RGBA PNG": saved(PICTURE.convert("RGBA"), "PNG"),
    "grey PNG": saved(PICTURE.convert("L"), "PNG"),
    "bilevel PNG": saved(PICTURE.convert("1"), "PNG"),
    "GIF": saved(PICTURE, "GIF"),
    "BMP": encode(PIXELS, "BMP"),
    "WebP": encode(PIXELS, "WEBP") if "WEBP" in Image.registered_extensions().values() else encode(PIXELS, "BMP"),
    "JPEG with damaged EXIF": encode(PIXELS, exif=b"Exif\0\0MM\0*\0\0\xff\xff\xff\xff"),
    "JPEG with bytes after its end": encode(PIXELS) + b"\0" * 40,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_decodes_as_pil_does(form: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = reference(Image.open(io.BytesIO(FORMS[form])))
    difference = np.abs(decode(FORMS[form]).astype(int) - wanted)
    assert difference.max() <= 3  # another release of libjpeg may round otherwise
    assert difference.mean() < 0.2


def test_sixteen_bit_grey_keeps_its_high_byte() -> None:
    wide = (PIXELS[..., 0].astype(np.uint16) << 8) + 77
    data = saved(Image.fromarray(wide), "PNG")
    assert np.abs(decode(data).astype(int)[..., 0] - reference(Image.fromarray(PIXELS[..., 0]))[..., 0]).max() <= 1


def test_crop_takes_the_central_square() -> None:
    wide = np.zeros((40, 100, 3), np.uint8)
    wide[:, 30:70] = 200
    assert (decode(encode(wide, "PNG"), fit="crop")[:, 1:-1] == 200).all()  # the filter reaches over the edge
    assert (decode(encode(wide, "PNG"), fit="squash")[:, :6] == 0).all()


@pytest.mark.parametrize("fit", ["squash", "crop"])
@pytest.mark.parametrize(
    ("height", "width", "scale"), [(83, 200, 1), (84, 84, 2), (121, 85, 2), (167, 301, 2), (171, 203, 4)]
)
def test_large_jpegs_are_decoded_smaller_without_a_visible_difference(
    height: int, width: int, scale: int, fit: str
) -> None:
    pixels = picture(3, height, width)
    data = encode(pixels, quality=95)
    decoder = Decoder(24, fit, 2)
    found = decoder(data)[..., :3].astype(float)
    assert decoder._scratch.size == -(-height // scale) * -(-width // scale) * 4
    edge, image = min(height, width), Image.open(io.BytesIO(data))
    left, top = ((width - edge) / 2, (height - edge) / 2) if fit == "crop" else (0, 0)
    box = (left, top, left + edge, top + edge) if fit == "crop" else None
    wanted = np.asarray(image.resize((24, 24), Image.Resampling.BILINEAR, box), float)
    error = float(np.mean((found - wanted) ** 2))
    assert error == 0 if scale == 1 else 10 * np.log10(255**2 / error) > 50  # 42 if the last pixel counts whole


def test_one_decoder_for_many_images() -> None:
    """Buffers are used again: a large, a small and an odd image must not show through each other."""
    decoder = Decoder(24, "squash", 2)
    images = [encode(picture(seed, h, w)) for seed, (h, w) in enumerate([(200, 300), (10, 7), (333, 11), (200, 300)])]
    first = [decoder(data).copy() for data in images]
    for data, pixels in zip(reversed(images), reversed(first), strict=True):
        assert np.array_equal(decoder(data), pixels)
        assert np.array_equal(Decoder(24, "squash", 2)(data)[..., :3], pixels[..., :3])


REJECTS = {
    "empty file": (b"", "empty file"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    "text": (b"hello, this is not an image at all", "not an image of a known format"),
    "truncated JPEG": (FORMS["JPEG"][:-400], "does not decode: .*truncated"),
    "JPEG header only": (FORMS["JPEG"][:40], "does not decode|not an image"),
    "truncated PNG": (FORMS["PNG"][:-900], "does not decode"),
    "one pixel": (encode(PIXELS[:1, :1]), "1x1 is smaller than the 2x2 phases"),
    "one pixel PNG": (encode(PIXELS[:1, :1], "PNG"), "1x1 is smaller"),
    "20000x20000 PNG": (huge_png(), "more than 100000000 pixels"),
    "PDF": (b"%PDF-1.4\n", "not an image"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
}


@pytest.mark.parametrize("what", REJECTS)
def test_rejected(what: str) -> None:
    data, reason = REJECTS[what]
    with pytest.raises(RejectedImage, match=reason):
        decode(data)


def test_any_damage_is_a_picture_or_a_reject() -> None:
    random = np.random.default_rng(0)
    decoder = Decoder(24, "squash", 2)
    for form in ("JPEG", "CMYK JPEG", "palette PNG", "GIF", "BMP"):
        for _ in range(60):
            bad = bytearray(FORMS[form])
            for place in random.integers(0, len(bad), 3):
                bad[place] ^= int(random.integers(1, 256))
            with suppress(RejectedImage):  # anything else fails the test
                decoder(bytes(bad))
