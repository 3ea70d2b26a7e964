"""The codec: round trips, exact bytes by kind, agreement. Hostile bytes: test_decoder.py."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.messages import DIM, AllKinds, Dense, Empty, Everything, everything, vector

from tidings.api import (
    By,
    Compressed,
    Compressor,
    Message,
    Node,
    Part,
    PartVector,
    Protocol,
    Vector,
)
from tidings.errors import WrongShape
from tidings.v1 import data_pb2 as pb
from tidings.wire.codec import Codec
from tidings.wire.frame import PREFIX, ByteCount
from tidings.wire.reader import FrameReader

pytestmark = pytest.mark.unit

PROTOCOL = AllKinds()
CODEC = Codec(PROTOCOL, DIM)


class Numbers(Message):
    """Scalars only."""

    a: int
    b: float
    c: bool


@dataclass(frozen=True)
class Scalars(Protocol):
    """Sends numbers."""

    messages = (Numbers,)

    async def run(self, node: Node) -> None:
        raise NotImplementedError


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Bit for bit."""
    return a.numpy().tobytes() == b.numpy().tobytes() and a.shape == b.shape


# -- round trips -----------------------------------------------------------------------------------


@pytest.mark.parametrize("compressor", ["identity", "top_k", "rand_k", "qsgd", "sign"])
def test_every_kind_of_field_comes_back(compressor: str) -> None:
    protocol = AllKinds(compressor=Compressor.parse(compressor))
    codec = Codec(protocol, DIM)
    for seed in range(5):
        sent = everything(protocol, seed)
        got = codec.decode(codec.encode(sent, 7).joined())
        assert got.round == 7
        assert isinstance(got.message, Everything)
        for name in ("count", "on", "scale", "again"):
            assert getattr(got.message, name) == getattr(sent, name)
            assert type(getattr(got.message, name)) is type(getattr(sent, name))
        for name in ("x", "y"):
            assert same(getattr(got.message, name), getattr(sent, name))
        for name in ("q", "down"):
            assert getattr(got.message, name).packed == getattr(sent, name).packed
            assert same(getattr(got.message, name).dense, getattr(sent, name).dense)


class Parts(Message):
    """A part of a model, whole and compressed."""

    x: PartVector
    q: Annotated[Compressed, By("compressor"), Part()]


def test_parts_of_a_model_come_back() -> None:
    protocol = AllKinds(compressor=Compressor.parse("sign"))
    object.__setattr__(protocol, "messages", (Parts,))
    codec = Codec(protocol, 10, nodes=4)
    part = torch.tensor([1.0, -2.0, 3.0])
    frame = codec.encode(Parts(part, protocol.compressor(part, np.random.default_rng(0))), 0)
    assert frame.counts.payload == 12 + 1
    got = codec.decode(frame.joined()).message
    assert isinstance(got, Parts)
    assert same(got.x, part)
    assert got.q.dense.tolist() == [2.0, -2.0, 2.0]
    with pytest.raises(TypeError, match="a part of the model has 3"):
        codec.encode(Parts(torch.ones(10), got.q), 0)
    with pytest.raises(WrongShape):
        Codec(protocol, 10, nodes=2).decode(frame.joined())


@settings(deadline=None, max_examples=50)
@given(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.booleans(),
    st.integers(0, 2**64 - 1),
)
def test_scalars_come_back(a: int, b: float, c: bool, round_: int) -> None:
    codec = Codec(Scalars(), DIM)
    got = codec.decode(codec.encode(Numbers(a, b, c), round_).joined())
    assert isinstance(got.message, Numbers)
    assert (got.round, got.message.a, got.message.c) == (round_, a, c)
    assert struct.pack("<d", got.message.b) == struct.pack("<d", b) or math.isnan(b)


def test_values_that_are_not_finite_travel() -> None:
    x = vector()
    x[:3] = torch.tensor([math.nan, math.inf, -0.0])
    got = CODEC.decode(CODEC.encode(Dense(x), 0).joined()).message
    assert isinstance(got, Dense)
    assert same(got.x, x)


@pytest.mark.parametrize("chunk_bytes", [1, 7, 100, 10**6])
def test_a_frame_is_cut_into_equal_chunks(chunk_bytes: int) -> None:
    frame = Codec(PROTOCOL, DIM, chunk_bytes).encode(everything(PROTOCOL), 3)
    assert frame.joined() == CODEC.encode(everything(PROTOCOL), 3).joined()
    *full, last = frame.chunk_sizes
    assert all(size == chunk_bytes for size in full)
    assert 0 < last <= chunk_bytes
    assert sum(frame.chunk_sizes) == frame.size_bytes == len(frame.joined())


