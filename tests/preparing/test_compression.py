"""Blocks that are stored as they are: the same samples as compressed ones, for our reader and for others'."""

import gc
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds
from PIL import Image

from spectral_shards.preprocess.config import SplitConfig
from spectral_shards.preprocess.split.compression import LEAST_SAVED, earlier_choice, measure
from spectral_shards.preprocess.split.estimate import estimate
from spectral_shards.preprocess.split.job import Job, choose_compression, prepare
from spectral_shards.shards_manifest.dataset import open_band, open_bands, open_part, open_split
from spectral_shards.shards_manifest.errors import FormatError
from spectral_shards.shards_manifest.manifest import MANIFEST, BandManifest, dump, load_band, load_split
from spectral_shards.shards_manifest.shard.reader import BlockReader
from spectral_shards.shards_manifest.storage.opening import open_store
from support.programs import fails, program
from support.splits import SUB4, make_split, tree


@pytest.fixture(scope="module")
def plain(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The split of the fixture `sub4`, without compression."""
    return make_split(photos, tmp_path_factory.mktemp("plain") / "sub4", **SUB4, compression="none")


@pytest.fixture(scope="module")
def mixed_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with noise in both directions alone, which goes into the last band of four."""
    root = tmp_path_factory.mktemp("mixed") / "photos"
    random = np.random.default_rng(0)
    for number in range(12):
        folder = root / "train" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        noise = random.integers(-100, 101, (16, 16, 3))
        pixels = np.kron(noise, np.array([[1, -1], [-1, 1]])[:, :, None]) + np.full((32, 32, 3), 128)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    return root


def job_of(source: Path, **options: object) -> Job:
    steps = {"quant_step": 2.0, "chroma_quant_step": 2.0}
    options = {"factor": 4, "size": 32, "transform": "dct2", "val_per_class": 0, **steps, **options}
    return prepare(source, SplitConfig(**options))  # type: ignore[arg-type]


def test_the_same_samples(sub4: Path, plain: Path) -> None:
    done = program("spectral-prep", "verify", plain)
    assert "all good" in done.stdout, done.stderr
    for band in range(4):
        here, there = (open_bands(split, [band]).each[0] for split in (plain, sub4))
        assert (here.compression, there.compression) == ("none", "gzip")
        assert replace(here, compression="gzip", parts={}) == replace(there, parts={})
        for part in ("train", "val"):
            readers = [open_part(open_bands(split / f"{band:02d}"), part) for split in (plain, sub4)]
            assert np.array_equal(readers[0].samples, readers[1].samples)
            for block in range(len(readers[0].samples)):
                one, other = (reader.read(block) for reader in readers if isinstance(reader, BlockReader))
                assert np.array_equal(one[0], other[0])
                assert np.array_equal(one[1], other[1])
                assert not one[0].flags.writeable


def test_versions(sub4: Path, plain: Path) -> None:
    """Splits that older releases can read have the version that they know."""
    for split, version in ((sub4, 1), (plain, 2)):
        for path in (split / MANIFEST, split / "00" / MANIFEST, split / "rows" / "plan.json"):
            assert json.loads(path.read_bytes())["version"] == version
            assert (b'"compression": "none"' in path.read_bytes()) == (version == 2 and path.name == MANIFEST)
        assert load_split((split / MANIFEST).read_bytes(), "m").bands[1].compression == ("gzip", "none")[version - 1]
    raw = json.loads((plain / "00" / MANIFEST).read_bytes())
    raw["compression"] = "zstd"
    with pytest.raises(FormatError, match="unknown compression 'zstd'"):
        load_band(json.dumps(raw).encode(), "here")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files that webdataset leaves open
def test_stock_webdataset_opens_them(plain: Path) -> None:
    manifest = open_band(plain / "01").manifest
    urls = [str(plain / "01" / shard.name) for shard in manifest.parts["train"].shards]
    data = wds.WebDataset(urls, shardshuffle=False).decode().to_tuple("x.npy", "y.npy").unbatched()
    samples = list(data)
    assert len(samples) == manifest.parts["train"].samples
    assert {(x.shape, x.dtype) for x, _ in samples} == {((3, 12, 12), np.dtype(np.int8))}
    del data
    gc.collect()


def test_shards_of_another_compression_are_damaged(sub4: Path, plain: Path, tmp_path: Path) -> None:
    for split, other in ((sub4, plain), (plain, sub4)):
        folder = tmp_path / split.parent.name
        for name, data in tree(split).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        band: BandManifest = open_band(split / "00").manifest
        wrong = replace(band, compression=open_band(other / "00").manifest.compression)
        (folder / "00" / MANIFEST).write_bytes(dump(wrong))
        found = program("spectral-prep", "verify", folder)
        assert found.returncode == 1
        assert "where '000000.x.npy" in found.stderr


def test_what_auto_chooses(mixed_source: Path, tmp_path: Path) -> None:
    job = job_of(mixed_source, compression="auto")
    found = measure(job.first_task())
    saved = [1 - compressed / stored for compressed, stored in zip(found.compressed, found.stored, strict=True)]
    assert [share < LEAST_SAVED for share in saved] == [False, False, False, True]
    chosen, note = choose_compression(job, open_store(tmp_path / "none"))
    assert chosen.config.uncompressed == (3,)
    assert note == "bands without compression, because gzip saves less than 25% there: 3"
    sizes = [estimate(job_of(mixed_source, compression=name)).band_bytes for name in ("none", "gzip")]
    assert estimate(chosen).band_bytes == (*sizes[1][:3], sizes[0][3])

    shape = ("--factor", 4, "--size", 32, "--transform", "dct2", "--val-per-class", 0)
    options = (*shape, "--quant-step", 2, "--chroma-quant-step", 2)
    command = ("spectral-prep", "split", mixed_source, *options, "--out", tmp_path / "out", "--compression")
    assert note in program(*command, "auto", "--dry-run").stdout
    done = program(*command, "auto")
    assert done.returncode == 0, done.stderr
    assert note in done.stdout
    assert [band.compression for band in open_split(tmp_path / "out").manifest.bands] == ["gzip"] * 3 + ["none"]
    before = tree(tmp_path / "out")
    again = program(*command, "auto")
    assert "nothing to do" in again.stdout
    assert "bands without compression, as an earlier run began them: 3\n" in again.stdout
    assert tree(tmp_path / "out") == before
    assert "compression: bands without it are 3 there, none here)" in fails(*command, "gzip")
    assert "compression: bands without it are 3 there, 0-3 here)" in fails(*command, "none")
    assert earlier_choice(b"{") is None
    assert earlier_choice(json.dumps({"plan": {"uncompressed": [1]}}).encode()) == (1,)
    assert earlier_choice(json.dumps({"plan": {}}).encode()) == ()  # of an older release


def test_info_names_it(plain: Path) -> None:
    assert program("spectral-prep", "info", plain).stdout.count(" none ") >= 4
    assert "compression none" in program("spectral-prep", "info", plain / "00").stdout
