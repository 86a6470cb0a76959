"""Check our DEFLATE with zlib and ISA-L, and our inflate with both and with streams that are made bit by bit."""

import gzip
import hashlib
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isal import igzip_lib, isal_zlib

from spectral_shards.shards_manifest.shard import codec
from spectral_shards.shards_manifest.shard.codec import DecodeBuffer, compress_block, compressor_name, decompress_block

compiled = pytest.mark.skipif(codec._deflate is None, reason="nothing was compiled here")


def check_round_trip(data: bytes, plane: int) -> bytes:
    """Check that every decompressor gives `data` back; return the compressed bytes."""
    packed = compress_block(data, plane)
    assert gzip.decompress(packed) == data
    assert isal_zlib.decompress(packed, 31) == data
    stream = zlib.decompressobj(31)
    assert stream.decompress(packed) == data
    assert stream.eof
    assert not stream.unused_data
    assert decompress_block(memoryview(packed)) == data
    if data and codec._deflate is not None:  # ours reads it, not only ISA-L in its place
        assert codec._inflate.inflate(packed, bytearray(len(data) + codec._inflate.SLACK)) == len(data)
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
    check_round_trip(data, plane)


@pytest.mark.parametrize("length", [0, 1, 2, 7, 8, 9, 10, 257, 258, 259, 260, 265, 266, 267, 516, 517, 5000])
def test_runs_of_any_length_survive(length: int) -> None:
    for before in range(9):
        check_round_trip(b"x" * before + bytes(length) + b"end", 100)


def test_codes_longer_than_the_limit_are_cut_to_it() -> None:
    counts = [1, 1]
    while len(counts) < 26:
        counts.append(counts[-1] + counts[-2])  # the counts that make a Huffman code the deepest
    data = np.repeat(np.arange(len(counts), dtype=np.uint8), counts)
    data = np.random.default_rng(0).permutation(data)
    check_round_trip(data.tobytes(), 1 << 20)
    check_round_trip(data.tobytes(), 10_000)


def test_noise_grows_by_little() -> None:
    data = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8).tobytes()
    assert len(check_round_trip(data, 3136)) < 1.003 * len(data)


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
    assert len(check_round_trip(data, 3136)) < 1.04 * entropy + 300


@compiled
def test_planes_that_differ_get_codes_of_their_own() -> None:
    data = b"".join(laplacian(scale, 12_544, seed) for seed in range(8) for scale in (20, 1, 1))
    assert len(check_round_trip(data, 12_544)) < 0.96 * len(codec._deflate.deflate(data, len(data)))


@compiled
def test_golden_bytes() -> None:
    """If the digest changes, the compressor has changed, and its name must change too."""
    random = np.random.default_rng(0)
    planes = [np.subtract(*random.integers(0, most, (2, 3136), np.int8)) for most in (100, 2, 20) * 20]
    data = bytes(128) + b"".join(plane.tobytes() + bytes(300) for plane in planes)
    assert compressor_name() == "runs and literals, version 1"
    digest = hashlib.sha256(compress_block(data, 3436)).hexdigest()
    assert digest == "b3eace03bffa68bdfbe027cb894161ef458b11c78b6c46b29af6f5ad527c26a2"


def test_without_a_compiler_zlib_compresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "_deflate", None)
    assert compressor_name().startswith("zlib ")
    check_round_trip(laplacian(2, 50_000), 3136)


@compiled
def test_wrong_input_of_the_compressor_is_refused() -> None:
    with pytest.raises(ValueError, match="a plane needs"):
        codec._deflate.deflate(b"abc", 0)
    with pytest.raises(TypeError):
        codec._deflate.deflate("abc", 1)  # type: ignore[arg-type]


GUARD = 64  # bytes after what our inflate may write to


def inflated(packed: bytes, size: int) -> bytes | None:
    """Return what our inflate makes of `packed` in `size` bytes, or None; check that it writes nothing after them."""
    slack = codec._inflate.SLACK
    out = np.full(size + slack + GUARD, 0xA5, np.uint8)
    count = codec._inflate.inflate(packed, out[: size + slack])
    assert -1 <= count <= size
    assert (out[size + slack :] == 0xA5).all()
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
    for damaged in (bytes(packed), bytes(packed[: int(kept * len(packed))])):
        for size in (len(data), len(data) // 2, 0):
            inflated(damaged, size)
        with suppress(ValueError):  # no error if only a time in the header changed: nothing is lost
            assert decompress_block(memoryview(damaged)) == data


@compiled
@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=600), st.integers(0, 2000))
def test_any_bytes_are_safe_to_read(stream: bytes, size: int) -> None:
    header = codec._GZIP_HEADER
    inflated(stream, size)
    inflated(header + stream, size)
    inflated(header + bytes([stream[0] & 0xF8 | 5] if stream else b"") + stream[1:], size)  # a block with codes