def test_a_message_without_fields() -> None:
    got = CODEC.decode(CODEC.encode(Empty(), 5).joined())
    assert isinstance(got.message, Empty)
    assert got.counts.payload == 0


def test_vectors_that_are_no_plain_arrays_are_sent_as_their_values() -> None:
    wide = vector(1, 2 * DIM)
    strided, tracked = wide[::2], vector(2).requires_grad_()
    for x in (strided, tracked):
        got = CODEC.decode(CODEC.encode(Dense(x), 0).joined()).message
        assert isinstance(got, Dense)
        assert same(got.x, x.detach().contiguous())


def test_exchange_and_probe_headers_travel() -> None:
    header = pb.Exchange(phase=pb.Exchange.COMMIT, id=2**64 - 1, starter=3)
    bare = CODEC.decode(CODEC.encode(None, 4, header).joined())
    assert (bare.message, bare.exchange, bare.round) == (None, header, 4)
    full = CODEC.decode(CODEC.encode(Dense(vector()), 4, header).joined())
    assert isinstance(full.message, Dense)
    assert full.exchange == header
    probe = pb.Probe(kind=pb.Probe.BURST, number=1, count=9)
    got = CODEC.decode(CODEC.probe(probe, 100).joined())
    assert (got.message, got.exchange, got.probe) == (None, None, probe)


# -- bytes -----------------------------------------------------------------------------------------


def test_the_layout_of_a_frame() -> None:
    x = vector()
    data = CODEC.encode(Dense(x), 5).joined()
    length, header_length = struct.unpack("<IH", data[:6])
    assert length == len(data) - 4
    header = pb.FrameHeader.FromString(data[6 : 6 + header_length])
    assert header == pb.FrameHeader(type=3, round=5, sections=[4 * DIM])
    assert data[6 + header_length :] == x.numpy().astype("<f4").tobytes()


@pytest.mark.parametrize("compressor", ["identity", "top_k", "rand_k", "qsgd", "sign"])
def test_bytes_by_kind_are_exact_and_the_same_at_both_ends(compressor: str) -> None:
    protocol = AllKinds(compressor=Compressor.parse(compressor))
    codec = Codec(protocol, DIM)
    message = everything(protocol)
    frame = codec.encode(message, 1)
    packed = (message.q.packed, message.down.packed)
    assert frame.counts.payload == 2 * 4 * DIM + sum(len(p.values) for p in packed)
    assert frame.counts.metadata == sum(len(p.metadata) for p in packed)
    _, header_length = PREFIX.unpack_from(frame.joined())
    assert frame.counts.header == PREFIX.size + header_length
    assert frame.counts.control == 0
    assert frame.counts.total == len(frame.joined())
    assert codec.decode(frame.joined()).counts == frame.counts


def test_frames_without_a_message_are_control() -> None:
    handshake = CODEC.encode(None, 1, pb.Exchange(phase=pb.Exchange.ASK, id=1))
    assert handshake.counts == ByteCount(control=len(handshake.joined()))
    probe = CODEC.probe(pb.Probe(kind=pb.Probe.BURST), 50)
    assert probe.counts == ByteCount(control=len(probe.joined()))
    for frame in (handshake, probe):
        assert CODEC.decode(frame.joined()).counts == frame.counts


def test_no_frame_is_longer_than_announced_possible() -> None:
    for name in ("identity", "top_k", "rand_k", "qsgd", "sign"):
        protocol = AllKinds(compressor=Compressor.parse(name))
        codec = Codec(protocol, DIM)
        for seed in range(10):
            assert codec.encode(everything(protocol, seed), 2**64 - 1).size_bytes <= (
                codec.max_frame_bytes
            )


def test_expected_bytes_are_close_to_real_ones() -> None:
    protocol = AllKinds()
    codec = Codec(protocol, 2000)
    rng = np.random.default_rng(0)
    message = Everything(
        count=3,
        x=vector(0, 2000),
        on=True,
        q=protocol.compressor(vector(1, 2000), rng),
        scale=1.0,
        y=vector(2, 2000),
        again=4,
        down=protocol.second(vector(3, 2000), rng),
    )
    for sent in (message, Dense(vector(4, 2000))):
        size_bytes = codec.encode(sent, 100).size_bytes
        assert codec.expected_bytes(type(sent)) == pytest.approx(size_bytes, rel=0.01)


# -- aliasing --------------------------------------------------------------------------------------


