"""Our DEFLATE against two inflates that are not ours."""

import gzip
import hashlib
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isal import isal_zlib

from shards_manifest import compress, compress_block, compressor_name

compiled = pytest.mark.skipif(compress._deflate is None, reason="nothing was compiled here")


def survives(data: bytes, plane: int) -> bytes:
    packed = compress_block(data, plane)
    assert gzip.decompress(packed) == data
    assert isal_zlib.decompress(packed, 31) == data
    stream = zlib.decompressobj(31)
    assert stream.decompress(packed) == data
    assert stream.eof
    assert not stream.unused_data
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


def test_without_a_compiler_isa_l_compresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress, "_deflate", None)
    assert compressor_name().startswith("isal ")
    survives(laplacian(2, 50_000), 3136)


@compiled
def test_what_cannot_be_compressed_is_refused() -> None:
    with pytest.raises(ValueError, match="a plane needs"):
        compress._deflate.deflate(b"abc", 0)
    with pytest.raises(TypeError):
        compress._deflate.deflate("abc", 1)  # type: ignore[arg-type]
