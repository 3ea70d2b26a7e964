"""Numbers and index sets as bytes: against a plain implementation, and against forged bytes."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tidings.compressors import bitpacking as bp
from tidings.compressors.selection import kept, largest
from tidings.errors import MalformedFrame, TruncatedFrame, WireError, WrongShape

pytestmark = pytest.mark.unit


def to_bytes(bits: str) -> bytes:
    """A string of 0 and 1, padded with 0 to whole bytes."""
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def plain_rice(indices: list[int], dim: int) -> bytes:
    """Golomb-Rice with low parts first, one character a bit."""
    low_bits = max(0, round(math.log2(math.log(2) * dim / len(indices))))
    gaps = [b - a - 1 for a, b in zip([-1, *indices], indices, strict=False)]
    low = "".join(format(g % 2**low_bits, f"0{low_bits}b") if low_bits else "" for g in gaps)
    return to_bytes(low + "".join("0" * (g >> low_bits) + "1" for g in gaps))


def plain_bitmap(indices: list[int], dim: int) -> bytes:
    return to_bytes("".join("1" if i in set(indices) else "0" for i in range(dim)))


@st.composite
def index_sets(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    dim = draw(st.integers(1, 300))
    count = draw(st.integers(1, dim))
    seed = draw(st.integers(0, 2**32 - 1))
    return np.sort(np.random.default_rng(seed).choice(dim, count, replace=False)), dim


# -- fixed width -------------------------------------------------------------------------------


def test_bits_are_written_from_the_most_significant_down() -> None:
    assert bp.pack_uints(np.array([1, 2, 3]), 3) == to_bytes("001010011")


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 32), st.data())
def test_fixed_width_round_trip(width: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(0, 2**width - 1), max_size=40))
    packed = bp.pack_uints(np.array(values, np.int64), width)
    assert packed == to_bytes("".join(format(v, f"0{width}b") for v in values))
    assert bp.unpack_uints(packed, len(values), width).tolist() == values


def test_fixed_width_refuses_wrong_lengths_and_padding() -> None:
    packed = bp.pack_uints(np.array([1, 2, 3]), 3)
    with pytest.raises(TruncatedFrame):
        bp.unpack_uints(packed[:-1], 3, 3)
    with pytest.raises(WrongShape):
        bp.unpack_uints(packed + b"\0", 3, 3)
    with pytest.raises(MalformedFrame, match="padding"):
        bp.unpack_uints(packed[:-1] + bytes([packed[-1] | 1]), 3, 3)


# -- floats ------------------------------------------------------------------------------------


def test_floats_are_little_endian_and_keep_every_bit() -> None:
    assert bp.pack_floats(np.array([1.0], np.float32)) == b"\x00\x00\x80\x3f"
    patterns = np.array([0x80000000, 0x7FC00001, 0x7F800001, 0xFF800000, 1], np.uint32)
    packed = bp.pack_floats(patterns.view(np.float32))
    assert (bp.unpack_floats(packed, 5).view(np.uint32) == patterns).all()


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0, -0.0])
def test_an_impossible_scale_is_refused(scale: float) -> None:
    with pytest.raises(MalformedFrame):
        bp.unpack_scale(bp.pack_scale(scale))


# -- index sets --------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(index_sets())
@example((np.array([0]), 1))
@example((np.array([299]), 300))
@example((np.arange(8), 300))
def test_indices_are_the_shorter_of_two_plain_codes(case: tuple[np.ndarray, int]) -> None:
    indices, dim = case
    packed = bp.pack_indices(indices, dim)
    rice, bitmap = plain_rice(indices.tolist(), dim), plain_bitmap(indices.tolist(), dim)
    if len(indices) == dim:
        assert packed == b""
    else:
        assert packed == (rice if len(rice) < len(bitmap) else bitmap)
    assert len(packed) <= bp.max_index_bytes(len(indices), dim)
    assert (bp.unpack_indices(packed, len(indices), dim) == indices).all()


def test_the_bound_on_index_bytes_is_reached() -> None:
    # all gaps but the last are zero, so the last one has the largest possible high part
    indices = np.array([*range(9), 999])
    assert len(bp.pack_indices(indices, 1000)) == bp.max_index_bytes(10, 1000)


# Every accepted code is one that the writer makes: decoding and encoding gives it back.
@settings(deadline=None, max_examples=50)
@given(st.integers(1, 200), st.data())
def test_random_bytes_are_a_canonical_code_or_a_wire_error(dim: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, dim))
    forged = data.draw(st.binary(max_size=bp.fixed_bytes(dim, 1) + 1))
    try:
        indices = bp.unpack_indices(forged, count, dim)
    except WireError:
        return
    assert bp.pack_indices(indices, dim) == forged


@settings(deadline=None, max_examples=50)
@given(index_sets(), st.data())
def test_mutated_codes_are_canonical_or_a_wire_error(
    case: tuple[np.ndarray, int], data: st.DataObject
) -> None:
    indices, dim = case
    forged = bytearray(bp.pack_indices(indices, dim))
    for bit in data.draw(st.lists(st.integers(0, max(0, 8 * len(forged) - 1)), max_size=3)):
        if forged:
            forged[bit // 8] ^= 1 << bit % 8
    code = bytes(forged) + data.draw(st.binary(max_size=2))
    try:
        decoded = bp.unpack_indices(code, len(indices), dim)
    except WireError:
        return
    assert bp.pack_indices(decoded, dim) == code
    assert len(decoded) == len(indices)
    assert (np.diff(decoded) > 0).all()
    assert decoded[-1] < dim


def test_each_way_to_forge_indices_has_its_error() -> None:
    dim, code = 1000, bp.pack_indices(np.array([3, 500]), 1000)
    with pytest.raises(TruncatedFrame, match="after 0"):
        bp.unpack_indices(code[:-1], 2, dim)
    with pytest.raises(TruncatedFrame):
        bp.unpack_indices(b"", 2, dim)
    with pytest.raises(WrongShape):
        bp.unpack_indices(code + b"\0", 2, dim)
    with pytest.raises(MalformedFrame, match="more"):
        bp.unpack_indices(code[:-1] + bytes([code[-1] | 1]), 2, dim)
    # parameter 8: low parts 255 and 255, high parts 1 and 1: the second index would be 1023
    with pytest.raises(MalformedFrame, match="1023 in a vector of 1000"):
        bp.unpack_indices(to_bytes("1" * 16 + "0101"), 2, dim)
    with pytest.raises(WrongShape):
        bp.unpack_indices(bytes(126), 2, dim)
    with pytest.raises(MalformedFrame, match="does not mark 2"):
        bp.unpack_indices(bytes(125), 2, dim)
    with pytest.raises(MalformedFrame, match="Rice code is shorter"):
        bp.unpack_indices(plain_bitmap([3, 500], dim), 2, dim)
    with pytest.raises(MalformedFrame, match="does not mark 4 of 5"):
        bp.unpack_indices(to_bytes("11100100"), 4, 5)
    with pytest.raises(WrongShape):
        bp.unpack_indices(b"\xff", 5, 5)


def test_a_long_frame_costs_nothing() -> None:
    frame = bytes(10_000_000)
    tracemalloc.start()
    for read in (
        lambda: bp.unpack_indices(frame, 5, 1000),
        lambda: bp.unpack_uints(frame, 1000, 5),
        lambda: bp.unpack_floats(frame, 1000),
        lambda: bp.unpack_scale(frame),
    ):
        with pytest.raises(WrongShape):
            read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


# -- selection ---------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=50), st.data())
def test_largest_prefers_the_lower_index(keys: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(keys)))
    plain = sorted(sorted(range(len(keys)), key=lambda i: (-keys[i], i))[:count])
    assert largest(np.array(keys, np.uint32), count).tolist() == plain


@pytest.mark.parametrize(
    ("ratio", "dim", "count"),
    [(0.05, 100, 5), (0.07, 100, 7), (0.05, 101, 6), (0.05, 1, 1), (1e-9, 50, 1), (1.0, 9, 9)],
)
def test_kept_rounds_up_and_keeps_at_least_one(ratio: float, dim: int, count: int) -> None:
    assert kept(ratio, dim) == count
