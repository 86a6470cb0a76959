"""Encoded image to resized pixels: simplejpeg for JPEG, PIL for everything else, resized by PIL."""

from __future__ import annotations

import numpy as np
import PIL
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, features

from ..errors import RejectedImage
from . import orientation
from . import pil_decode as pixels
from .orientation import Box

# A JPEG is decoded to a half or a quarter of its sides where that leaves so many times the pixels that are wanted
# on each side. The rest of the way is resized; the result is 46.7 dB from that of the full decode (mean over
# 250 photographs, 45.2 dB at a quarter; benchmarks/scaled.py), where quantising leaves 41 to 42.
SPARE = 1.75


def resizer_name() -> str:
    """Which PIL this is: its version, that of its JPEG library, and the formats that it was built without."""
    kind = "Pillow-SIMD" if ".post" in PIL.__version__ else "Pillow"
    library = features.version("libjpeg_turbo") or features.version("jpg")
    lacking = pixels.missing_formats()  # of other builds, which reject what this one reads
    without = f", without {', '.join(lacking)}" if lacking else ""
    return f"{kind} {PIL.__version__} (libjpeg {library}){without}"


def decoder_name() -> str:
    """The JPEG decoder, with its version and how it is used."""
    return f"simplejpeg {simplejpeg.__version__}, scaled to {SPARE} times the size or more"


class Decoder:
    """Decode and resize images to side x side pixels, into the slots of one buffer.

    pixels: uint8 (slots, side, side, 4), R, G, B and an unused channel.
    fit: 'squash' scales both axes to `side`; 'crop' scales the centred largest square.
    smallest: images with fewer pixels than this on a side are rejected.  upright: turn images as their EXIF says;
    otherwise they are as they are stored.
    turned: how many of the images so far have an orientation in their EXIF that is not 1.
    """

    def __init__(self, side: int, fit: str, smallest: int, slots: int = 1, upright: bool = False) -> None:
        self._side, self._fit, self._smallest, self._upright = side, fit, smallest, upright
        self.turned = 0
        self._scratch = np.empty(0, np.uint8)
        self._mapped: dict[tuple[int, int], Image.Image] = {}  # onto the scratch, by size: 1 % of a split to make again
        self.pixels: NDArray[np.uint8] = np.empty((slots, side, side, 4), np.uint8)
        # pasting into an image mapped onto a slot is one copy; exporting a PIL image is three
        self._targets = [Image.frombuffer("RGBX", (side, side), slot, "raw", "RGBX", 0, 1) for slot in self.pixels]
        for target in self._targets:
            target.readonly = 0

    def __call__(self, data: bytes, slot: int = 0) -> NDArray[np.uint8]:
        """The image as uint8 (side, side, 4), valid until the slot is used again.

        Raises RejectedImage with the reason.
        """
        found = self._decode_jpeg(data) if simplejpeg.is_jpeg(data) else None
        if found is None:
            image, way_up = pixels.read(data, self._upright, self._check_size)
            box = self._box(image.width, image.height)
        else:
            image, width, height = found
            way_up = orientation.of_jpeg(data)
            box = self._box(width, height)
            if self._upright:
                image, box = orientation.turn(image, box, way_up)
        resized = image.resize((self._side, self._side), Image.Resampling.BILINEAR, box)
        self._targets[slot].paste(resized, (0, 0))
        self.turned += way_up != 1
        return np.asarray(self.pixels[slot])

    def _box(self, width: float, height: float) -> Box:
        """What is scaled of an image that fills so many pixels."""
        if self._fit != "crop":
            return 0.0, 0.0, width, height
        edge = min(width, height)
        left, top = (width - edge) / 2, (height - edge) / 2
        return left, top, left + edge, top + edge

    def _decode_jpeg(self, data: bytes) -> tuple[Image.Image, float, float] | None:
        """An ordinary JPEG, perhaps scaled down, and the width and height that it fills of the decoded pixels.

        None where PIL should try (CMYK, damage that it forgives).
        """
        try:
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
            if colorspace in ("CMYK", "YCCK"):
                return None
            self._check_size(width, height)
            scale = self._scale(min(width, height))
            rows, columns = -(-height // scale), -(-width // scale)
            if self._scratch.size < rows * columns * 4:
                self._scratch = np.empty(rows * columns * 4, np.uint8)
                self._mapped.clear()
            decoded = simplejpeg.decode_jpeg(
                data, "RGBX", min_height=rows, min_width=columns, min_factor=scale, buffer=self._scratch
            )
        except RejectedImage:
            raise
        except Exception:  # damage raises more than ValueError; what PIL says of it is the reason
            return None
        if decoded.shape[:2] != (rows, columns):
            return None
        # the last pixel is not a whole one where these are fractions
        return self._on_scratch(columns, rows), width / scale, height / scale

    def _on_scratch(self, columns: int, rows: int) -> Image.Image:
        """The pixels in the scratch as an image, without a copy."""
        image = self._mapped.get((columns, rows))
        if image is None:
            if len(self._mapped) == 64:
                self._mapped.clear()
            part = self._scratch[: rows * columns * 4]
            image = Image.frombuffer("RGBX", (columns, rows), part, "raw", "RGBX", 0, 1)
            self._mapped[columns, rows] = image
        return image

    def _scale(self, edge: int) -> int:
        """What to divide the sides by while decoding: the decoder is fast at powers of two."""
        return next((scale for scale in (4, 2) if edge >= scale * SPARE * self._side), 1)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > pixels.MAX_PIXELS:
            raise RejectedImage(f"{width}x{height} is more than {pixels.MAX_PIXELS} pixels")
        if min(width, height) < self._smallest:
            least = f"{self._smallest}x{self._smallest}"
            raise RejectedImage(f"{width}x{height} is smaller than the {least} phases")
