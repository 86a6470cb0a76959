"""Other people's readers open our shards: stock webdataset, with no code of ours."""

import gc
import gzip
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds

from spectral_shards.shards_manifest.manifest import MANIFEST, load_band
from support.splits import ROOT, make_split

# webdataset 1.0 leaves the files it has read to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _collect() -> Iterator[None]:
    yield
    gc.collect()


def stock(url: str) -> list[tuple[np.ndarray, int]]:
    dataset = wds.WebDataset(url, shardshuffle=False).decode().to_tuple("x.npy.gz", "y.npy").unbatched()
    return [(x, int(y)) for x, y in dataset]


@pytest.mark.parametrize("per_block", [1, 7, 64])
def test_every_sample_of_every_shard(per_block: int, photos: Path, tmp_path: Path) -> None:
    out = make_split(photos, tmp_path / "out", factor=4, size=24, samples_per_block=per_block, samples_per_shard=30)
    table = gzip.decompress((out / "samples-train.tsv.gz").read_bytes()).decode().splitlines()
    labels = [int(line.split("\t")[1]) for line in table]
    for band in range(4):
        folder = out / f"{band:02d}"
        manifest = load_band((folder / MANIFEST).read_bytes(), "m")
        samples = [sample for shard in manifest.parts["train"].shards for sample in stock(str(folder / shard.name))]
        assert [y for _, y in samples] == labels
        assert {x.shape for x, _ in samples} == {(3, 12, 12)}
        assert {x.dtype for x, _ in samples} == {np.dtype(np.int8)}
        values = np.stack([x for x, _ in samples]).astype(np.float64) * np.array(manifest.step)[:, None, None]
        assert np.allclose(values.mean(axis=(0, 2, 3)), manifest.mean)
        std = values.std(axis=(0, 2, 3))
        assert np.allclose(np.where(std > 0, std, 1), manifest.std)  # where all is 0, nothing is to be divided by


def test_brace_urls_and_batches(sub4: Path) -> None:
    url = os.fspath(sub4 / "01" / "train-{000000..000003}.tar")
    dataset = wds.WebDataset(url, shardshuffle=False).decode().to_tuple("x.npy.gz", "y.npy").unbatched().batched(16)
    batches = list(dataset)
    assert sum(len(y) for _, y in batches) == 81
    assert batches[0][0].shape == (16, 3, 12, 12)


def test_the_example_trains(sub4: Path) -> None:
    example = ROOT / "examples" / "stock_webdataset.py"
    done = subprocess.run([sys.executable, example, sub4 / "00"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    counts = [int(line.split(" on ")[1].split()[0]) for line in done.stdout.splitlines()]
    assert counts == [64, 17]
