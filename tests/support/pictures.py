"""Pictures made by script, and folders of them."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def picture(seed: int, height: int = 90, width: int = 120) -> NDArray[np.uint8]:
    """A smooth coloured picture with an edge and a little noise: uint8 (height, width, 3)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 40
    waves = [np.sin(x * random.uniform(0.5, 3) + y * random.uniform(0.5, 3) + random.uniform(0, 6)) for _ in range(3)]
    pixels = 128 + 80 * np.stack(waves, -1)
    pixels[:, width // 2 :] -= 30 * random.uniform(-1, 1)
    return np.clip(pixels + random.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)


def encode(pixels: NDArray[np.uint8], kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def class_folders(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """An ImageFolder of JPEGs. Classes differ in their pictures' frequencies, so that they can be learned."""
    for number, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = picture(seed + 1000 * number + i)
            pixels[::, :, number % 3] //= 2
            (root / name / f"{name}_{i:03d}.JPEG").write_bytes(encode(pixels, quality=90))
    return root


def huge_png() -> bytes:
    """A real PNG of 20,000 x 20,000 pixels: 400 million, in 400 kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    row = bytes(1 + 20000 // 8)
    body = b"".join(packer.compress(row) for _ in range(20000)) + packer.flush()
    header = struct.pack(">IIBBBBB", 20000, 20000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
