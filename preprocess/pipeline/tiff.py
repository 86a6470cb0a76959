"""TIFFs that Pillow decodes to a wrong brightness, or cannot read: what they are, for the reason of a reject."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from PIL.TiffImagePlugin import ImageFileDirectory_v2

Tags = Mapping[int, Any]
BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANES, COLORMAP, SAMPLE_FORMAT = 258, 259, 262, 277, 284, 320, 339
WHITE_IS_ZERO, YCBCR, LAB = 0, 6, (8, 9, 10)
UNSIGNED, KINDS = 1, {1: "integers", 2: "signed integers", 3: "floating-point numbers", 5: "complex", 6: "complex"}
UNCOMPRESSED, SEPARATE = 1, 2


def tags_of(data: bytes) -> Tags:
    """Return the tags of the first image of a TIFF file; none if they cannot be read."""
    try:
        file = io.BytesIO(data)
        directory = ImageFileDirectory_v2(file.read(16 if data[2:3] == b"\x2b" or data[3:4] == b"\x2b" else 8))
        file.seek(directory.next)
        directory.load(file)
        return dict(directory)
    except Exception:  # damage raises many things
        return {}


def looks_like(data: bytes) -> bool:
    """Return whether data begins as a TIFF file does."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def unknown(tags: Tags) -> str:
    """Describe an image whose brightness is not known, or that PIL gets wrong; return nothing for all others.

    The text ends with what to do about it.
    """
    bits, kind = _first(tags, BITS, 1), _first(tags, SAMPLE_FORMAT, UNSIGNED)
    colours, samples = _first(tags, PHOTOMETRIC, WHITE_IS_ZERO), _first(tags, SAMPLES, 1)
    if colours in LAB:  # some builds of PIL can convert it, others cannot
        return "CIE Lab colours: convert it to RGB"
    if kind != UNSIGNED or bits > 16:
        return f"{bits}-bit {KINDS.get(kind, 'samples')}, whose white is not known: convert it to 8 or 16 bits"
    if _first(tags, COMPRESSION, UNCOMPRESSED) == UNCOMPRESSED and samples > 1:  # the rest is libtiff's, which knows
        if colours == YCBCR:
            return "YCbCr samples outside JPEG: convert it to RGB"
        if bits > 8 and _first(tags, PLANES, 1) == SEPARATE:
            return f"{bits}-bit channels in planes of their own: convert it to 8 bits"
    return ""


def unread(tags: Tags) -> str:
    """Describe an image that PIL does not read, and say what to do about it."""
    samples, bits, colours = _first(tags, SAMPLES, 1), _first(tags, BITS, 1), _first(tags, PHOTOMETRIC, WHITE_IS_ZERO)
    return (
        f"{samples} samples of {bits} bits a pixel and photometric interpretation {colours}, which PIL does not read: "
        "convert it to 8-bit RGB"
    )


def grey16(tags: Tags) -> tuple[int, bool]:
    """Return the bits of a grey image with more than 8, and whether 0 is white."""
    return _first(tags, BITS, 16), _first(tags, PHOTOMETRIC, 1) == WHITE_IS_ZERO


def narrow_palette(tags: Tags) -> bytes:
    """Return the colour map if its values have 8 bits, as some programs write them in place of 16, else nothing.

    libtiff does the same.
    """
    colours = tags.get(COLORMAP, ())
    return bytes(colours) if colours and max(colours) < 256 else b""


def _first(tags: Tags, tag: int, default: int) -> int:
    value = tags.get(tag, default)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else default
