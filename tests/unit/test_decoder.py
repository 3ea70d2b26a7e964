"""The decoder against hostile bytes: a WireError or a valid message, nothing else."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.messages import DIM, AllKinds, Dense, Everything, everything, vector

from tidings.api import Compressed, Compressor, Message, Node, Packed, Protocol
from tidings.errors import MalformedFrame, OversizedFrame, TruncatedFrame, WireError, WrongShape
from tidings.v1 import data_pb2 as pb
from tidings.wire.codec import MAX_HEADER_BYTES, Codec
from tidings.wire.frame import PREFIX

pytestmark = pytest.mark.unit

COMPRESSORS = ["identity", "top_k", "rand_k", "qsgd", "sign"]
PROTOCOLS = {name: AllKinds(compressor=Compressor.parse(name)) for name in COMPRESSORS}
CODECS = {name: Codec(protocol, DIM) for name, protocol in PROTOCOLS.items()}
CODEC = CODECS["top_k"]
DENSE_ID, EVERYTHING_ID = 3, 1


def framed(header: pb.FrameHeader | bytes, *sections: bytes) -> bytes:
    """A frame whose lengths are right, whatever is in it."""
    head = header if isinstance(header, bytes) else header.SerializeToString()
    body = b"".join(sections)
    return PREFIX.pack(2 + len(head) + len(body), len(head)) + head + body


def check_outcome(codec: Codec, data: bytes) -> None:
    """WireError, or a message that is what its declaration says."""
    try:
        got = codec.decode(data)
    except WireError:
        return
    assert got.counts.total == len(data)
    if got.message is None:
        assert got.exchange is not None or got.probe is not None
        return
    for value in vars(got.message).values():
        dense = value.dense if isinstance(value, Compressed) else value
        if isinstance(dense, torch.Tensor):
            assert dense.shape == (DIM,)
            assert dense.dtype == torch.float32
        else:
            assert isinstance(dense, bool | int | float)


# -- fuzzing ---------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=400))
def test_random_bytes(data: bytes) -> None:
    check_outcome(CODEC, data)


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=300), st.lists(st.binary(max_size=200), max_size=4))
def test_random_headers_with_right_lengths(head: bytes, sections: list[bytes]) -> None:
    check_outcome(CODEC, framed(head, *sections))


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(COMPRESSORS), st.data())
def test_right_headers_with_random_sections(name: str, data: st.DataObject) -> None:
    codec, protocol = CODECS[name], PROTOCOLS[name]
    true = everything(protocol)
    lengths = [4 * DIM, len(true.q.packed.values), len(true.q.packed.metadata)]
    lengths += [4 * DIM, len(true.down.packed.values), len(true.down.packed.metadata)]
    sections = []
    for length in lengths:
        near = data.draw(st.sampled_from([length, length, length, length + 1, max(0, length - 1)]))
        sections.append(data.draw(st.binary(min_size=near, max_size=near)))
    header = pb.FrameHeader(
        type=EVERYTHING_ID,
        integers=[1, 1, 2],
        floats=[0.5],
        sections=[len(section) for section in sections],
    )
    check_outcome(codec, framed(header, *sections))


def flipped(frame: bytes, data: st.DataObject) -> bytes:
    changed = bytearray(frame)
    for place in data.draw(st.lists(st.integers(0, 8 * len(frame) - 1), min_size=1, max_size=6)):
        changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


def cut_short(frame: bytes, data: st.DataObject) -> bytes:
    return frame[: data.draw(st.integers(0, len(frame) - 1))]


def cut_short_and_relabelled(frame: bytes, data: st.DataObject) -> bytes:
    short = frame[: data.draw(st.integers(PREFIX.size, len(frame) - 1))]
    return struct.pack("<I", len(short) - 4) + short[4:]


def extended(frame: bytes, data: st.DataObject) -> bytes:
    longer = frame + data.draw(st.binary(min_size=1, max_size=50))
    return longer if data.draw(st.booleans()) else struct.pack("<I", len(longer) - 4) + longer[4:]


def with_a_piece_moved(frame: bytes, data: st.DataObject) -> bytes:
    places = [data.draw(st.integers(PREFIX.size, len(frame))) for _ in range(3)]
    a, b, c = sorted(places)
    return frame[:a] + frame[b:c] + frame[a:b] + frame[c:]


MUTATIONS: list[Callable[[bytes, st.DataObject], bytes]] = [
    flipped,
    cut_short,
    cut_short_and_relabelled,
    extended,
    with_a_piece_moved,
]


@pytest.mark.parametrize("mutate", MUTATIONS)
@settings(deadline=None, max_examples=50)
@given(st.sampled_from(COMPRESSORS), st.data())
def test_mutated_frames(
    mutate: Callable[[bytes, st.DataObject], bytes], name: str, data: st.DataObject
) -> None:
    frame = CODECS[name].encode(everything(PROTOCOLS[name]), 3).joined()
    check_outcome(CODECS[name], mutate(frame, data))


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(6)), st.sampled_from(COMPRESSORS))
def test_sections_in_another_order(order: list[int], name: str) -> None:
    codec = CODECS[name]
    frame = codec.encode(everything(PROTOCOLS[name]), 3).joined()
    _, head_length = PREFIX.unpack_from(frame)
    header = pb.FrameHeader.FromString(frame[6 : 6 + head_length])
    sections, place = [], 6 + head_length
    for length in header.sections:
        sections.append(frame[place : place + length])
        place += length
    del header.sections[:]
    header.sections.extend(len(sections[k]) for k in order)
    check_outcome(codec, framed(header, *(sections[k] for k in order)))


@pytest.mark.parametrize("name", COMPRESSORS)
def test_hostile_frames_cost_no_more_memory_than_valid_ones(name: str) -> None:
    dim = 10_000
    protocol = PROTOCOLS[name]
    codec = Codec(protocol, dim)
    rng = np.random.default_rng(0)
    valid = protocol.compressor(vector(0, dim), rng).packed
    header = pb.FrameHeader(type=EVERYTHING_ID, integers=[1, 1, 2], floats=[0.5])
    down = protocol.second(vector(1, dim), rng).packed
    for trial in range(40):
        values = rng.bytes(len(valid.values)) if trial % 2 else bytes(len(valid.values))
        metadata = rng.bytes(len(valid.metadata)) if trial % 3 else b"\xff" * len(valid.metadata)
        sections = [bytes(4 * dim), values, metadata, bytes(4 * dim), down.values, down.metadata]
        del header.sections[:]
        header.sections.extend(map(len, sections))
        frame = framed(header, *sections)
        tracemalloc.start()
        try:
            codec.decode(frame)
        except WireError:
            pass
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        # a few work arrays of int64 a coordinate (qsgd: bits as bytes), not more
        assert peak < 64 * 8 * dim


# -- the right class for each kind of fault --------------------------------------------------------


def dense_header(**changes: object) -> pb.FrameHeader:
    header = pb.FrameHeader(type=DENSE_ID, round=1, sections=[4 * DIM])
    header.MergeFrom(pb.FrameHeader(**changes))  # type: ignore[arg-type]
    return header


def test_the_frames_of_these_tests_are_right_but_for_their_fault() -> None:
    got = CODEC.decode(framed(dense_header(), vector().numpy().tobytes()))
    assert isinstance(got.message, Dense)
    assert torch.equal(got.message.x, vector())


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", TruncatedFrame),
        (b"\x00\x00\x00", TruncatedFrame),
        (struct.pack("<IH", 0, 0), TruncatedFrame),
        (struct.pack("<IH", 1, 0), TruncatedFrame),
        (struct.pack("<IH", 2**32 - 1, 0), OversizedFrame),
        (struct.pack("<IH", CODEC.max_frame_bytes - 3, 0), OversizedFrame),
        (struct.pack("<IH", CODEC.max_frame_bytes - 4, 0), TruncatedFrame),
        (struct.pack("<IH", 2, 0), MalformedFrame),  # an empty header: nothing in it
        (struct.pack("<IH", 2, 1), MalformedFrame),  # a header beyond the end
        (framed(b"\xff\xff\xff"), MalformedFrame),
        (framed(bytes(MAX_HEADER_BYTES + 1)), MalformedFrame),
        (framed(pb.FrameHeader(type=4)), MalformedFrame),
        (framed(pb.FrameHeader(type=2**32 - 1)), MalformedFrame),
        (framed(pb.FrameHeader(type=DENSE_ID)), MalformedFrame),
        (framed(pb.FrameHeader(round=3)), MalformedFrame),
        (framed(pb.FrameHeader(exchange=pb.Exchange(), sections=[1]), b"x"), MalformedFrame),
        (framed(dense_header(integers=[1]), bytes(4 * DIM)), MalformedFrame),
        (framed(dense_header(floats=[1.0]), bytes(4 * DIM)), MalformedFrame),
        (framed(dense_header(sections=[4]), bytes(4 * DIM + 4)), MalformedFrame),
        (framed(dense_header(), bytes(4 * DIM - 1)), TruncatedFrame),
        (framed(dense_header(), bytes(4 * DIM + 1)), TruncatedFrame),
        (framed(pb.FrameHeader(type=DENSE_ID, sections=[2**32 - 1])), TruncatedFrame),
        (framed(pb.FrameHeader(type=DENSE_ID, sections=[4]), bytes(4)), WrongShape),
        (
            framed(pb.FrameHeader(type=DENSE_ID, sections=[4 * DIM + 4]), bytes(4 * DIM + 4)),
            WrongShape,
        ),
    ],
)
def test_the_class_says_what_is_wrong(data: bytes, kind: type[WireError]) -> None:
    with pytest.raises(kind) as caught:
        CODEC.decode(data)
    assert type(caught.value) is kind


def test_a_compressed_section_longer_than_its_compressor_can_make() -> None:
    longest = PROTOCOLS["top_k"].compressor.max_bytes(DIM)
    lengths = [4 * DIM, longest, 1, 4 * DIM, 5, 4]
    header = pb.FrameHeader(type=EVERYTHING_ID, integers=[1] * 3, floats=[1.0], sections=lengths)
    with pytest.raises(WrongShape, match="longer than top_k"):
        CODEC.decode(framed(header, *map(bytes, lengths)))


def test_a_length_that_is_a_lie_is_refused_before_anything_is_read() -> None:
    assert CODEC.check_length(CODEC.max_frame_bytes - 4) == CODEC.max_frame_bytes
    with pytest.raises(OversizedFrame):
        CODEC.check_length(CODEC.max_frame_bytes - 3)
    with pytest.raises(TruncatedFrame):
        CODEC.check_length(1)


def test_fields_of_a_later_version_are_skipped() -> None:
    known = dense_header().SerializeToString()
    unknown = bytes([0xFA, 0x3E, 3]) + b"new"  # field 1007, length-delimited
    number = bytes([0xC0, 0x3E, 5])  # field 1000, varint
    got = CODEC.decode(framed(known + unknown + number, vector().numpy().tobytes()))
    assert isinstance(got.message, Dense)
    assert torch.equal(got.message.x, vector())


# -- careless parts of somebody else's -------------------------------------------------------------


@dataclass(frozen=True)
class Careless(Compressor):
    """Trusts what it is given."""

    def pack(self, vector: torch.Tensor, rng: np.random.Generator) -> Packed:
        return Packed(b"\x00")

    def unpack(self, packed: Packed, dim: int) -> torch.Tensor:
        return {b"\x00": torch.zeros(dim)}[packed.values]  # KeyError for anything else

    def max_bytes(self, dim: int) -> int:
        return 1

    def expected_bits(self, dim: int) -> float:
        return 8.0


class Percent(Message):
    """A message that checks its value."""

    share: float

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 100:
            raise ValueError(f"{self.share} is no percentage")


@dataclass(frozen=True)
class Percents(Protocol):
    """Sends percentages."""

    messages = (Percent,)

    async def run(self, node: Node) -> None:
        raise NotImplementedError


def test_a_compressor_that_stumbles_is_contained() -> None:
    codec = Codec(AllKinds(compressor=Careless()), DIM)
    frame = bytearray(codec.encode(everything(AllKinds(compressor=Careless())), 1).joined())
    assert isinstance(codec.decode(bytes(frame)).message, Everything)
    # sections: x, q's values (one byte), ...
    _, head_length = PREFIX.unpack_from(frame)
    frame[6 + head_length + 4 * DIM] = 1
    with pytest.raises(MalformedFrame):
        codec.decode(bytes(frame))


def test_a_message_that_refuses_its_values_is_contained() -> None:
    codec = Codec(Percents(), DIM)
    good = codec.encode(Percent(50.0), 1).joined()
    assert isinstance(codec.decode(good).message, Percent)
    bad = good.replace(struct.pack("<d", 50.0), struct.pack("<d", 500.0))
    with pytest.raises(MalformedFrame, match="no percentage"):
        codec.decode(bad)
