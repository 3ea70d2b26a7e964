"""Numbers and index sets as bytes: what the compressors share.

All of it is vectorised, and every reader is strict. It takes exactly the bytes that its writer
makes and raises a WireError for any others, so that nothing a peer sends can raise anything else.
Bits are written from the most significant down, and the last byte is padded with zero bits; floats
are little-endian IEEE 754.
"""

from __future__ import annotations

import math
import struct

import numpy as np
import torch

from tidings.errors import MalformedFrame, TruncatedFrame, WrongShape

FLOAT32_MAX = float(np.finfo(np.float32).max)


def require_length(data: bytes, length: int, what: str) -> None:
    """TruncatedFrame where ``data`` is shorter than ``length`` bytes, WrongShape where longer."""
    if len(data) < length:
        raise TruncatedFrame(f"{what}: {length} bytes expected, {len(data)} came")
    if len(data) > length:
        raise WrongShape(f"{what}: {length} bytes expected, {len(data)} came")


# -- floats ------------------------------------------------------------------------------------


def as_array(vector: torch.Tensor) -> np.ndarray:
    """A ((d,) float32) tensor as a contiguous array. It may share memory: do not write to it."""
    return np.ascontiguousarray(vector.detach().numpy(), dtype=np.float32)


def pack_floats(values: np.ndarray) -> bytes:
    """Float32 values, 4 bytes each. NaN and infinity travel like any other value."""
    return values.astype("<f4", copy=False).tobytes()


def unpack_floats(data: bytes, count: int) -> np.ndarray:
    """The (count,) float32 values of :func:`pack_floats`, as a new array."""
    require_length(data, 4 * count, "values")
    return np.frombuffer(data, "<f4").astype(np.float32)


def pack_scale(scale: float) -> bytes:
    """One float32 that is neither negative nor above what float32 can hold."""
    return struct.pack("<f", scale)


def unpack_scale(data: bytes) -> float:
    """The scale of :func:`pack_scale`; MalformedFrame for a negative or non-finite one."""
    require_length(data, 4, "scale")
    scale: float = struct.unpack("<f", data)[0]
    if not math.isfinite(scale) or math.copysign(1.0, scale) < 0:
        raise MalformedFrame(f"a scale of {scale}")
    return scale


# -- fixed width -------------------------------------------------------------------------------


def fixed_bytes(count: int, width: int) -> int:
    """The bytes that ``count`` numbers of ``width`` bits take."""
    return (count * width + 7) // 8


def to_bits(values: np.ndarray, width: int) -> np.ndarray:
    """The lowest ``width`` <= 32 bits of each of (n,) unsigned values, as (n * width,) of 0 or 1.

    The most significant bit of a value comes first.
    """
    size = _bytes_for(width)
    raw = np.unpackbits(values.astype(f">u{size}").view(np.uint8)).reshape(-1, 8 * size)
    return raw[:, 8 * size - width :].reshape(-1)


