"""Which way up an image was taken, as its EXIF says, and images as they are stored or turned by that."""

from __future__ import annotations

import io
import warnings

from PIL import Image

ORIENTATIONS = ("stored", "exif")
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
_BACK = {**_METHODS, 6: _TURN.ROTATE_90, 8: _TURN.ROTATE_270}  # the others undo themselves
_APP1, _SCAN, _PADDING = 0xE1, 0xDA, 0xFF  # of a JPEG's segments
_SAID_IN = (b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0")

Box = tuple[float, float, float, float]  # left, top, right, bottom


def orientation(image: Image.Image) -> int:
    """What the EXIF of an opened image says, or else its XMP: 1 to 8; 1 where it says nothing that can be read."""
    try:
        value = image.getexif().get(_TAG, 1)
        return value if value in _METHODS else 1
    except Exception:  # damaged EXIF raises many things; the pixels may be good
        return 1


def of_jpeg(data: bytes) -> int:
    """The orientation of a JPEG, 1 to 8, without decoding it."""
    if not _may_say(data):
        return 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged EXIF
        try:
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
                return orientation(image)
        except Exception:  # as it may: the pixels are decoded by other means
            return 1


def _may_say(data: bytes) -> bool:
    """Whether a JPEG has EXIF or XMP before its pixels: few have, and PIL takes ten times as long to open one."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == _SCAN:
            return False
        if marker == _APP1 and data.startswith(_SAID_IN, place + 4):
            return True
        place += 1 if marker == _PADDING else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return True  # not as a JPEG should be: PIL may find something in it


def load(image: Image.Image, upright: bool) -> tuple[Image.Image, int]:
    """The decoded pixels of an opened image, turned upright or as they are stored; and its orientation.

    PIL turns a TIFF while it loads it, and leaves every other format as it is stored. What it has applied it takes out
    of the EXIF, so that looking before and after tells what it did. Raises whatever PIL raises.
    """
    before = orientation(image) if image.format == "TIFF" else 1  # elsewhere the EXIF may follow the pixels
    image.load()
    after = orientation(image)
    turned = before != 1 and after == 1
    if turned and not upright:
        return image.transpose(_BACK[before]), before
    if not turned and upright and after in _METHODS:
        return image.transpose(_METHODS[after]), after
    return image, before if turned else after


def turn(image: Image.Image, box: Box, orientation: int) -> tuple[Image.Image, Box]:
    """A stored image upright, and where a box of it comes to lie."""
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
