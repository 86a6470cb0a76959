"""Readers of other projects, on the samples of one band: what `loaders.py` runs beside ours.

Each function takes the folder DATA that loaders.py describes. Those that write make the form that their reader wants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 256

Batches = Iterable[tuple[Any, Any]]  # tensors x (n, 3, H, W) and y (n,)


def arrays(data: Path) -> tuple[Any, Any]:
    """Return all samples and their labels, mapped from files."""
    return np.load(data / "x.npy", mmap_mode="r"), np.load(data / "y.npy")


def blocks_by_webdataset(data: Path) -> Callable[[int], Batches]:
    """Our shards, read by stock webdataset as examples/stock_webdataset.py does."""
    import webdataset

    def epoch(number: int) -> Batches:
        urls = sorted(map(str, (data / "band").glob("train-*.tar")))
        stream = webdataset.WebDataset(urls, shardshuffle=len(urls), seed=number).decode()
        return _tensors(stream.to_tuple("x.npy.gz", "y.npy").unbatched().shuffle(1000).batched(BATCH))

    return epoch


def write_png(data: Path) -> None:
    """One PNG and one label a sample, as published: webdataset's usual form."""
    import webdataset
    from PIL import Image

    x, y = arrays(data)
    (data / "png").mkdir()
    with webdataset.ShardWriter(str(data / "png" / "%06d.tar"), maxcount=20_000, verbose=0) as writer:
        for number, (sample, label) in enumerate(zip(x, y.tolist(), strict=True)):
            pixels = (sample.astype(np.int16) + 128).astype(np.uint8).transpose(1, 2, 0)
            writer.write({"__key__": f"{number:08d}", "png": Image.fromarray(pixels), "cls": label})


def png_by_webdataset(data: Path) -> Callable[[int], Batches]:
    """One PNG a sample, by webdataset."""
    import webdataset

    def epoch(number: int) -> Batches:
        urls = sorted(map(str, (data / "png").glob("*.tar")))
        stream = webdataset.WebDataset(urls, shardshuffle=len(urls), seed=number).shuffle(1000).decode("torchrgb8")
        return _tensors(stream.to_tuple("png", "cls").batched(BATCH))

    return epoch


def _tensors(batches: Batches) -> Batches:
    import torch

    return ((torch.as_tensor(x), torch.as_tensor(y)) for x, y in batches)


def write_mosaic(data: Path) -> None:
    """MDS, the arrays as they are: what is decompressed once is read in this form."""
    from streaming import MDSWriter

    x, y = arrays(data)
    columns = {"x": f"ndarray:int8:{','.join(map(str, x.shape[1:]))}", "y": "int"}
    with MDSWriter(out=str(data / "mosaic"), columns=columns) as writer:
        for sample, label in zip(x, y.tolist(), strict=True):
            writer.write({"x": np.ascontiguousarray(sample), "y": label})


def mosaic(data: Path) -> Callable[[int], Batches]:
    """MosaicML Streaming."""
    from streaming import StreamingDataLoader, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()
    stream = StreamingDataset(local=str(data / "mosaic"), shuffle=True, batch_size=BATCH)
    batches = StreamingDataLoader(stream, batch_size=BATCH, num_workers=0)
    return lambda _: ((batch["x"], batch["y"]) for batch in batches)


def _sample(data: Path, number: int) -> dict[str, Any]:
    x, y = arrays(data)
    return {"x": np.array(x[number]), "y": int(y[number])}


def write_litdata(data: Path) -> None:
    """LitData's chunks, the arrays as they are."""
    import litdata

    numbers = list(range(len(np.load(data / "y.npy"))))
    litdata.optimize(
        partial(_sample, data), numbers, str(data / "litdata"), chunk_bytes="64MB", num_workers=1, verbose=False
    )


def litdata(data: Path) -> Callable[[int], Batches]:
    """LitData."""
    from litdata import StreamingDataLoader, StreamingDataset

    stream = StreamingDataset(str(data / "litdata"), shuffle=True)
    batches = StreamingDataLoader(stream, batch_size=BATCH, num_workers=0)
    return lambda _: ((batch["x"], batch["y"]) for batch in batches)


