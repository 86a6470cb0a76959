import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest

from spectral_shards.preprocess.inspection.verify import verify
from spectral_shards.shards_manifest.manifest import MANIFEST
from support.pictures import encode, picture
from support.programs import fails, program
from support.splits import SUB4, make_split


@pytest.fixture
def copy(sub4: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sub4, tmp_path / "sub4"))


def problems(path: Path) -> str:
    done = program("spectral-prep", "verify", path)
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_good_split_and_a_good_band(sub4: Path, tmp_path: Path) -> None:
    done = program("spectral-prep", "verify", sub4)
    assert done.returncode == 0
    assert "20 shards, 96 samples a band" in done.stdout
    alone = shutil.copytree(sub4 / "02", tmp_path / "elsewhere")
    done = program("spectral-prep", "verify", alone)
    assert done.returncode == 0
    assert "5 shards, 96 samples a band" in done.stdout


@pytest.mark.parametrize("where", [10, 600, 2000, -600, -1])
def test_a_flipped_byte(copy: Path, where: int) -> None:
    path = copy / "01" / "train-000001.tar"
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)
    found = problems(copy)
    assert f"{path} was altered" in found
    assert found.count(".tar") == 1


def test_a_cut_shard_a_lost_one_and_one_too_many(copy: Path) -> None:
    import tarfile

    cut = copy / "01" / "train-000001.tar"
    with tarfile.open(cut) as tar:
        boundary = tar.getmembers()[2].offset
    cut.write_bytes(cut.read_bytes()[:boundary])
    (copy / "02" / "val-000000.tar").unlink()
    shutil.copy(copy / "03" / "train-000000.tar", copy / "03" / "train-000009.tar")
    found = problems(copy)
    assert f"{cut} has {boundary} bytes, its manifest says" in found
    assert f"{copy / '02' / 'val-000000.tar'} is missing" in found
    assert f"{copy / '03' / 'train-000009.tar'} is not listed" in found
    assert "3 problems" in found


def test_bands_of_different_splits(copy: Path, sub4: Path, tmp_path: Path, photos: Path) -> None:
    other = make_split(
        photos,
        tmp_path / "other",
        **{**SUB4, "seed": 1},
    )
    shutil.rmtree(copy / "02")
    shutil.copytree(other / "02", copy / "02")
    report = verify(str(copy), 1)
    assert any("02/manifest.json has another sample order in train" in sentence for sentence in report.bad)
    assert any("holds other samples than samples-train.tsv.gz lists" in sentence for sentence in report.bad)


def test_swapped_shards_with_a_forged_manifest(copy: Path) -> None:
    """Hashes alone would not notice: labels are compared with the sample table."""
    first, second = copy / "01" / "train-000000.tar", copy / "01" / "train-000001.tar"
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    path = copy / "01" / MANIFEST
    raw = json.loads(path.read_text())
    shards = raw["parts"]["train"]["shards"]
    for key in ("bytes", "sha256"):
        shards[0][key], shards[1][key] = shards[1][key], shards[0][key]
    index = copy / "01" / "train.index"
    entries = index.read_bytes()
    size = 8 * shards[0]["blocks"]
    index.write_bytes(entries[size : 2 * size] + entries[:size] + entries[2 * size :])
    raw["parts"]["train"]["index"] = hashlib.sha256(index.read_bytes()).hexdigest()
    path.write_text(json.dumps(raw))
    found = problems(copy)
    assert f"{first} holds other samples" in found
    assert f"{second} holds other samples" in found


def test_blocks_of_another_size_than_the_manifest_says(photos: Path, tmp_path: Path) -> None:
    options = {"factor": 4, "size": 16, "samples_per_block": 8, "samples_per_shard": 24, "val_per_class": 0}
    out = make_split(photos, tmp_path / "out", **options)
    path = out / "01" / MANIFEST
    path.write_text(path.read_text().replace('"block": 8,', '"block": 9,'))  # three blocks of 24 samples either way
    bad = verify(str(out), 1).bad
    assert len(bad) == 4
    for number, sentence in enumerate(bad):
        shard = f"{out}/01/train-{number:06d}.tar"
        assert sentence == f"{shard} holds a block of int8 (8, 3, 8, 8), not what its manifest says"


def test_damaged_tables_and_manifests(copy: Path) -> None:
    (copy / "samples-val.tsv.gz").write_bytes(b"junk")
    (copy / "03" / MANIFEST).write_text("{")
    found = problems(copy)
    assert "samples-val.tsv.gz is not a sample table" in found
    assert "03/manifest.json is not valid JSON" in found


def test_what_is_not_a_data_set(tmp_path: Path, copy: Path) -> None:
    for command in ("info", "verify", "preview"):
        assert "has no manifest.json: it is not a split" in fails("spectral-prep", command, tmp_path)
        assert "has no manifest.json" in fails("spectral-prep", command, tmp_path / "nowhere")
    raw = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps({**raw, "version": 99}))
    for command in ("info", "verify", "preview"):
        assert "format version 99, this release knows versions 1 and 2" in fails("spectral-prep", command, copy)


def test_against_the_source(photos: Path, sub4: Path, tmp_path: Path) -> None:
    done = program("spectral-prep", "verify", sub4, "--against", photos, "--samples", "30")
    assert done.returncode == 0, done.stderr
    found = re.search(r"30 images .* mean (\S+) dB, of the mean error (\S+) dB, least (\S+) dB \((.+)\)", done.stdout)
    assert found, done.stdout
    assert float(found[1]) > float(found[3]) > 30
    assert (photos / found[4]).is_file()

    other = Path(shutil.copytree(photos, tmp_path / "photos"))
    (other / "ant" / "ant_003.JPEG").write_bytes(encode(255 - picture(3)))
    (other / "cat" / "cat_004.JPEG").unlink()
    done = program("spectral-prep", "verify", sub4, "--against", other, "--samples", "1000")
    assert done.returncode == 1
    assert "ant/ant_003.JPEG of train is another picture" in done.stderr.replace(" val ", " train ")
    assert re.search(r"cat/cat_004.JPEG of (train|val) is not in", done.stderr)
    assert "2 images are not those of" in done.stderr


def test_against_needs_all_bands(photos: Path, tmp_path: Path) -> None:
    out = make_split(photos, tmp_path / "out", factor=4, size=16, bands=(0, 2))
    assert "2 of 4 bands: images need all" in fails("spectral-prep", "verify", out, "--against", photos)
