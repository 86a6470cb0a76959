import hashlib
import io
import tarfile
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectral_shards.shards_manifest.errors import ShardError
from spectral_shards.shards_manifest.manifest import Shard
from spectral_shards.shards_manifest.shard.codec import compress_block
from spectral_shards.shards_manifest.shard.format import ShardWriter, check_bytes, index_shard, npy_header, read_block


def whole(counts: list[int]) -> tuple[bytes, Shard]:
    random = np.random.default_rng(1)
    file = io.BytesIO()
    writer = ShardWriter(file)
    for count in counts:
        x = random.integers(-128, 128, (count, 3, 4, 4), np.int8)
        writer.add(compress_block(npy_header(x.dtype, x.shape) + x.tobytes(), 16), np.arange(count))
    shard = writer.finish("t.tar")
    return file.getvalue(), shard


def test_golden_bytes() -> None:
    """The format, without the compressor: these bytes may never change within version 1."""
    file = io.BytesIO()
    writer = ShardWriter(file)
    writer.add(b"stands for a gzip member", np.array([3, 1, 2]))
    writer.add(b"x" * 513, np.array([7]))
    shard = writer.finish("train-000000.tar")
    data = file.getvalue()
    assert (shard.samples, shard.blocks, shard.bytes) == (4, 2, len(data))
    assert shard.sha256 == hashlib.sha256(data).hexdigest()
    assert shard.sha256 == "bfc0a3ff09faea4f274191a3f963ddb0f94e64b9c3f794f1b3e71fd72878e715"


def test_npy_header_is_what_numpy_reads() -> None:
    x = np.arange(2 * 3 * 5 * 5, dtype=np.int8).reshape(2, 3, 5, 5)
    header = npy_header(x.dtype, x.shape)
    assert len(header) == 128
    assert np.array_equal(np.load(io.BytesIO(header + x.tobytes())), x)


def test_tar_and_index_agree() -> None:
    data, _ = whole([4, 4, 2])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = [(m.name, m.offset_data, m.size, m.mtime, m.uid) for m in tar]
    blocks = index_shard(memoryview(data), "t.tar")
    spans = [span for block in blocks for span in (block.x, block.y)]
    assert [(m[1], m[1] + m[2]) for m in members] == [(s.start, s.stop) for s in spans]
    assert [m[0] for m in members[:2]] == ["000000.x.npy.gz", "000000.y.npy"]
    assert {m[3:] for m in members} == {(0, 0)}
    x, y = read_block(memoryview(data), blocks[2], "t.tar")
    assert x.shape == (2, 3, 4, 4)
    assert x.dtype == np.int8
    assert y.tolist() == [0, 1]


def test_an_empty_shard_is_a_shard() -> None:
    data, shard = whole([])
    assert index_shard(memoryview(data), "t.tar") == []
    check_bytes(memoryview(data), shard, "t.tar")


def test_cut_anywhere_is_found_without_the_manifest() -> None:
    """Also at a member's boundary, which tarfile and webdataset take for the end."""
    data, shard = whole([3, 3])
    for length in range(len(data)):
        with pytest.raises(ShardError, match=r"t\.tar"):
            index_shard(memoryview(data[:length]), "t.tar")
    with pytest.raises(ShardError, match="bytes, its manifest says"):
        check_bytes(memoryview(data[:-512]), shard, "t.tar")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_flipped_bits_never_pass_and_never_crash(data: st.DataObject) -> None:
    good, shard = whole([3, 2])
    bad = bytearray(good)
    for place in data.draw(st.lists(st.integers(0, len(bad) * 8 - 1), min_size=1, max_size=4, unique=True)):
        bad[place // 8] ^= 1 << place % 8
    view = memoryview(bytes(bad))
    with pytest.raises(ShardError):
        check_bytes(view, shard, "t.tar")
    with suppress(ShardError):  # without the manifest a change may pass, but nothing else may come out
        for block in index_shard(view, "t.tar"):
            read_block(view, block, "t.tar")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ShardError):
        index_shard(memoryview(data), "t.tar")
