"""Frames: the bytes of one message on a link, and what they are made of."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np

from tidings.wire import blocks

#: length of what follows, length of the header
PREFIX = struct.Struct("<IH")

Buffer = bytes | bytearray | memoryview

#: a chunk above this is copied without holding up other threads; gRPC's are never above it
_LONG_BYTES = 1 << 20


@dataclass(slots=True)
class ByteCount:
    """Bytes by what they are; see the Bytes message in records.proto."""

    payload: int = 0
    metadata: int = 0
    header: int = 0
    control: int = 0
    heartbeat: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.payload + self.metadata + self.header + self.control + self.heartbeat

    def add(self, other: ByteCount) -> None:
        """Count ``other`` in, in place."""
        self.payload += other.payload
        self.metadata += other.metadata
        self.header += other.header
        self.control += other.control
        self.heartbeat += other.heartbeat

    def copy(self) -> Self:
        """The count as it stands now."""
        return replace(self)

    def as_dict(self) -> dict[str, int]:
        """By name, with the total first."""
        return {"total": self.total} | {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, slots=True)
class Frame:
    """An encoded message, cut into the chunks in which it will leave."""

    chunks: tuple[Buffer, ...]
    counts: ByteCount

    @property
    def size_bytes(self) -> int:
        """The length of all chunks together."""
        return self.counts.total

    @property
    def chunk_sizes(self) -> list[int]:
        """The chunks' lengths in the order in which they leave."""
        return [len(chunk) for chunk in self.chunks]

    @property
    def beats(self) -> bool:
        """Whether it is a sign of life and no message."""
        return self.counts.heartbeat > 0

    def joined(self) -> Buffer:
        """The frame in one piece."""
        return self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)


def cut(parts: Iterable[Buffer], chunk_bytes: int) -> tuple[Buffer, ...]:
    """Copy ``parts`` into consecutive chunks of ``chunk_bytes`` (the last one shorter).

    The copy is the only one on the sending side; it also makes the frame independent of tensors
    that the sender goes on to change.
    """
    return tuple(_chunks(parts, chunk_bytes))


def _chunks(parts: Iterable[Buffer], chunk_bytes: int) -> Iterator[Buffer]:
    pieces: list[Buffer] = []
    room = chunk_bytes
    for part in parts:
        view = memoryview(part)
        while len(view) >= room:
            yield _joined([*pieces, view[:room]])
            pieces, view, room = [], view[room:], chunk_bytes
        if len(view):
            pieces.append(view)
            room -= len(view)
    if pieces:
        yield _joined(pieces)


def _joined(pieces: list[Buffer]) -> Buffer:
    """A copy of the pieces in a row."""
    size_bytes = sum(len(piece) for piece in pieces)
    if size_bytes <= _LONG_BYTES:
        return b"".join(pieces)
    whole = blocks.take(size_bytes)
    start = 0
    for piece in pieces:
        # numpy lets other threads run while it copies
        whole[start : start + len(piece)] = np.frombuffer(piece, dtype=np.uint8)
        start += len(piece)
    return whole.data