def from_bits(bits: np.ndarray, width: int) -> np.ndarray:
    """The (n,) int64 values of :func:`to_bits`; ``width`` is at least 1."""
    size = _bytes_for(width)
    padded = np.zeros((len(bits) // width, 8 * size), np.uint8)
    padded[:, 8 * size - width :] = bits.reshape(-1, width)
    return np.packbits(padded).view(f">u{size}").astype(np.int64)


def pack_uints(values: np.ndarray, width: int) -> bytes:
    """(n,) integers in [0, 2^width), ``width`` <= 32, in ceil(n * width / 8) bytes."""
    return np.packbits(to_bits(values, width)).tobytes()


def unpack_uints(data: bytes, count: int, width: int) -> np.ndarray:
    """The (count,) int64 values of :func:`pack_uints`; ``width`` is at least 1."""
    require_length(data, fixed_bytes(count, width), "values")
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    if bits[count * width :].any():
        raise MalformedFrame("the padding after the last value is not zero")
    return from_bits(bits[: count * width], width)


def _bytes_for(width: int) -> int:
    return 1 if width <= 8 else 2 if width <= 16 else 4


# -- index sets --------------------------------------------------------------------------------
#
# A set of k out of d indices is written in the shorter of two codes, Golomb-Rice on the gaps or a
# bitmap. Rice is used only where it is shorter than a bitmap, so the length says which one it is.


def rice_parameter(count: int, dim: int) -> int:
    """The Rice parameter for the gaps of ``count`` sorted indices below ``dim``.

    round(log2(ln(2) dim / count)), the nearest to the optimum for geometric gaps. Computed on
    integers (0.98 = sqrt(2) ln(2)), so that no two machines can round it differently.
    """
    return max(0, (98 * dim // (100 * count)).bit_length() - 1)


def max_index_bytes(count: int, dim: int) -> int:
    """The most bytes that :func:`pack_indices` can take."""
    if count == dim:
        return 0
    parameter = rice_parameter(count, dim)
    rice = count * (parameter + 1) + ((dim - count) >> parameter)
    return min(rice + 7, dim + 7) // 8


def expected_index_bits(count: int, dim: int) -> float:
    """The bits that :func:`pack_indices` takes in the mean for a uniformly drawn set.

    The gaps of such a set are geometric, so a high part and its one take 1 / (1 - (1 - k/d)^(2^b)).
    """
    if count == dim:
        return 0.0
    parameter = rice_parameter(count, dim)
    unary = -1 / math.expm1(2**parameter * math.log1p(-count / dim))
    return min(count * (parameter + unary), float(dim))


def pack_indices(indices: np.ndarray, dim: int) -> bytes:
    """A set of indices below ``dim``, given in increasing order; empty where it is all of them.

    Rice (Rice & Plaunt, IEEE Trans. Comm. 1971): with g = index - previous index - 1, first the low
    ``rice_parameter`` bits of every g, then for every g its remaining high part q as q zeros and a
    one. Splitting low and high parts costs no bit and lets both be decoded without a loop.
    """
    count = len(indices)
    if count == dim:
        return b""
    parameter, gaps = _gaps(indices, dim)
    if _rice_length(gaps, parameter) < fixed_bytes(dim, 1):
        ends = np.cumsum((gaps >> parameter) + 1) - 1
        unary = np.zeros(ends[-1] + 1, np.uint8)
        unary[ends] = 1
        return np.packbits(np.concatenate([to_bits(gaps, parameter), unary])).tobytes()
    bitmap = np.zeros(dim, np.uint8)
    bitmap[indices] = 1
    return np.packbits(bitmap).tobytes()


def unpack_indices(data: bytes, count: int, dim: int) -> np.ndarray:
    """The (count,) int64 increasing indices of :func:`pack_indices`."""
    if count == dim:
        require_length(data, 0, "indices")
        return np.arange(dim)
    if len(data) < fixed_bytes(dim, 1):
        return _unpack_rice(data, count, dim)
    require_length(data, fixed_bytes(dim, 1), "indices")
    indices = np.flatnonzero(np.unpackbits(np.frombuffer(data, np.uint8)))
    if len(indices) != count or indices[-1] >= dim:
        raise MalformedFrame(f"a bitmap that does not mark {count} of {dim} indices")
    parameter, gaps = _gaps(indices, dim)
    if _rice_length(gaps, parameter) < len(data):
        raise MalformedFrame("a bitmap where the Rice code is shorter")
    return indices


def _gaps(indices: np.ndarray, dim: int) -> tuple[int, np.ndarray]:
    return rice_parameter(len(indices), dim), np.diff(indices, prepend=-1) - 1


def _rice_length(gaps: np.ndarray, parameter: int) -> int:
    return (len(gaps) * (parameter + 1) + int((gaps >> parameter).sum()) + 7) // 8


def _unpack_rice(data: bytes, count: int, dim: int) -> np.ndarray:
    parameter = rice_parameter(count, dim)
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    split = count * parameter
    ends = np.flatnonzero(bits[split:])
    if len(ends) < count:
        raise TruncatedFrame(f"{count} indices expected, the code ends after {len(ends)}")
    if len(ends) > count:
        raise MalformedFrame(f"{count} indices expected, there are more")
    require_length(data, (split + int(ends[-1]) + 8) // 8, "indices")
    gaps = (np.diff(ends, prepend=-1) - 1) << parameter
    if parameter:
        gaps += from_bits(bits[:split], parameter)
    # No overflow: the high parts sum to at most dim, so the gaps to at most 2 dim 2^parameter.
    indices = np.cumsum(gaps + 1) - 1
    if indices[-1] >= dim:
        raise MalformedFrame(f"index {indices[-1]} in a vector of {dim}")
    return indices
