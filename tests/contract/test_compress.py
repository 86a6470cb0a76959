"""Our DEFLATE against two inflates that are not ours, and our inflate against both."""

import gzip
import hashlib
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isal import igzip_lib, isal_zlib

from spectral_shards.shards_manifest.shard import codec as compress
from spectral_shards.shards_manifest.shard.codec import DecodeBuffer, compress_block, compressor_name, decompress_block

compiled = pytest.mark.skipif(compress._deflate is None, reason="nothing was compiled here")


def survives(data: bytes, plane: int) -> bytes:
    packed = compress_block(data, plane)
    assert gzip.decompress(packed) == data
    assert isal_zlib.decompress(packed, 31) == data
    stream = zlib.decompressobj(31)
    assert stream.decompress(packed) == data
    assert stream.eof
    assert not stream.unused_data
    assert decompress_block(memoryview(packed)) == data
    if data and compress._deflate is not None:  # by ours, not because ISA-L was asked in its place
        assert compress._inflate.inflate(packed, bytearray(len(data) + compress._inflate.SLACK)) == len(data)
    return packed


pieces = st.one_of(
    st.binary(max_size=40),
    st.tuples(st.integers(0, 255), st.integers(0, 1200)).map(lambda run: bytes([run[0]]) * run[1]),
    st.tuples(st.integers(0, 2**32), st.integers(0, 3000), st.integers(1, 256)).map(
        lambda noise: np.random.default_rng(noise[0]).integers(0, noise[2], noise[1], np.uint8).tobytes()
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(pieces, max_size=8).map(b"".join), st.integers(1, 5000))
def test_any_bytes_survive(data: bytes, plane: int) -> None:
    survives(data, plane)


@pytest.mark.parametrize("length", [0, 1, 2, 7, 8, 9, 10, 257, 258, 259, 260, 265, 266, 267, 516, 517, 5000])
def test_runs_of_any_length_survive(length: int) -> None:
    for before in range(9):
        survives(b"x" * before + bytes(length) + b"end", 100)


def test_codes_longer_than_the_limit_are_cut_to_it() -> None:
    counts = [1, 1]
    while len(counts) < 26:
        counts.append(counts[-1] + counts[-2])  # the counts that make a Huffman code the deepest
    data = np.repeat(np.arange(len(counts), dtype=np.uint8), counts)
    data = np.random.default_rng(0).permutation(data)
    survives(data.tobytes(), 1 << 20)
    survives(data.tobytes(), 10_000)


def test_noise_grows_by_little() -> None:
    data = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8).tobytes()
    assert len(survives(data, 3136)) < 1.003 * len(data)


def laplacian(scale: float, count: int, seed: int = 0) -> bytes:
    values = np.random.default_rng(seed).laplace(0, scale, count)
    return np.clip(np.rint(values), -128, 127).astype(np.int8).tobytes()


@compiled
@pytest.mark.parametrize("scale", [1, 3, 10])
def test_it_comes_close_to_the_entropy(scale: float) -> None:
    data = laplacian(scale, 600_000)
    counts = np.bincount(np.frombuffer(data, np.uint8))
    share = counts[counts > 0] / len(data)
    entropy = -(share * np.log2(share)).sum() / 8 * len(data)
    assert len(survives(data, 3136)) < 1.04 * entropy + 300


@compiled
def test_planes_that_differ_get_codes_of_their_own() -> None:
    data = b"".join(laplacian(scale, 12_544, seed) for seed in range(8) for scale in (20, 1, 1))
    assert len(survives(data, 12_544)) < 0.96 * len(compress._deflate.deflate(data, len(data)))


@compiled
def test_golden_bytes() -> None:
    """Another sum is another compressor: its name must change with it."""
    random = np.random.default_rng(0)
    planes = [np.subtract(*random.integers(0, most, (2, 3136), np.int8)) for most in (100, 2, 20) * 20]
    data = bytes(128) + b"".join(plane.tobytes() + bytes(300) for plane in planes)
    assert compressor_name() == "runs and literals, version 1"
    digest = hashlib.sha256(compress_block(data, 3436)).hexdigest()
    assert digest == "b3eace03bffa68bdfbe027cb894161ef458b11c78b6c46b29af6f5ad527c26a2"


