"""Image files byte by byte, as programs write them: TIFF and PNG of all kinds, and images with an orientation."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from spectral_shards.preprocess.pipeline import pil_decode
from support.pictures import picture

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
COLOUR = picture(3, 12, 16)

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
