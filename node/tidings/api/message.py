"""Messages: what a protocol sends, declared as a class with typed fields.

::

    class Tracked(Message):
        x: Vector
        y: Vector

A field is an ``int``, ``float`` or ``bool``, a :data:`Vector` (a flat model, ``(d,)`` float32) or a
:class:`Compressed` vector. Nothing else travels, and nothing of it needs describing on the wire:
both ends know the declaration, so a receiver can refuse a wrong length before it allocates.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import torch

M = TypeVar("M", bound="Message", covariant=True)

#: A flat model or gradient: shape (d,), float32, on the CPU.
Vector = Annotated[torch.Tensor, "vector"]


@dataclass(frozen=True)
class Packed:
    """A compressed vector as it goes on the wire."""

    #: the numbers themselves, packed as tightly as the compressor says
    values: bytes
    #: what it takes to place them: indices, scales, seeds
    metadata: bytes = b""


@dataclass(frozen=True)
class Compressed:
    """A compressed vector: the bytes that travel and the vector they stand for.

    Sender and receiver compute ``dense`` ((d,) float32) from the same bytes, so that replicas which
    are kept on both sides stay bit-identical.
    """

    packed: Packed
    dense: torch.Tensor


@dataclass(frozen=True)
class Part:
    """Marks a vector that is one of n parts of a model, for n nodes: ceil(d / n) long.

    ``x: PartVector``, or ``q: Annotated[Compressed, By("signs"), Part()]``. The last parts are
    filled up, so that all have that length.
    """

    @staticmethod
    def length(dim: int, nodes: int) -> int:
        """The elements of a part of a (dim,) vector."""
        return -(-dim // nodes)


#: A part of a flat model: shape (ceil(d / n),), float32, on the CPU.
PartVector = Annotated[torch.Tensor, "vector", Part()]


@dataclass(frozen=True)
class By:
    """Names the protocol field with the compressor: ``q: Annotated[Compressed, By("down")]``."""

    field: str = "compressor"


FieldKind = Literal["int", "float", "bool", "vector", "compressed"]


@dataclass(frozen=True)
class FieldSpec:
    """One field of a message as the codec sees it."""

    name: str
    kind: FieldKind
    #: for a compressed field: the protocol's field with the compressor
    compressor: str = ""
    #: whether it is one of n parts of a whole vector
    part: bool = False


@typing.dataclass_transform(frozen_default=True)
class Message:
    """Base of all messages. A subclass is a frozen dataclass without further decoration.

    Tensors are copied when they are sent, so the sender may go on to change them in place.
    """

    #: the role of the nodes that send it ("server" or "client"); None: everyone does
    sender: ClassVar[str | None] = None

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True, eq=False)(cls)

    def __post_init__(self) -> None:
        """Check tensors where the mistake is made, not where it arrives."""
        for field in fields_of(type(self)):
            value = getattr(self, field.name)
            if field.kind == "vector" and (value.dim() != 1 or value.dtype != torch.float32):
                raise TypeError(
                    f"{type(self).__name__}.{field.name} must be (d,) float32, "
                    f"got {tuple(value.shape)} {value.dtype}"
                )

    def replace(self, **changes: Any) -> typing.Self:
        """A copy with some fields changed."""
        return dataclasses.replace(typing.cast("Any", self), **changes)  # type: ignore[no-any-return]


class Weights(Message):
    """A model, the one message that most protocols need."""

    x: Vector


_specs: dict[type[Message], tuple[FieldSpec, ...]] = {}


def fields_of(message: type[Message]) -> tuple[FieldSpec, ...]:
    """The fields of a message type in declaration order; TypeError for one that cannot travel."""
    if message not in _specs:
        hints = typing.get_type_hints(message, include_extras=True)
        names = [field.name for field in dataclasses.fields(typing.cast("Any", message))]
        _specs[message] = tuple(_field_spec(message, name, hints[name]) for name in names)
    return _specs[message]


def _field_spec(message: type[Message], name: str, annotation: Any) -> FieldSpec:
    kinds: dict[Any, FieldKind] = {int: "int", float: "float", bool: "bool"}
    if annotation in kinds:
        return FieldSpec(name, kinds[annotation])
    if annotation is Compressed:
        return FieldSpec(name, "compressed", By().field)
    if typing.get_origin(annotation) is Annotated:
        base, *marks = typing.get_args(annotation)
        part = any(isinstance(mark, Part) for mark in marks)
        if base is torch.Tensor and "vector" in marks:
            return FieldSpec(name, "vector", part=part)
        by = next((mark for mark in marks if isinstance(mark, By)), None)
        if base is Compressed and by is not None:
            return FieldSpec(name, "compressed", by.field, part)
    raise TypeError(
        f"{message.__name__}.{name}: {annotation} cannot travel; "
        "use int, float, bool, Vector or Compressed"
    )


@dataclass(frozen=True)
class Delivery(Generic[M]):
    """One message as it arrived."""

    source: int
    round: int
    message: M
    step: int = 0
    #: of its frame, where the order of the run is written down or repeated
    digest: str = ""


class Inbox(Mapping[int, M], Generic[M]):
    """What arrived of a gather, by sender, iterated in node order whatever the arrival order.

    Never an exception for what is missing: the protocol's policy for it is in plain sight.
    """

    #: nothing, for protocols that want a neutral value
    EMPTY: ClassVar[Inbox[Any]]

    def __init__(self, messages: Mapping[int, M], missing: tuple[int, ...] = ()) -> None:
        self._messages = {source: messages[source] for source in sorted(messages)}
        #: expected senders from whom nothing came within the deadline
        self.missing = missing

    def __getitem__(self, source: int) -> M:
        return self._messages[source]

    def __iter__(self) -> Iterator[int]:
        return iter(self._messages)

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def complete(self) -> bool:
        """Whether everyone who was expected was heard."""
        return not self.missing

    def stack(self, field: str = "x") -> torch.Tensor:
        """One field of all messages as rows, in node order: (len(self), d) float32."""
        return torch.stack([getattr(message, field) for message in self.values()])


Inbox.EMPTY = Inbox({})