def write_zstd(data: Path) -> None:
    """LitData's chunks, each sample compressed by Zstandard: about the bytes of our blocks."""
    import litdata

    numbers = list(range(len(np.load(data / "y.npy"))))
    litdata.optimize(
        partial(_packed, data), numbers, str(data / "zstd"), chunk_bytes="64MB", num_workers=1, verbose=False
    )


def _packed(data: Path, number: int) -> dict[str, Any]:
    import zstd

    sample = _sample(data, number)
    return {"x": zstd.compress(sample["x"].tobytes(), 1), "y": sample["y"]}


def zstd_by_litdata(data: Path) -> Callable[[int], Batches]:
    """LitData, decompressing each sample."""
    import zstd
    from litdata import StreamingDataLoader, StreamingDataset

    shape = np.load(data / "x.npy", mmap_mode="r").shape[1:]

    class Packed(StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, index: Any) -> dict[str, Any]:
            sample = super().__getitem__(index)
            x = bytearray(zstd.decompress(bytes(sample["x"])))  # torch wants memory that may be written
            return {"x": np.frombuffer(x, np.int8).reshape(shape), "y": sample["y"]}

    batches = StreamingDataLoader(Packed(str(data / "zstd"), shuffle=True), batch_size=BATCH, num_workers=0)
    return lambda _: ((batch["x"], batch["y"]) for batch in batches)


class _Rows:
    """The samples by number, as FFCV's writer takes them."""

    def __init__(self, data: Path) -> None:
        self.x, self.y = arrays(data)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        return np.array(self.x[number]), int(self.y[number])


def write_ffcv(data: Path) -> None:
    """FFCV's file, the arrays as they are."""
    from ffcv.fields import IntField, NDArrayField
    from ffcv.writer import DatasetWriter

    rows = _Rows(data)
    fields = {"x": NDArrayField(rows.x.dtype, rows.x.shape[1:]), "y": IntField()}
    (data / "ffcv").mkdir()
    DatasetWriter(str(data / "ffcv" / "band.beton"), fields, num_workers=1).from_indexed_dataset(rows)


def ffcv(data: Path) -> Callable[[int], Batches]:
    """FFCV, in a random order, the file in the page cache."""
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.ndarray import NDArrayDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import Squeeze, ToTensor

    pipelines = {"x": [NDArrayDecoder(), ToTensor()], "y": [IntDecoder(), ToTensor(), Squeeze()]}
    path = str(data / "ffcv" / "band.beton")
    loader = Loader(path, BATCH, num_workers=1, os_cache=True, order=OrderOption.RANDOM, pipelines=pipelines)
    return lambda _: loader


def imagefolder(data: Path) -> Callable[[int], Batches]:
    """The JPEGs themselves: decoded, resized, cut by phase and transformed to the band when they are needed."""
    import torch
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    from spectral_shards.shards_manifest.dataset import open_band
    from spectral_shards.shards_manifest.spectral.transform import band_matrix

    _, manifest = open_band(data / "band")
    geometry = manifest.geometry
    s = math.isqrt(geometry.factor)
    weights = torch.from_numpy(band_matrix(geometry.transform, geometry.factor)[manifest.band].astype(np.float32))

    def band(image: torch.Tensor) -> torch.Tensor:
        plane = len(image[0]) // s
        phases = image.reshape(3, plane, s, plane, s).permute(0, 1, 3, 2, 4).reshape(3, plane, plane, -1)
        coefficients: torch.Tensor = phases.float() @ weights
        return coefficients

    size = geometry.size + geometry.margin
    images = ImageFolder(str(data / "images"), v2.Compose([v2.Resize((size, size)), v2.PILToTensor(), v2.Lambda(band)]))

    def epoch(number: int) -> Batches:
        chosen = torch.Generator().manual_seed(number)
        return iter(torch.utils.data.DataLoader(images, BATCH, shuffle=True, generator=chosen))

    return epoch
