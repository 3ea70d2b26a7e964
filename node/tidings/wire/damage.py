"""Frames as a faulty network or a faulty sender would leave them. Framing itself stays intact."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tidings.wire.frame import PREFIX, ByteCount, Frame, cut


def flipped(frame: Frame, places: Iterable[float]) -> Frame:
    """A copy with one bit flipped at each place, in [0, 1) of what follows the frame's prefix.

    It may still decode, to other numbers, or be refused: there is no checksum above TCP's.
    """
    data = bytearray(frame.joined())
    bits = 8 * (len(data) - PREFIX.size)
    for place in places:
        byte, bit = divmod(int(place * bits), 8)
        data[PREFIX.size + byte] ^= 1 << bit
    return _cut(data, frame)


def truncated(frame: Frame, share: float) -> Frame:
    """A copy of which only a ``share`` in [0, 1) of what follows the prefix is left.

    It says its new length, so the receiver reads on behind it, and refuses it.
    """
    data = frame.joined()
    kept = int(share * (len(data) - PREFIX.size))
    _, header_length = PREFIX.unpack_from(data)
    head = PREFIX.pack(PREFIX.size - 4 + kept, header_length)
    return _cut(head + bytes(data[PREFIX.size : PREFIX.size + kept]), frame)


def _cut(data: bytes | bytearray, like: Frame) -> Frame:
    """The bytes in chunks of the other frame's size; what is missing is missing at the end."""
    left = len(data)
    counts = ByteCount()
    for kind in ("control", "header", "payload", "metadata"):
        size_bytes = min(left, getattr(like.counts, kind))
        setattr(counts, kind, size_bytes)
        left -= size_bytes
    return replace(like, chunks=cut([data], max(like.chunk_sizes)), counts=counts)