@compiled
@settings(max_examples=100, deadline=None)
@given(st.lists(pieces, max_size=8).map(b"".join), st.integers(0, 9), st.sampled_from([0, 1, 2, 3, 4]))
def test_what_others_compress_is_read_or_left_to_isa_l(data: bytes, level: int, strategy: int) -> None:
    """Blocks of all three types: level 0 stores, strategy 4 uses the fixed codes."""
    stream = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
    trailer = zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")
    packed = codec._GZIP_HEADER + stream.compress(data) + stream.flush() + trailer
    assert inflated(packed, len(data)) in (None, data)
    assert decompress_block(memoryview(packed)) == data
    assert decompress_block(memoryview(igzip_lib.compress(data, 1, igzip_lib.COMP_GZIP))) == data


@compiled
def test_up_to_six_zeros_come_from_one_look_up() -> None:
    """The shortest codes, the longest ones, and runs next to each other."""
    random = np.random.default_rng(0)
    for share in (0.02, 0.1, 0.3, 0.6):
        noise = random.integers(1, 256, 50_000, np.uint8)
        check_round_trip(np.where(random.random(50_000) < share, noise, 0).astype(np.uint8).tobytes(), 3136)


def test_a_buffer_is_used_again_and_grows() -> None:
    buffer = DecodeBuffer()
    for size in (100, 5000, 200, 100_000):
        data = laplacian(2, size)
        assert decompress_block(memoryview(compress_block(data, 3136)), buffer) == data


@compiled
def test_a_member_is_refused_wherever_it_is_cut() -> None:
    data = laplacian(1, 700) + bytes(300) + laplacian(20, 500)
    packed = compress_block(data, 700)
    assert inflated(packed, len(data)) == data
    for cut in range(len(packed)):
        assert inflated(packed[:cut], len(data)) is None
    for cut in range(10, len(packed) - 8):  # with the checksum and the length of the whole
        assert inflated(packed[:cut] + packed[-8:], len(data)) is None


class BitWriter:
    """Writes a DEFLATE stream bit by bit, valid or not."""

    def __init__(self) -> None:
        self._bits: list[int] = []

    def number(self, value: int, count: int) -> None:
        """Write `count` bits, the lowest first."""
        self._bits += [value >> i & 1 for i in range(count)]

    def symbol(self, symbol: int, lengths: list[int]) -> None:
        """Write the canonical code of a symbol, the highest bit first."""
        length = lengths[symbol]
        shorter = sum(1 << (length - other) for other in lengths if 0 < other < length)
        code = shorter + sum(other == length for other in lengths[:symbol])
        self._bits += [code >> i & 1 for i in reversed(range(length))]

    def codes(self, lengths: list[int], final: bool = True) -> None:
        """Write the head of a block with these codes of literals and runs; the only distance has a code of one bit."""
        of_lengths = [4] * 13 + [5] * 6
        self.number(final | 2 << 1 | (len(lengths) - 257) << 3 | 15 << 13, 17)
        for symbol in (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15):
            self.number(of_lengths[symbol], 3)
        for length in [*lengths, 1]:
            self.symbol(length, of_lengths)

    def member(self, data: bytes) -> bytes:
        """Return the stream as a gzip member of `data`."""
        stream = np.packbits(np.array(self._bits, np.uint8), bitorder="little").tobytes()
        return codec._GZIP_HEADER + stream + zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")


def complete_code(random: np.random.Generator, used: int, limit: int) -> list[int]:
    """Return 286 code lengths of a random complete code: `used` symbols, END among them, none longer than `limit`."""
    lengths = [1, 1]
    while len(lengths) < used:
        at = random.choice([i for i, length in enumerate(lengths) if length < limit])
        lengths[at] += 1
        lengths.append(lengths[at])
    symbols = [256, *random.choice(np.delete(np.arange(286), 256), len(lengths) - 1, replace=False)]
    code = [0] * 286
    for symbol, length in zip(symbols, random.permutation(lengths), strict=True):
        code[symbol] = int(length)
    return code


