"""Messages to frames and back. No pickle: both ends know the declarations, only values travel.

The decoder is a node's outer wall. It takes bytes from anyone, raises nothing but WireError, and
allocates nothing before the announced lengths fit the declaration.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from google.protobuf.message import DecodeError

from tidings.api.message import Compressed, FieldSpec, Message, Packed, Part, fields_of
from tidings.api.plugins import Compressor
from tidings.api.protocol import Protocol
from tidings.errors import MalformedFrame, OversizedFrame, TruncatedFrame, WireError, WrongShape
from tidings.v1 import data_pb2 as pb
from tidings.wire.frame import PREFIX, Buffer, ByteCount, Frame, cut

#: part of the digest: nodes that speak another format do not connect
WIRE_VERSION = 1

#: a header holds scalars only; anything longer is not ours
MAX_HEADER_BYTES = 4096

MIN_ROOM_BYTES = 1 << 20

FLOAT32_BYTES = 4
#: type, round and section lengths
_TYPICAL_HEADER_BYTES = 8


@dataclass(frozen=True, slots=True)
class Incoming:
    """A decoded frame."""

    round: int
    step: int
    message: Message | None
    exchange: pb.Exchange | None
    rejoin: pb.Rejoin | None
    #: of the sender
    incarnation: int
    probe: pb.Probe | None
    #: a sign of life and nothing else
    heartbeat: bool
    counts: ByteCount


class Codec:
    """Encodes and decodes the messages of one protocol at one model size.

    ``nodes`` says how long a part of a model is, for messages that carry one. ``incarnation`` is
    said in every frame.
    """

    def __init__(
        self,
        protocol: Protocol,
        dim: int,
        chunk_bytes: int = 1 << 20,
        nodes: int = 1,
        incarnation: int = 0,
    ) -> None:
        self._incarnation = incarnation
        self._types = tuple(protocol.messages)
        self._ids = {message: position for position, message in enumerate(self._types, start=1)}
        self._specs = {message: fields_of(message) for message in self._types}
        self._compressors = {
            field.compressor: _compressor_of(protocol, field.compressor)
            for specs in self._specs.values()
            for field in specs
            if field.kind == "compressed"
        }
        self.dim = dim
        self._part_dim = Part.length(dim, nodes)
        self.chunk_bytes = chunk_bytes
        #: no frame of this run is longer; small models leave room for the filler of probes
        sections_bytes = max(self._max_sections_bytes(), MIN_ROOM_BYTES)
        self.max_frame_bytes = PREFIX.size + MAX_HEADER_BYTES + sections_bytes
        self.digest = self._digest(protocol)

    @property
    def types(self) -> tuple[type[Message], ...]:
        """The message types, in the order of their ids."""
        return self._types

    # -- encoding ----------------------------------------------------------------------------

    def encode(
        self,
        message: Message | None,
        round_: int,
        handshake: pb.Exchange | pb.Rejoin | None = None,
        step: int = 0,
    ) -> Frame:
        """The frame of ``message``; tensors are copied. TypeError for an undeclared message."""
        header = pb.FrameHeader(round=round_, step=step)
        sections: list[Buffer] = []
        payload = metadata = 0
        if isinstance(handshake, pb.Exchange):
            header.exchange.CopyFrom(handshake)
        elif handshake is not None:
            header.rejoin.CopyFrom(handshake)
        if message is not None:
            header.type = self._id(type(message))
            for field in self._specs[type(message)]:
                value = getattr(message, field.name)
                if field.kind == "float":
                    header.floats.append(value)
                elif field.kind == "vector":
                    sections.append(self._vector_bytes(message, field, value))
                    payload += len(sections[-1])
                elif field.kind == "compressed":
                    sections += [value.packed.values, value.packed.metadata]
                    payload += len(value.packed.values)
                    metadata += len(value.packed.metadata)
                else:
                    header.integers.append(int(value))
        frame, head_bytes = self._assemble(header, sections)
        if message is None:
            return Frame(frame, ByteCount(control=head_bytes))
        return Frame(frame, ByteCount(payload, metadata, head_bytes))

    def probe(self, probe: pb.Probe, filler_bytes: int = 0) -> Frame:
        """A frame that measures a link; its filler is zeros."""
        header = pb.FrameHeader(probe=probe)
        frame, head_bytes = self._assemble(header, [bytes(filler_bytes)] if filler_bytes else [])
        return Frame(frame, ByteCount(control=head_bytes + filler_bytes))

    def heartbeat(self, round_: int) -> Frame:
        """A sign of life of a node that is in that round."""
        frame, head_bytes = self._assemble(pb.FrameHeader(round=round_, heartbeat=True), [])
        return Frame(frame, ByteCount(heartbeat=head_bytes))

    def _assemble(
        self, header: pb.FrameHeader, sections: list[Buffer]
    ) -> tuple[tuple[Buffer, ...], int]:
        header.incarnation = self._incarnation
        header.sections.extend(len(section) for section in sections)
        head = header.SerializeToString()
        length = PREFIX.size - 4 + len(head) + sum(len(section) for section in sections)
        prefix = PREFIX.pack(length, len(head))
        return cut([prefix + head, *sections], self.chunk_bytes), PREFIX.size + len(head)

    def _id(self, kind: type[Message]) -> int:
        if kind not in self._ids:
            names = ", ".join(known.__name__ for known in self._types)
            raise TypeError(
                f"{kind.__name__} is not in the protocol's messages ({names}); declare it there"
            )
        return self._ids[kind]

    def _vector_bytes(self, message: Message, field: FieldSpec, value: torch.Tensor) -> memoryview:
        if value.numel() != self._length(field):
            raise TypeError(
                f"{type(message).__name__}.{field.name} has {value.numel()} elements, "
                f"{'a part of ' if field.part else ''}the model has {self._length(field)}"
            )
        array = value.detach().cpu().contiguous().numpy()
        return np.ascontiguousarray(array, dtype="<f4").data.cast("B")

    # -- decoding ----------------------------------------------------------------------------

    def check_length(self, announced: int) -> int:
        """The whole frame's length from its first word; a WireError for an impossible one."""
        total = announced + 4
        if total < PREFIX.size:
            raise TruncatedFrame(f"a frame of {total} bytes is shorter than its prefix")
        if total > self.max_frame_bytes:
            raise OversizedFrame(f"{total} bytes announced, at most {self.max_frame_bytes}")
        return total

    def decode(self, frame: Buffer) -> Incoming:
        """The message in a whole frame; raises a WireError for anything else.

        Vectors are views of ``frame`` where it is writable and aligned, else copies.
        """
        view = memoryview(frame)
        if len(view) < PREFIX.size:
            raise TruncatedFrame(f"{len(view)} bytes are less than a frame's prefix")
        length, header_length = PREFIX.unpack_from(view)
        if self.check_length(length) != len(view):
            raise TruncatedFrame(f"{length + 4} bytes announced, {len(view)} came")
        start = PREFIX.size + header_length
        if header_length > MAX_HEADER_BYTES or start > len(view):
            raise MalformedFrame(f"a header of {header_length} bytes does not fit")
        try:
            header = pb.FrameHeader.FromString(bytes(view[PREFIX.size : start]))
        except DecodeError as error:
            raise MalformedFrame("the header does not parse") from error
        sections = _sections(view, start, header)
        message, count = self._message(header, sections)
        beats = message is None and header.heartbeat
        if beats:
            count.heartbeat = len(view)
        elif message is None:
            count.control = len(view)
        else:
            count.header = start
        return Incoming(
            header.round,
            header.step,
            message,
            header.exchange if header.HasField("exchange") else None,
            header.rejoin if header.HasField("rejoin") else None,
            header.incarnation,
            header.probe if header.HasField("probe") else None,
            beats,
            count,
        )

    def _message(
        self, header: pb.FrameHeader, sections: list[memoryview]
    ) -> tuple[Message | None, ByteCount]:
        count = ByteCount()
        if header.type == 0:
            handshake = header.HasField("exchange") or header.HasField("rejoin")
            if not (handshake or header.heartbeat or header.HasField("probe")):
                raise MalformedFrame("a frame without message, handshake, heartbeat or probe")
            if (handshake or header.heartbeat) and sections:
                raise MalformedFrame("a handshake or a heartbeat carries no sections")
            return None, count
        if header.type > len(self._types):
            raise MalformedFrame(f"message type {header.type} of {len(self._types)}")
        kind = self._types[header.type - 1]
        specs = self._specs[kind]
        self._check_counts(kind, specs, header, len(sections))
        integers, floats, rest = iter(header.integers), iter(header.floats), iter(sections)
        values: dict[str, Any] = {}
        for field in specs:
            if field.kind == "vector":
                values[field.name] = self._vector(kind, field, next(rest))
                count.payload += self._length(field) * FLOAT32_BYTES
            elif field.kind == "compressed":
                packed = Packed(bytes(next(rest)), bytes(next(rest)))
                count.payload += len(packed.values)
                count.metadata += len(packed.metadata)
                values[field.name] = self._unpack(field, packed)
            elif field.kind == "float":
                values[field.name] = next(floats)
            else:
                number = next(integers)
                values[field.name] = bool(number) if field.kind == "bool" else number
        try:
            return kind(**values), count
        except Exception as error:
            # a message type may check its own values
            raise MalformedFrame(f"{kind.__name__} refuses its values: {error}") from error

    def _check_counts(
        self,
        kind: type[Message],
        specs: tuple[FieldSpec, ...],
        header: pb.FrameHeader,
        sections: int,
    ) -> None:
        kinds = [field.kind for field in specs]
        want = (
            kinds.count("int") + kinds.count("bool"),
            kinds.count("float"),
            kinds.count("vector") + 2 * kinds.count("compressed"),
        )
        got = (len(header.integers), len(header.floats), sections)
        if want != got:
            raise MalformedFrame(
                f"{kind.__name__} has {want} integers, floats and sections; {got} came"
            )

    def _vector(self, kind: type[Message], field: FieldSpec, section: memoryview) -> torch.Tensor:
        length = self._length(field)
        if len(section) != length * FLOAT32_BYTES:
            raise WrongShape(
                f"{kind.__name__}.{field.name}: {len(section)} bytes are not ({length},) float32"
            )
        array = np.frombuffer(section, dtype="<f4")
        if not (array.flags.writeable and array.flags.aligned):
            array = array.copy()
        return torch.from_numpy(array)

    def _unpack(self, field: FieldSpec, packed: Packed) -> Compressed:
        compressor = self._compressors[field.compressor]
        if len(packed.values) + len(packed.metadata) > compressor.max_bytes(self._length(field)):
            raise WrongShape(f"{field.name}: longer than {compressor.kind} can be")
        try:
            return Compressed(packed, compressor.unpack(packed, self._length(field)))
        except WireError:
            raise
        except Exception as error:
            # a compressor of somebody else's may be less careful than ours
            raise MalformedFrame(f"{field.name}: {compressor.kind} cannot read it") from error

    def _length(self, field: FieldSpec) -> int:
        """The elements of a vector field."""
        return self._part_dim if field.part else self.dim

    def expected_bytes(self, kind: type[Message]) -> float:
        """What a message of that type usually takes on the wire."""
        sections = [
            self._length(field) * FLOAT32_BYTES
            if field.kind == "vector"
            else self._compressors[field.compressor].expected_bits(self._length(field)) / 8
            for field in self._specs[kind]
            if field.kind in ("vector", "compressed")
        ]
        return PREFIX.size + _TYPICAL_HEADER_BYTES + 2 * len(self._specs[kind]) + sum(sections)

    # -- agreement ---------------------------------------------------------------------------

    def _max_sections_bytes(self) -> int:
        return max(
            sum(
                self._length(field) * FLOAT32_BYTES
                if field.kind == "vector"
                else self._compressors[field.compressor].max_bytes(self._length(field))
                for field in specs
                if field.kind in ("vector", "compressed")
            )
            for specs in self._specs.values()
        )

    def _digest(self, protocol: Protocol) -> bytes:
        table = [
            [kind.__name__, [[field.name, field.kind, field.part] for field in self._specs[kind]]]
            for kind in self._types
        ]
        agreed = [WIRE_VERSION, protocol.config(), table, self.dim, self._part_dim]
        return hashlib.sha256(json.dumps(agreed, sort_keys=True).encode()).digest()


def _sections(view: memoryview, start: int, header: pb.FrameHeader) -> list[memoryview]:
    if start + sum(header.sections) != len(view):
        raise TruncatedFrame(
            f"sections of {sum(header.sections)} bytes announced, {len(view) - start} came"
        )
    sections = []
    for length in header.sections:
        sections.append(view[start : start + length])
        start += length
    return sections


def _compressor_of(protocol: Protocol, field: str) -> Compressor:
    found = getattr(protocol, field, None)
    if not isinstance(found, Compressor):
        raise TypeError(f"{type(protocol).__name__} has no compressor called '{field}'")
    return found
