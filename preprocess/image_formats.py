"""The image formats that are read: one line for each.

A file is taken for an image by its ending, whatever its bytes are, and decoded by what its bytes are, whatever its
ending is. To add a format that Pillow reads, add a line here. A format whose pixels Pillow gets wrong needs a module
beside pipeline/tiff.py too, and a faster decoder than Pillow's goes into pipeline/decode.py, as JPEG's does.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageFormat:
    """One image format.

    Attributes:
        name: Pillow's name of it.
        endings: Endings of file names, in lower case, with the dot.
        feature: What Pillow has to be built with to read it (see PIL.features); empty if it always can.
        needs_feature: What cannot be read without the feature, for messages.
    """

    name: str
    endings: tuple[str, ...]
    feature: str = ""
    needs_feature: str = ""


# in the order in which Pillow tries them
FORMATS = (
    ImageFormat("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif")),
    ImageFormat("PNG", (".png",), "zlib", "PNG"),
    ImageFormat("GIF", (".gif",)),
    ImageFormat("BMP", (".bmp", ".dib")),
    ImageFormat("WEBP", (".webp",), "webp", "WebP"),
    ImageFormat("TIFF", (".tif", ".tiff"), "libtiff", "compressed TIFF"),
    ImageFormat("PPM", (".ppm", ".pgm", ".pbm", ".pnm")),
)
IMAGE_ENDINGS = tuple(ending for each in FORMATS for ending in each.endings)
