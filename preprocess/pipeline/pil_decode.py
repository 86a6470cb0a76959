"""Encoded image to RGB pixels by Pillow: a picture of the right brightness, or a reason to reject it."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable

import numpy as np
import PIL
from PIL import Image, features

from ..errors import RejectedImage
from ..image_formats import FORMATS
from . import orientation, tiff

_NAMES = [each.name for each in FORMATS]
MAX_PIXELS = 100_000_000  # 400 MB decoded, within the memory of one worker
KNOWN_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")  # modes that PIL makes RGB of


def missing_formats() -> list[str]:
    """Return the formats that this PIL was built without."""
    return [each.needs_feature for each in FORMATS if each.feature and not features.check(each.feature)]


def read(
    data: bytes, upright: bool = False, check: Callable[[int, int], object] = lambda width, height: None
) -> tuple[Image.Image, int]:
    """Decode the first image of a file.

    Args:
        data: The file.
        upright: Turn the image by the orientation in its EXIF; otherwise it is as it is stored, in every format.
        check: Called with width and height before the image is decoded; may raise RejectedImage.

    Returns:
        The image in mode RGB, and its orientation, 1 to 8.

    Raises:
        RejectedImage: The image cannot be used, for whatever reason.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # damaged EXIF and large images are checked here
        return _read(data, upright, check)


def _read(data: bytes, upright: bool, check: Callable[[int, int], object]) -> tuple[Image.Image, int]:
    try:
        with Image.open(io.BytesIO(data), formats=_NAMES) as image:
            check(*image.size)
            tags = getattr(image, "tag_v2", {})
            if image.format == "TIFF" and (what := tiff.unknown(tags)):
                raise RejectedImage(f"a TIFF with {what}")
            decoded, found = orientation.load(image, upright)
            return _to_rgb(decoded, str(image.format), tags), found
    except RejectedImage:
        raise
    except PIL.UnidentifiedImageError:
        raise RejectedImage(_unidentified(data)) from None
    except Image.DecompressionBombError:
        raise RejectedImage(f"more than {MAX_PIXELS} pixels") from None
    except Exception as error:  # PIL's parsers raise many things, MemoryError among them
        raise RejectedImage(_reason(error)) from None


def _unidentified(data: bytes) -> str:
    if not data:
        return "empty file"
    if data.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS in place of the image: fetch the images with git lfs pull"
    if tiff.looks_like(data) and (tags := tiff.tags_of(data)):
        return f"a TIFF with {tiff.unknown(tags) or tiff.unread(tags)}"
    lacking = f" (this PIL reads no {', '.join(missing_formats())})" if missing_formats() else ""
    return f"not an image of a known format{lacking}"


def _reason(error: Exception) -> str:
    """Return what PIL says, without the addresses of objects, which differ from run to run."""
    if "libtiff not available" in str(error):
        return "a compressed TIFF, which this PIL does not read"
    text = re.sub(r" at 0x[0-9a-f]+", "", str(error)) or type(error).__name__
    return f"does not decode: {text}"


def _to_rgb(image: Image.Image, form: str, tags: tiff.Tags) -> Image.Image:
    """Return decoded pixels as RGB. `form` is the format of the file, `tags` are those of a TIFF."""
    if image.mode.startswith("I;16") or (image.mode == "I" and form in ("PNG", "PPM")):  # older PILs call 16 bits I
        bits, inverted = tiff.grey16(tags)
        high = np.clip(np.asarray(image).astype(np.int32) >> bits - 8, 0, 255).astype(np.uint8)
        return Image.fromarray(255 - high if inverted else high).convert("RGB")
    if image.mode not in KNOWN_MODES:
        what = {"I": "32-bit integers", "F": "floating-point numbers"}.get(image.mode, f"pixels in mode {image.mode}")
        raise RejectedImage(f"a {form} with {what}, whose white is not known: convert it to 8 or 16 bits")
    if image.mode == "P":
        if palette := tiff.narrow_palette(tags):
            image.putpalette(palette, "RGB;L")
        if "transparency" in image.info:
            image = image.convert("RGBA")
    return image.convert("RGB")