def test_a_frame_is_a_snapshot() -> None:
    x = vector()
    before = x.clone()
    frame = CODEC.encode(Dense(x), 0)
    x.fill_(7.0)
    got = CODEC.decode(frame.joined()).message
    assert isinstance(got, Dense)
    assert same(got.x, before)


def test_two_receivers_of_one_frame_do_not_share_a_tensor() -> None:
    data = CODEC.encode(Dense(vector()), 0).joined()
    first, second = CODEC.decode(data).message, CODEC.decode(data).message
    assert isinstance(first, Dense)
    assert isinstance(second, Dense)
    first.x.fill_(7.0)
    assert same(second.x, vector())


def test_vectors_are_views_of_a_buffer_that_is_the_receivers_own() -> None:
    (frame,) = FrameReader(CODEC.check_length).feed(CODEC.encode(Dense(vector()), 0).joined())
    got = CODEC.decode(frame).message
    assert isinstance(got, Dense)
    start = np.frombuffer(frame, np.uint8).ctypes.data
    assert start <= got.x.data_ptr() < start + len(frame)
    assert got.x.data_ptr() % 64 == 0
    assert same(got.x, vector())


def test_a_vector_at_an_odd_place_is_copied() -> None:
    (frame,) = FrameReader(CODEC.check_length).feed(CODEC.encode(Dense(vector()), 0).joined())
    odd = memoryview(bytearray(1) + frame)[1:]
    got = CODEC.decode(odd).message
    assert isinstance(got, Dense)
    assert same(got.x, vector())
    got.x.add_(1.0)


# -- mistakes of the sender ------------------------------------------------------------------------


def test_an_undeclared_message_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"Numbers is not in .*Everything, Empty, Dense"):
        CODEC.encode(Numbers(1, 2.0, True), 0)


def test_a_vector_of_the_wrong_length_is_refused_at_the_sender() -> None:
    with pytest.raises(TypeError, match=r"Dense\.x has 41 elements, the model has 40"):
        CODEC.encode(Dense(vector(0, DIM + 1)), 0)


def test_a_compressed_field_needs_its_compressor() -> None:
    @dataclass(frozen=True)
    class Without(Protocol):
        """Sends what it cannot compress."""

        messages = (Everything,)

        async def run(self, node: Node) -> None:
            raise NotImplementedError

    with pytest.raises(TypeError, match="no compressor called 'compressor'"):
        Codec(Without(), DIM)


# -- agreement -------------------------------------------------------------------------------------


def table(*messages: type[Message]) -> Protocol:
    """A protocol with that table."""

    @dataclass(frozen=True)
    class Table(Protocol):
        """Only a table."""

        async def run(self, node: Node) -> None:
            raise NotImplementedError

    Table.messages = messages
    return Table()


class Other(Message):
    """As Dense, under another name."""

    x: Vector


def renamed() -> type[Message]:
    class Dense(Message):
        """As the Dense above, but for its field's name."""

        y: Vector

    return Dense


def retyped() -> type[Message]:
    class Dense(Message):
        """As the Dense above, but for its field's type."""

        x: float

    return Dense


def test_the_digest_says_whether_two_nodes_understand_each_other() -> None:
    digests = [
        Codec(protocol, dim).digest
        for protocol, dim in [
            (AllKinds(), DIM),
            (AllKinds(), DIM + 1),
            (AllKinds(lr=0.2), DIM),
            (AllKinds(compressor=Compressor.parse({"kind": "top_k", "ratio": 0.1})), DIM),
            (AllKinds(compressor=Compressor.parse("qsgd")), DIM),
            (table(Dense), DIM),
            (table(Other), DIM),
            (table(renamed()), DIM),
            (table(retyped()), DIM),
            (table(Dense, Empty), DIM),
            (table(Empty, Dense), DIM),
        ]
    ]
    assert len(set(digests)) == len(digests)
    assert Codec(AllKinds(), DIM, chunk_bytes=10).digest == digests[0]
    assert Codec(Protocol.parse({"kind": "d_psgd", "lr": 0.1}), DIM).digest == (
        Codec(Protocol.parse({"lr": 0.1, "kind": "d_psgd"}), DIM).digest
    )


def test_compressor_by_default_field() -> None:
    @dataclass(frozen=True)
    class One(Protocol):
        """One compressor, under its usual name."""

        compressor: Compressor = field(default_factory=lambda: Compressor.parse("sign"))
        messages = (Everything,)

        async def run(self, node: Node) -> None:
            raise NotImplementedError

    with pytest.raises(TypeError, match="second"):
        Codec(One(), DIM)