def stream_of(random: np.random.Generator, codes: list[list[int]]) -> BitWriter:
    """Return a stream with one block for each code, of 0 to 300 random symbols that all occur in it."""
    writer, begun = BitWriter(), False
    for number, lengths in enumerate(codes):
        writer.codes(lengths, number == len(codes) - 1)
        used = [symbol for symbol, length in enumerate(lengths) if length and symbol != 256]
        for symbol in random.choice(used, random.integers(0, 300)):
            if symbol < 256:
                begun = True
            elif not begun:  # nothing to repeat yet
                continue
            writer.symbol(symbol, lengths)
            if symbol > 256:
                extra = 0 if symbol < 265 or symbol == 285 else (symbol - 261) // 4
                writer.number(int(random.integers(0, 1 << extra)), extra)
                writer.number(0, 1)  # the distance, 1
        writer.symbol(256, lengths)
    return writer


def by_zlib(member: bytes) -> bytes:
    return zlib.decompress(member[10:-8], -15)


seeds = st.integers(0, 2**32)


@compiled
@settings(max_examples=200, deadline=None)
@given(seeds, st.lists(st.tuples(st.integers(2, 286), st.integers(9, 12)), min_size=1, max_size=3))
def test_any_complete_code_of_12_bits_is_read(seed: int, kinds: list[tuple[int, int]]) -> None:
    random = np.random.default_rng(seed)
    writer = stream_of(random, [complete_code(random, used, limit) for used, limit in kinds])
    data = by_zlib(writer.member(b""))
    assert inflated(writer.member(data), len(data)) == data
    if data:
        assert inflated(writer.member(data), len(data) - 1) is None
    assert decompress_block(memoryview(writer.member(data))) == data


@compiled
@pytest.mark.parametrize("length", [13, 14, 15])
def test_longer_codes_are_left_to_isa_l(length: int) -> None:
    lengths = [0] * 286
    lengths[256] = 1
    lengths[: length - 1] = range(2, length + 1)
    lengths[255] = length
    for symbols in ([0, 1, 2], [0, 1, 2, length - 2, 255]):  # refused even if the long codes do not occur
        writer = BitWriter()
        writer.codes(lengths)
        for symbol in [*symbols, 256]:
            writer.symbol(symbol, lengths)
        member = writer.member(bytes(symbols))
        assert inflated(member, len(symbols)) is None
        assert decompress_block(memoryview(member)) == bytes(symbols)


@compiled
@settings(max_examples=100, deadline=None)
@given(seeds, st.integers(2, 286), st.booleans())
def test_a_code_that_is_not_complete_is_refused(seed: int, used: int, overfull: bool) -> None:
    random = np.random.default_rng(seed)
    lengths = complete_code(random, used, 12)
    symbol = random.choice([s for s in range(256 if used > 30 else 286) if s != 256 and lengths[s]])
    lengths[symbol] += -1 if overfull and lengths[symbol] > 1 else 1
    writer = stream_of(random, [lengths])
    assert inflated(writer.member(bytes(2000)), 100_000) is None


@compiled
@pytest.mark.parametrize("wrong", ["no code for the end", "run at the start", "distance 2", "bytes after the end"])
def test_a_stream_of_another_kind_is_refused(wrong: str) -> None:
    lengths = [0] * 286
    lengths[7] = lengths[9] = lengths[256] = lengths[257] = 2
    if wrong == "no code for the end":
        lengths[256], lengths[8] = 0, 2
    writer = BitWriter()
    writer.codes(lengths)
    if wrong != "run at the start":
        writer.symbol(7, lengths)
    writer.symbol(257, lengths)
    writer.number(wrong == "distance 2", 1)
    if wrong != "no code for the end":
        writer.symbol(256, lengths)
    if wrong == "bytes after the end":
        writer.number(0, 16)
    assert inflated(writer.member(b"\7" * 4), 100) is None


@pytest.mark.parametrize("size", [0, 5, 17, 18, 40])
def test_bytes_that_are_no_member_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=r"length that cannot be|Error|incomplete"):
        decompress_block(memoryview(b"\xff" * size))


def test_without_a_compiler_isa_l_decompresses(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = compress_block(laplacian(2, 50_000), 3136)
    monkeypatch.setattr(codec, "_inflate", None)
    assert decompress_block(memoryview(packed), DecodeBuffer()) == laplacian(2, 50_000)
    with pytest.raises(ValueError, match=r"length that cannot be|Error|incomplete"):
        decompress_block(memoryview(packed[:-20]))
