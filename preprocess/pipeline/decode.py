"""Encoded image to resized pixels: simplejpeg decodes JPEG, Pillow all other formats; Pillow resizes."""

from __future__ import annotations

import numpy as np
import PIL
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, features

from ..errors import RejectedImage
from . import orientation, pil_decode
from .orientation import Box

# A JPEG is decoded to a half or a quarter of its sides if that leaves SPARE times the wanted pixels on each side, and
# resized from there. The result is 46.7 dB from that of the full decode (mean over 250 photographs, 45.2 dB at a
# quarter; benchmarks/scaled.py), while quantising leaves 41 to 43.
SPARE = 1.75


def resizer_name() -> str:
    """Return the version of PIL, that of its JPEG library, and the formats that it was built without."""
    kind = "Pillow-SIMD" if ".post" in PIL.__version__ else "Pillow"
    library = features.version("libjpeg_turbo") or features.version("jpg")
    lacking = pil_decode.missing_formats()  # another build may reject what this one reads
    without = f", without {', '.join(lacking)}" if lacking else ""
    return f"{kind} {PIL.__version__} (libjpeg {library}){without}"


def decoder_name() -> str:
    """Return the JPEG decoder with its version and how it is used."""
    return f"simplejpeg {simplejpeg.__version__}, scaled to {SPARE} times the size or more"


class Decoder:
    """Decodes and resizes images to side x side pixels, into the slots of one buffer.

    Args:
        side: Pixels of a side.
        fit: 'squash' scales both axes to `side`; 'crop' scales the largest central square.
        smallest: Images with fewer pixels than this on a side are rejected.
        slots: Images in the buffer.
        upright: Turn images as their EXIF says; otherwise they are as they are stored.

    Attributes:
        pixels: uint8 (slots, side, side, 4), R, G, B and an unused channel.
        turned: Images so far whose EXIF has another orientation than 1.
    """

    def __init__(self, side: int, fit: str, smallest: int, slots: int = 1, upright: bool = False) -> None:
        self._side, self._fit, self._smallest, self._upright = side, fit, smallest, upright
        self.turned = 0
        self._scratch = np.empty(0, np.uint8)
        self._mapped: dict[tuple[int, int], Image.Image] = {}  # by size, onto the scratch: saves 1 % of a split
        self.pixels: NDArray[np.uint8] = np.empty((slots, side, side, 4), np.uint8)
        # pasting into an image mapped onto a slot is one copy; exporting a PIL image is three
        self._targets = [Image.frombuffer("RGBX", (side, side), slot, "raw", "RGBX", 0, 1) for slot in self.pixels]
        for target in self._targets:
            target.readonly = 0

    def __call__(self, data: bytes, slot: int = 0) -> NDArray[np.uint8]:
        """Decode an image into a slot.

        Args:
            data: The encoded image.
            slot: Number of the slot.

        Returns:
            uint8 (side, side, 4), valid until the slot is used again.

        Raises:
            RejectedImage: The image cannot be used.
        """
        jpeg = self._decode_jpeg(data) if simplejpeg.is_jpeg(data) else None
        if jpeg is None:
            image, way_up = pil_decode.read(data, self._upright, self._check_size)
            box = self._box(image.width, image.height)
        else:
            image, width, height = jpeg
            way_up = orientation.of_jpeg(data)
            box = self._box(width, height)
            if self._upright:
                image, box = orientation.turn(image, box, way_up)
        resized = image.resize((self._side, self._side), Image.Resampling.BILINEAR, box)
        self._targets[slot].paste(resized, (0, 0))
        self.turned += way_up != 1
        return np.asarray(self.pixels[slot])

    def _box(self, width: float, height: float) -> Box:
        """Return the part of an image of this width and height that is scaled."""
        if self._fit != "crop":
            return 0.0, 0.0, width, height
        edge = min(width, height)
        left, top = (width - edge) / 2, (height - edge) / 2
        return left, top, left + edge, top + edge

    def _decode_jpeg(self, data: bytes) -> tuple[Image.Image, float, float] | None:
        """Decode an ordinary JPEG, perhaps scaled down.

        Returns:
            The image, and the width and height that it fills of the decoded pixels; the last pixel is not a whole one
            if these are fractions. None if PIL should try (CMYK, damage that it forgives).
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
        return self._on_scratch(columns, rows), width / scale, height / scale

    def _on_scratch(self, columns: int, rows: int) -> Image.Image:
        """Return the pixels in the scratch as an image, without a copy."""
        image = self._mapped.get((columns, rows))
        if image is None:
            if len(self._mapped) == 64:
                self._mapped.clear()
            part = self._scratch[: rows * columns * 4]
            image = Image.frombuffer("RGBX", (columns, rows), part, "raw", "RGBX", 0, 1)
            self._mapped[columns, rows] = image
        return image

    def _scale(self, edge: int) -> int:
        """Return what to divide the sides by while decoding; the decoder is fast at powers of two."""
        return next((scale for scale in (4, 2) if edge >= scale * SPARE * self._side), 1)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > pil_decode.MAX_PIXELS:
            raise RejectedImage(f"{width}x{height} is more than {pil_decode.MAX_PIXELS} pixels")
        if min(width, height) < self._smallest:
            least = f"{self._smallest}x{self._smallest}"
            raise RejectedImage(f"{width}x{height} is smaller than the {least} phases")
