"""The orientation in the EXIF of an image: how it is read, and how images are turned by it."""

from __future__ import annotations

import io
import warnings

from PIL import Image

_TAG = 0x0112
_TURN = Image.Transpose
# what turns a stored image upright, by its orientation; 1 needs nothing
_METHODS = {
    2: _TURN.FLIP_LEFT_RIGHT,
    3: _TURN.ROTATE_180,
    4: _TURN.FLIP_TOP_BOTTOM,
    5: _TURN.TRANSPOSE,
    6: _TURN.ROTATE_270,
    7: _TURN.TRANSVERSE,
    8: _TURN.ROTATE_90,
}
_UNDO = {**_METHODS, 6: _TURN.ROTATE_90, 8: _TURN.ROTATE_270}  # the others undo themselves
_APP1, _SCAN, _PADDING = 0xE1, 0xDA, 0xFF  # of a JPEG's segments
_HAS_ORIENTATION = (b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0")

Box = tuple[float, float, float, float]  # left, top, right, bottom


def orientation(image: Image.Image) -> int:
    """Return the orientation of an opened image by its EXIF, or else by its XMP: 1 to 8; 1 if neither can be read."""
    try:
        value = image.getexif().get(_TAG, 1)
        return value if value in _METHODS else 1
    except Exception:  # damaged EXIF raises many things; the pixels may be good
        return 1


def of_jpeg(data: bytes) -> int:
    """Return the orientation of a JPEG, 1 to 8, without decoding it."""
    if not _may_have_orientation(data):
        return 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged EXIF
        try:
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
                return orientation(image)
        except Exception:  # whatever PIL says: the pixels are decoded by other means
            return 1


def _may_have_orientation(data: bytes) -> bool:
    """Return whether a JPEG has EXIF or XMP before its pixels.

    Few have, and PIL takes ten times as long to open one.
    """
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == _SCAN:
            return False
        if marker == _APP1 and data.startswith(_HAS_ORIENTATION, position + 4):
            return True
        position += 1 if marker == _PADDING else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return True  # no ordinary JPEG: PIL may find something in it


def load(image: Image.Image, upright: bool) -> tuple[Image.Image, int]:
    """Decode an opened image, turned upright or as it is stored.

    PIL turns a TIFF while it loads it, and leaves every other format as it is stored. It removes an orientation that it
    has applied from the EXIF, so the EXIF before and after shows what it did.

    Args:
        image: The image, opened by PIL.
        upright: Turn it by its orientation.

    Returns:
        The decoded image, and its orientation, 1 to 8.

    Raises:
        Exception: Whatever PIL raises.
    """
    before = orientation(image) if image.format == "TIFF" else 1  # elsewhere the EXIF may follow the pixels
    image.load()
    after = orientation(image)
    turned = before != 1 and after == 1
    if turned and not upright:
        return image.transpose(_UNDO[before]), before
    if not turned and upright and after in _METHODS:
        return image.transpose(_METHODS[after]), after
    return image, before if turned else after


def turn(image: Image.Image, box: Box, orientation: int) -> tuple[Image.Image, Box]:
    """Turn a stored image upright.

    Args:
        image: The image as it is stored.
        box: A box of it, in pixels.
        orientation: 1 to 8.

    Returns:
        The image upright, and the box within it.
    """
    if orientation not in _METHODS:
        return image, box
    left, top, right, bottom = box
    if orientation in (2, 3, 7, 8):
        left, right = image.width - right, image.width - left
    if orientation in (3, 4, 6, 7):
        top, bottom = image.height - bottom, image.height - top
    if orientation >= 5:
        left, top, right, bottom = top, left, bottom, right
    return image.transpose(_METHODS[orientation]), (left, top, right, bottom)
