"""The frame reader: any cutting of a stream gives the same frames; lengths are checked first."""

from __future__ import annotations

import itertools
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.messages import DIM, AllKinds, everything

from tidings.errors import OversizedFrame, TruncatedFrame, WireError
from tidings.wire.codec import Codec
from tidings.wire.frame import PREFIX, cut
from tidings.wire.reader import FrameReader

pytestmark = pytest.mark.unit

MAX_BYTES = 5000


def check_length(announced: int) -> int:
    """As a codec's, for frames up to MAX_BYTES."""
    if announced + 4 < PREFIX.size:
        raise TruncatedFrame("too short")
    if announced + 4 > MAX_BYTES:
        raise OversizedFrame("too long")
    return announced + 4


def frame(header: bytes, body: bytes) -> bytes:
    return PREFIX.pack(2 + len(header) + len(body), len(header)) + header + body


def pieces(stream: bytes, places: list[int]) -> list[bytes]:
    """The stream cut at some places; also empty pieces."""
    bounds = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(bounds)]


def read(chunks: list[bytes]) -> tuple[list[bytes], type[WireError] | None]:
    """All frames, and how the stream ended."""
    reader, frames = FrameReader(check_length), []
    try:
        for chunk in chunks:
            frames += [bytes(whole) for whole in reader.feed(chunk)]
        reader.close()
    except WireError as error:
        return frames, type(error)
    return frames, None


frames_strategy = st.lists(
    st.builds(frame, st.binary(max_size=20), st.binary(max_size=60)), max_size=6
)
places_strategy = st.lists(st.integers(0, 10**6), max_size=12)


@settings(deadline=None, max_examples=50)
@given(frames_strategy, places_strategy)
def test_any_cutting_gives_the_same_frames(frames: list[bytes], places: list[int]) -> None:
    assert read(pieces(b"".join(frames), places)) == (frames, None)


@settings(deadline=None, max_examples=50)
@given(frames_strategy, places_strategy, st.sampled_from([0, 1, MAX_BYTES, 2**32 - 1]))
def test_any_cutting_gives_the_same_frames_before_an_error(
    frames: list[bytes], places: list[int], announced: int
) -> None:
    stream = b"".join(frames) + struct.pack("<IH", announced, 0) + bytes(30)
    kind = TruncatedFrame if announced < 2 else OversizedFrame
    assert read(pieces(stream, places)) == (frames, kind)


@settings(deadline=None, max_examples=50)
@given(frames_strategy, places_strategy, st.data())
def test_a_stream_that_ends_inside_a_frame(
    frames: list[bytes], places: list[int], data: st.DataObject
) -> None:
    last = frame(b"head", b"body")
    rest = last[: data.draw(st.integers(1, len(last) - 1))]
    assert read(pieces(b"".join(frames) + rest, places)) == (frames, TruncatedFrame)


def test_a_real_stream_byte_by_byte() -> None:
    protocol = AllKinds()
    codec = Codec(protocol, DIM, chunk_bytes=50)
    sent = [codec.encode(everything(protocol, seed), seed) for seed in range(3)]
    stream = b"".join(chunk for one in sent for chunk in one.chunks)
    reader = FrameReader(codec.check_length)
    got: list[bytes] = []
    for place in range(len(stream)):
        got += map(bytes, reader.feed(stream[place : place + 1]))
    assert got == [one.joined() for one in sent]
    assert not reader.inside_frame
    reader.close()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 200), st.integers(0, 200))
def test_the_first_section_is_aligned(header_bytes: int, body_bytes: int) -> None:
    data = frame(bytes(header_bytes), bytes(body_bytes))
    for chunks in ([data], [data[:3], data[3:]]):
        reader = FrameReader(check_length)
        (whole,) = [w for chunk in chunks for w in reader.feed(chunk)]
        address = np.frombuffer(whole, np.uint8).ctypes.data
        assert (address + PREFIX.size + header_bytes) % 64 == 0


def test_frames_are_buffers_of_their_own() -> None:
    data = bytearray(frame(b"", b"one") + frame(b"", b"two"))
    first, second = FrameReader(check_length).feed(bytes(data))
    first[6:] = b"new"
    assert bytes(second[6:]) == b"two"
    assert not first.readonly


def test_an_announced_length_is_checked_before_anything_is_allocated() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(OversizedFrame):
            FrameReader(check_length).feed(struct.pack("<IH", 2**32 - 1, 0))
        refused_bytes = tracemalloc.get_traced_memory()[1]
        FrameReader(check_length).feed(struct.pack("<IH", MAX_BYTES - 4, 0))
        taken_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refused_bytes < MAX_BYTES < taken_bytes


def test_a_broken_stream_stays_broken() -> None:
    reader = FrameReader(check_length)
    with pytest.raises(OversizedFrame):
        reader.feed(struct.pack("<IH", 2**32 - 1, 0))
    with pytest.raises(OversizedFrame):
        reader.feed(frame(b"", b"x"))
    with pytest.raises(OversizedFrame):
        reader.close()


def test_inside_frame() -> None:
    reader = FrameReader(check_length)
    data = frame(b"h", b"body")
    assert not reader.inside_frame
    for place in range(len(data) - 1):
        reader.feed(data[place : place + 1])
        assert reader.inside_frame
    reader.feed(data[-1:])
    assert not reader.inside_frame


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary(max_size=50), max_size=6), st.integers(1, 60))
def test_cut_keeps_every_byte(parts: list[bytes], chunk_bytes: int) -> None:
    chunks = cut(parts, chunk_bytes)
    assert b"".join(chunks) == b"".join(parts)
    assert all(len(chunk) == chunk_bytes for chunk in chunks[:-1])
    assert all(0 < len(chunk) <= chunk_bytes for chunk in chunks)
