"""The index of a part: every block by one range, checked."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectral_shards.preprocess.inspection.verify import verify
from spectral_shards.shards_manifest.dataset import open_band
from spectral_shards.shards_manifest.errors import ShardError
from spectral_shards.shards_manifest.manifest import Part, Shard
from spectral_shards.shards_manifest.shard.format import index_shard, read_block
from spectral_shards.shards_manifest.shard.index import ENTRY, block_of, load_index, part_index
from spectral_shards.shards_manifest.storage.local import LocalStore
from support.programs import program


def test_every_block_is_one_range(sub4: Path) -> None:
    store, manifest = open_band(sub4 / "02")
    for name, part in manifest.parts.items():
        index = load_index(store, "", name, part, manifest.block)
        assert int(index.samples.sum()) == part.samples
        found = []
        for block in range(len(index)):
            shard, start, size = index.place(block)
            data = memoryview(store.range(shard, start, size))
            index.check(block, data, shard)
            x, y = read_block(data, block_of(data, shard), shard)
            assert len(y) == index.samples[block]
            found.append((x, y))
        views = [store.view(shard.name) for shard in part.shards]
        wanted = [read_block(view, block, "") for view in views for block in index_shard(view, "")]
        for (x, y), (wanted_x, wanted_y) in zip(found, wanted, strict=True):
            assert np.array_equal(x, wanted_x)
            assert np.array_equal(y, wanted_y)


def test_golden_bytes(sub4: Path) -> None:
    """Eight bytes a block: size and CRC-32, little-endian."""
    entries = np.frombuffer((sub4 / "00" / "val.index").read_bytes(), "<u4").reshape(-1, 2)
    view = LocalStore(sub4 / "00").view("val-000000.tar")
    blocks = index_shard(view, "")
    assert len(entries) == len(blocks) == 2
    assert blocks[1].x.start - 512 == entries[0, 0]
    import zlib

    assert entries[0, 1] == zlib.crc32(view[: int(entries[0, 0])])


def test_damage_is_named(sub4: Path, tmp_path: Path) -> None:
    band = Path(shutil.copytree(sub4 / "00", tmp_path / "00"))
    store, manifest = open_band(band)
    part = manifest.parts["train"]
    index = load_index(store, "", "train", part, manifest.block)
    name, start, size = index.place(3)
    data = bytearray(store.range(name, start, size))
    with pytest.raises(ShardError, match="is cut short"):
        index.check(3, bytes(data[:-1]), name)
    data[600] ^= 1
    with pytest.raises(ShardError, match=f"{name} was altered"):
        index.check(3, bytes(data), name)
    whole = (band / "train.index").read_bytes()
    for wrong in (whole[:-8], whole + whole[:8], bytes(len(whole)), whole[:-1]):
        (band / "train.index").write_bytes(wrong)
        with pytest.raises(ShardError, match=r"train\.index was altered"):
            load_index(store, "", "train", part, manifest.block)
    (band / "train.index").unlink()
    with pytest.raises(ShardError, match=r"train\.index is missing"):
        load_index(store, "", "train", part, manifest.block)


def test_verify_checks_it_and_a_rerun_mends_it(photos: Path, tmp_path: Path) -> None:
    command = ("spectral-prep", "split", photos, "--factor", "4", "--size", "24", "--out", tmp_path / "out")
    assert program(*command).returncode == 0
    index = tmp_path / "out" / "01" / "train.index"
    whole = index.read_bytes()
    index.write_bytes(whole[:-1])
    assert any("train.index was altered" in sentence for sentence in verify(str(tmp_path / "out"), 1).bad)
    assert program(*command).returncode == 0
    assert index.read_bytes() == whole
    assert verify(str(tmp_path / "out"), 1).bad == []


def test_sizes_that_do_not_fit() -> None:
    import hashlib

    def read(entries: list[tuple[int, int]], shards: tuple[Shard, ...]) -> object:
        data = np.array(entries, ENTRY).tobytes()
        part = Part(sum(s.samples for s in shards), "", hashlib.sha256(data).hexdigest(), shards)
        return part_index(part, data, 4, "t.index")

    one = Shard("a.tar", 6, 2, 5000, "")
    read([(2000, 1), (1976, 2)], (one,))
    with pytest.raises(ShardError, match="lists 1 blocks, the manifest 2"):
        read([(3976, 1)], (one,))
    with pytest.raises(ShardError, match="does not fit the sizes"):
        read([(2000, 1), (1977, 2)], (one,))


@given(st.lists(st.integers(0, 20), min_size=1, max_size=9), st.integers(1, 7), st.randoms())
def test_places_follow_from_sizes(samples: list[int], block: int, random: object) -> None:
    import hashlib

    entries: list[tuple[int, int]] = []
    shards = []
    wanted = []
    for number, count in enumerate(samples):
        blocks = -(-count // block)
        at = 0
        for i in range(blocks):
            size = 512 * random.randint(3, 9)  # type: ignore[attr-defined]
            entries.append((size, 0))
            wanted.append((f"{number}.tar", at, size, min(block, count - i * block)))
            at += size
        shards.append(Shard(f"{number}.tar", count, blocks, at + 1024, ""))
    data = np.array(entries, ENTRY).tobytes()
    part = Part(sum(samples), "", hashlib.sha256(data).hexdigest(), tuple(shards))
    index = part_index(part, data, block, "t.index")
    assert [(*index.place(i), int(index.samples[i])) for i in range(len(index))] == wanted
    assert [len(index.of_shard(n)) for n in range(len(shards))] == [s.blocks for s in shards]
