"""Compressors: what arrives equals the definition, and forged bytes raise wire errors only."""

from __future__ import annotations

import math
import struct
import timeit
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tidings.api import Compressor, Packed, compressors
from tidings.compressors.composition import Composition
from tidings.compressors.contraction import Contraction
from tidings.compressors.identity import Identity
from tidings.compressors.natural import Natural
from tidings.compressors.qsgd import QSGD
from tidings.compressors.rand_k import RandK
from tidings.compressors.sign import Sign
from tidings.compressors.top_k import TopK
from tidings.errors import ConfigError, MalformedFrame, TruncatedFrame, WireError, WrongShape
from tidings.units import Ratio

pytestmark = pytest.mark.unit

TEN = Ratio(0.1)
ALL: list[Compressor] = [
    Identity(),
    TopK(TEN),
    TopK(Ratio(0.4)),
    TopK(Ratio(1.0)),
    RandK(TEN),
    RandK(TEN, scaled=True),
    QSGD(1),
    QSGD(15),
    QSGD(1000),
    Sign(),
    Natural(),
    Composition(),
    Composition(TopK(TEN), QSGD(15)),
    Composition(RandK(TEN, scaled=True), Natural()),
    Contraction(QSGD(15)),
    Contraction(RandK(TEN, scaled=True)),
]
DIMS = (1, 2, 7, 8, 9, 64, 1001)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def vectors(dim: int) -> dict[str, torch.Tensor]:
    """Vectors of every awkward sort."""
    normal = torch.from_numpy(rng(dim).standard_normal(dim).astype(np.float32))
    one_hot = torch.zeros(dim)
    one_hot[dim // 2] = -3.0
    return {
        "normal": normal,
        "zero": torch.zeros(dim),
        "ties": torch.where(normal < 0, -2.0, 2.0),
        "few values": normal.round(),
        "one hot": one_hot,
        "negative zero": -torch.zeros(dim),
        "tiny": normal * 1e-44,
        "huge": normal * 1e30,
        "strided": torch.stack([normal, normal])[:, : dim + 1].T.reshape(-1)[::2],
    }


# -- the definitions, written out --------------------------------------------------------------


def count_of(ratio: float, dim: int) -> int:
    return max(1, math.ceil(ratio * dim - 1e-6))


def plain_top_k(c: TopK, v: list[float], packed: Packed, seed: int) -> list[float]:
    order = sorted(range(len(v)), key=lambda i: (-abs(v[i]), i))
    chosen = set(order[: count_of(c.ratio, len(v))])
    return [x if i in chosen else 0.0 for i, x in enumerate(v)]


def plain_rand_k(c: RandK, v: list[float], packed: Packed, seed: int) -> list[float]:
    key = int.from_bytes(packed.metadata, "little")
    words = np.random.Philox(key=key).random_raw(len(v)).tolist()
    count = count_of(c.ratio, len(v))
    chosen = set(sorted(range(len(v)), key=lambda i: -words[i])[:count])
    scale = np.float32(len(v) / count if c.scaled else 1.0)
    return [float(np.float32(x) * scale) if i in chosen else 0.0 for i, x in enumerate(v)]


def plain_sign(c: Sign, v: list[float], packed: Packed, seed: int) -> list[float]:
    scale = float(np.float32(math.fsum(abs(x) for x in v) / len(v)))
    return [-scale if x < 0 else scale for x in v]


def plain_qsgd(c: QSGD, v: list[float], packed: Packed, seed: int) -> list[float]:
    (norm,) = struct.unpack("<f", packed.metadata)
    exact = math.hypot(*v)
    assert exact <= norm <= exact * (1 + 2.0**-22) + 2e-45
    noise = rng(seed).random(len(v))
    levels = [
        math.floor(c.levels * abs(x) / norm + u) if norm else 0
        for x, u in zip(v, noise, strict=True)
    ]
    assert max(levels) <= c.levels
    return [math.copysign(norm * (level / c.levels), x) for level, x in zip(levels, v, strict=True)]


def plain_contraction(c: Contraction, v: list[float], packed: Packed, seed: int) -> list[float]:
    omega = c.of.omega(len(v))
    assert omega is not None
    arrived = torch.tensor(PLAIN[c.of.kind](c.of, v, packed, seed), dtype=torch.float32)
    return (arrived / (1 + omega)).tolist()


def plain_natural(c: Natural, v: list[float], packed: Packed, seed: int) -> list[float]:
    noise = rng(seed).integers(0, 2**23, len(v), dtype=np.uint64).tolist()
    return [natural(x, u / 2**23) for x, u in zip(v, noise, strict=True)]


def natural(x: float, u: float) -> float:
    """A power of two, the upper one where the rest of ``x`` and ``u`` exceed one together."""
    least = 2.0**-126
    if abs(x) < least:
        return math.copysign(least if abs(x) / least + u >= 1 else 0.0, x)
    fraction, exponent = math.frexp(abs(x))
    lower = 2.0 ** (exponent - 1)
    return math.copysign(2 * lower if 2 * fraction - 1 + u >= 1 else lower, x)


def plain_composition(c: Composition, v: list[float], packed: Packed, seed: int) -> list[float]:
    """The two one after the other, by the code that has its own tests."""
    generator = rng(seed)
    sparse = c.sparsifier.pack(torch.tensor(v), generator)
    values = torch.from_numpy(np.frombuffer(sparse.values, "<f4").astype(np.float32))
    rounded = c.quantizer(values, generator).dense.numpy().tobytes()
    return c.sparsifier.unpack(Packed(rounded, sparse.metadata), len(v)).tolist()


PLAIN: dict[str, Callable[..., list[float]]] = {
    "identity": lambda c, v, packed, seed: v,
    "top_k": plain_top_k,
    "rand_k": plain_rand_k,
    "sign": plain_sign,
    "qsgd": plain_qsgd,
    "contraction": plain_contraction,
    "natural": plain_natural,
    "composition": plain_composition,
}


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("compressor", ALL, ids=str)
def test_what_arrives_is_the_definition(compressor: Compressor, dim: int) -> None:
    for name, vector in vectors(dim).items():
        before = vector.clone()
        packed = compressor.pack(vector, rng(dim))
        dense = compressor.unpack(packed, dim)
        plain = PLAIN[compressor.kind](compressor, before.tolist(), packed, dim)
        assert dense.dtype == torch.float32
        assert dense.shape == (dim,)
        assert torch.equal(dense, torch.tensor(plain, dtype=torch.float32)), name
        assert torch.equal(vector, before), name
        assert len(packed.values) + len(packed.metadata) <= compressor.max_bytes(dim)


@pytest.mark.parametrize("compressor", ALL, ids=str)
def test_both_ends_see_the_same_and_the_same_seed_gives_the_same(compressor: Compressor) -> None:
    vector = vectors(1001)["normal"]
    first, second = compressor(vector, rng(5)), compressor(vector, rng(5))
    assert first.packed == second.packed
    assert torch.equal(first.dense, second.dense)
    assert torch.equal(first.dense, compressor.unpack(first.packed, 1001))


def test_an_unpacked_vector_is_not_shared() -> None:
    vector = torch.ones(4)
    compressed = Identity()(vector, rng())
    compressed.dense.fill_(7)
    assert vector.tolist() == [1, 1, 1, 1]
    assert Identity().unpack(compressed.packed, 4).tolist() == [1, 1, 1, 1]


def test_a_gradient_of_a_parameter_can_be_packed() -> None:
    parameter = torch.nn.Parameter(torch.ones(9))
    assert not TopK(TEN)(parameter, rng()).dense.requires_grad


# -- bytes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compressor", "values", "metadata"),
    [
        (Identity(), 4 * 1001, 0),
        (TopK(Ratio(1.0)), 4 * 1001, 0),
        (RandK(TEN), 4 * 101, 4),
        (QSGD(1), math.ceil(2 * 1001 / 8), 4),
        (QSGD(7), math.ceil(4 * 1001 / 8), 4),
        (QSGD(8), math.ceil(5 * 1001 / 8), 4),
        (QSGD(127), 1001, 4),
        (Sign(), math.ceil(1001 / 8), 4),
    ],
    ids=str,
)
def test_lengths_are_the_formula(compressor: Compressor, values: int, metadata: int) -> None:
    packed = compressor.pack(vectors(1001)["normal"], rng())
    assert (len(packed.values), len(packed.metadata)) == (values, metadata)
    assert compressor.max_bytes(1001) == values + metadata
    assert compressor.expected_bits(1001) == 8 * (values + metadata)