def test_without_a_compiler_zlib_compresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress, "_deflate", None)
    assert compressor_name().startswith("zlib ")
    survives(laplacian(2, 50_000), 3136)


@compiled
def test_what_cannot_be_compressed_is_refused() -> None:
    with pytest.raises(ValueError, match="a plane needs"):
        compress._deflate.deflate(b"abc", 0)
    with pytest.raises(TypeError):
        compress._deflate.deflate("abc", 1)  # type: ignore[arg-type]


WORKING = 64  # bytes behind what our inflate may touch


def inflated(packed: bytes, room: int) -> bytes | None:
    """What our inflate makes of `packed` in so much room; checks that it stays there."""
    slack = compress._inflate.SLACK
    out = np.full(room + slack + WORKING, 0xA5, np.uint8)
    count = compress._inflate.inflate(packed, out[: room + slack])
    assert -1 <= count <= room
    assert (out[room + slack :] == 0xA5).all()
    return None if count < 0 else out[:count].tobytes()


@compiled
@settings(max_examples=300, deadline=None)
@given(
    st.lists(pieces, min_size=1, max_size=8).map(b"".join),
    st.integers(1, 5000),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    st.floats(0, 1),
)
def test_damage_is_found(data: bytes, plane: int, changes: list[tuple[float, int]], kept: float) -> None:
    packed = bytearray(compress_block(data, plane))
    for place, value in changes:
        packed[int(place * len(packed))] = value
    for some in (bytes(packed), bytes(packed[: int(kept * len(packed))])):
        for room in (len(data), len(data) // 2, 0):
            inflated(some, room)
        with suppress(ValueError):  # or a time in the header changed, and nothing is lost
            assert decompress_block(memoryview(some)) == data


@compiled
@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=600), st.integers(0, 2000))
def test_any_bytes_are_safe_to_read(stream: bytes, room: int) -> None:
    header = compress._GZIP_HEADER
    inflated(stream, room)
    inflated(header + stream, room)
    inflated(header + bytes([stream[0] & 0xF8 | 5] if stream else b"") + stream[1:], room)  # a block with codes


@compiled
@settings(max_examples=100, deadline=None)
@given(st.lists(pieces, max_size=8).map(b"".join), st.integers(1, 9), st.sampled_from([0, 1, 2, 3, 4]))
def test_what_others_compress_is_read_or_left_to_them(data: bytes, level: int, strategy: int) -> None:
    stream = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
    trailer = zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")
    packed = compress._GZIP_HEADER + stream.compress(data) + stream.flush() + trailer
    assert inflated(packed, len(data)) in (None, data)
    assert decompress_block(memoryview(packed)) == data
    assert decompress_block(memoryview(igzip_lib.compress(data, 1, igzip_lib.COMP_GZIP))) == data


@compiled
def test_zeros_are_up_to_six_to_a_look_up() -> None:
    """The shortest codes, the longest, and runs next to each other."""
    random = np.random.default_rng(0)
    for share in (0.02, 0.1, 0.3, 0.6):
        noise = random.integers(1, 256, 50_000, np.uint8)
        survives(np.where(random.random(50_000) < share, noise, 0).astype(np.uint8).tobytes(), 3136)


def test_a_room_is_used_again_and_grows() -> None:
    room = DecodeBuffer()
    for size in (100, 5000, 200, 100_000):
        data = laplacian(2, size)
        assert decompress_block(memoryview(compress_block(data, 3136)), room) == data


@pytest.mark.parametrize("size", [0, 5, 17, 18, 40])
def test_what_is_no_member_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=r"length that cannot be|Error|incomplete"):
        decompress_block(memoryview(b"\xff" * size))


def test_without_a_compiler_isa_l_decompresses(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = compress_block(laplacian(2, 50_000), 3136)
    monkeypatch.setattr(compress, "_inflate", None)
    assert decompress_block(memoryview(packed), DecodeBuffer()) == laplacian(2, 50_000)
    with pytest.raises(ValueError, match=r"length that cannot be|Error|incomplete"):
        decompress_block(memoryview(packed[:-20]))