@pytest.mark.parametrize("ratio", [0.001, 0.01, 0.05, 0.2, 0.4, 0.9])
def test_top_k_takes_the_bits_that_were_expected(ratio: float) -> None:
    compressor = TopK(Ratio(ratio))
    packed = compressor.pack(torch.from_numpy(rng().standard_normal(50_000)).float(), rng())
    count = math.ceil(ratio * 50_000)
    assert len(packed.values) == 4 * count
    expected = compressor.expected_bits(50_000) - 32 * count
    assert 8 * len(packed.metadata) == pytest.approx(expected, rel=0.03)
    assert len(packed.metadata) <= math.ceil(50_000 / 8)


def test_top_five_percent_of_fifty_thousand_takes_less_than_five_milliseconds() -> None:
    vector = torch.from_numpy(rng().standard_normal(50_000)).float()
    compressor = TopK()
    seconds = timeit.repeat(lambda: compressor(vector, rng()), number=1, repeat=20)
    assert min(seconds) < 5e-3


# -- what is not finite ------------------------------------------------------------------------


@pytest.mark.parametrize("compressor", [Identity(), TopK(TEN)], ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_arrives_where_floats_travel(compressor: Compressor, bad: float) -> None:
    vector = vectors(64)["normal"]
    vector[40] = bad
    dense = compressor(vector, rng()).dense
    assert torch.equal(dense[40], torch.tensor(bad)) or (math.isnan(bad) and dense[40].isnan())
    assert int((~dense.isfinite()).sum()) == 1


def test_rand_k_carries_what_it_draws() -> None:
    dense = RandK(TEN, scaled=True)(torch.full((50,), math.nan), rng()).dense
    assert int(dense.isnan().sum()) == 5


@pytest.mark.parametrize("compressor", [QSGD(), Sign()], ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_scale_cannot_carry_what_is_not_finite(compressor: Compressor, bad: float) -> None:
    vector = torch.ones(9)
    vector[3] = bad
    with pytest.raises(ValueError, match=compressor.kind):
        compressor.pack(vector, rng())


def test_qsgd_refuses_a_norm_above_float32() -> None:
    with pytest.raises(ValueError, match="norm"):
        QSGD().pack(torch.full((9,), 3e38), rng())
    assert Sign()(torch.full((9,), 3e38), rng()).dense[0] == torch.tensor(3e38)


def test_scaling_past_float32_gives_infinity_not_an_error() -> None:
    dense = RandK(TEN, scaled=True)(torch.full((50,), 3e38), rng()).dense
    assert int(dense.isinf().sum()) == 5


# -- the network boundary ----------------------------------------------------------------------


def accept_or_refuse(compressor: Compressor, packed: Packed, dim: int) -> None:
    try:
        dense = compressor.unpack(packed, dim)
    except WireError:
        return
    assert dense.dtype == torch.float32
    assert dense.shape == (dim,)
    if compressor.kind in ("qsgd", "sign"):
        assert dense.isfinite().all()


def about(length: int) -> st.SearchStrategy[bytes]:
    """Bytes of just that length, and of any other near it."""
    return st.binary(min_size=length, max_size=length) | st.binary(max_size=length + 9)


@pytest.mark.parametrize("compressor", ALL, ids=str)
@settings(deadline=None, max_examples=50)
@given(data=st.data(), dim=st.integers(1, 70))
def test_random_bytes_raise_wire_errors_only(
    compressor: Compressor, data: st.DataObject, dim: int
) -> None:
    model = compressor.pack(torch.ones(dim), rng())
    values, metadata = data.draw(about(len(model.values))), data.draw(about(len(model.metadata)))
    accept_or_refuse(compressor, Packed(values, metadata), dim)


@pytest.mark.parametrize("compressor", ALL, ids=str)
@settings(deadline=None, max_examples=50)
@given(data=st.data(), dim=st.integers(1, 70), seed=st.integers(0, 99))
def test_mutated_bytes_raise_wire_errors_only(
    compressor: Compressor, data: st.DataObject, dim: int, seed: int
) -> None:
    vector = torch.from_numpy(rng(seed).standard_normal(dim)).float()
    packed = compressor.pack(vector, rng(seed))

    def mutate(section: bytes) -> bytes:
        at, cut = data.draw(st.integers(0, len(section))), data.draw(st.integers(0, 2))
        return section[:at] + data.draw(st.binary(max_size=2)) + section[at + cut :]

    accept_or_refuse(compressor, Packed(mutate(packed.values), mutate(packed.metadata)), dim)


@pytest.mark.parametrize("compressor", ALL, ids=str)
def test_missing_and_additional_bytes_are_told_apart(compressor: Compressor) -> None:
    packed = compressor.pack(vectors(1001)["normal"], rng())
    for short in (Packed(packed.values[:-1], packed.metadata), Packed(b"", packed.metadata)):
        with pytest.raises(TruncatedFrame):
            compressor.unpack(short, 1001)
    if packed.metadata:
        with pytest.raises(TruncatedFrame):
            compressor.unpack(Packed(packed.values, b""), 1001)
    with pytest.raises(WrongShape):
        compressor.unpack(Packed(packed.values + b"\0", packed.metadata), 1001)
    with pytest.raises((WrongShape, MalformedFrame)):
        compressor.unpack(Packed(packed.values, packed.metadata + b"\0"), 1001)


def test_qsgd_refuses_impossible_levels_and_norms() -> None:
    scale = struct.pack("<f", 1.0)
    # five levels: codes 0 to 10 in four bits
    assert QSGD(5).unpack(Packed(b"\xa0", scale), 2).tolist() == [1.0, -1.0]
    with pytest.raises(MalformedFrame, match="level"):
        QSGD(5).unpack(Packed(b"\xb0", scale), 2)
    with pytest.raises(MalformedFrame, match="zero vector"):
        QSGD(5).unpack(Packed(b"\xa0", struct.pack("<f", 0.0)), 2)
    for norm in (math.nan, math.inf, -1.0):
        with pytest.raises(MalformedFrame, match="scale"):
            QSGD(5).unpack(Packed(b"\xa0", struct.pack("<f", norm)), 2)
        with pytest.raises(MalformedFrame, match="scale"):
            Sign().unpack(Packed(b"\x00", struct.pack("<f", norm)), 2)


# -- parameters --------------------------------------------------------------------------------


def test_all_are_found_by_name_and_keep_their_parameters() -> None:
    assert {"identity", "top_k", "rand_k", "qsgd", "sign"} <= set(compressors)
    parsed = Compressor.parse({"kind": "top_k", "ratio": "5%"})
    assert parsed == TopK(Ratio(0.05))
    assert parsed.config() == {"kind": "top_k", "ratio": "5%"}
    for compressor in ALL:
        assert Compressor.parse(compressor.config()) == compressor


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "top_k", "ratio": "0%"},
        {"kind": "rand_k", "ratio": 0},
        {"kind": "contraction", "of": "top_k"},
        {"kind": "composition", "sparsifier": "qsgd"},
        {"kind": "composition", "quantizer": "top_k"},
        {"kind": "qsgd", "levels": 0},
        {"kind": "qsgd", "levels": 2**15},
    ],
)
def test_impossible_parameters_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Compressor.parse(config)
