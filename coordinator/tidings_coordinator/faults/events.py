"""The ``faults`` section of an experiment: what is to break, where, when and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    StrictInt,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)

from tidings.errors import ConfigError
from tidings.faults.base import Fault
from tidings.registry import FAMILY_MARK, as_pydantic
from tidings.units import Duration, Ratio
from tidings_coordinator.experiment.section import (
    Count,
    Flag,
    Number,
    PositiveDuration,
    PositiveSize,
    Section,
)

#: whose round counts where a moment is a round
RoundOf = Literal["own", "min", "median", "any"]


def _event_name(text: str) -> str:
    if not text or not all(c.isalnum() or c in "-_." for c in text):
        raise ValueError(f"'{text}' is no name for an event; use letters, digits, '.', '_' and '-'")
    return text


def _short(value: object) -> object:
    """``10s`` for ``{time: 10s}``."""
    return value if isinstance(value, Mapping | Section) else {"time": value}


class _Alternatives(Section):
    """Of several keys exactly one is given."""

    @model_serializer(mode="wrap")
    def _without_gaps(self, handler: Any) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}

    def _one_of(self, *names: str) -> None:
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(names)}")


class Moment(_Alternatives):
    """A point in the run: a time (``10s``), or ``{round: 50}``, ``{bytes: 10MB}``, ..."""

    time: Duration | None = None
    """Emulated time since the start."""
    round: Annotated[StrictInt, Field(ge=0)] | None = None
    """A round (or local step)."""
    of: RoundOf | None = None
    """Whose round: each target's own (exact, and the same on every transport), the slowest live
    node's, the median or anyone's. By default 'own' for synchronous protocols, else 'median'."""
    bytes: PositiveSize | None = None
    """Sent by all nodes together."""
    accuracy: Ratio | None = None
    """Mean accuracy of the honest nodes, reached for the first time."""

    @model_validator(mode="after")
    def _one(self) -> Moment:
        self._one_of("time", "round", "bytes", "accuracy")
        if self.of is not None and self.round is None:
            raise ValueError("'of' goes with 'round'")
        return self


class Span(_Alternatives):
    """How long: a time (``10s``), or ``{rounds: 10}``, ``{bytes: 10MB}``."""

    time: PositiveDuration | None = None
    """Emulated time."""
    rounds: Count | None = None
    """Rounds, of whom the beginning was counted."""
    bytes: PositiveSize | None = None
    """Sent by all nodes together meanwhile."""

    @model_validator(mode="after")
    def _one(self) -> Span:
        self._one_of("time", "rounds", "bytes")
        return self


class After(Section):
    """Another event's beginning or end."""

    event: str
    """The other event's id."""
    state: Literal["active", "recovered"] = "active"
    """Which of its states."""
    delay: Duration = Duration(0)
    """How long after that."""


class When(Section):
    """A condition on what is measured."""

    metric: str
    """Its mean over the honest nodes: accuracy, loss, or what the protocol reports."""
    at_least: Number | Ratio | None = Field(default=None, alias=">=")
    """It is at least this."""
    at_most: Number | Ratio | None = Field(default=None, alias="<=")
    """It is at most this."""
    hold: Count = 1
    """In that many evaluations in a row."""

    @model_validator(mode="after")
    def _one(self) -> When:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give exactly one of '>=', '<='")
        return self

    @model_serializer(mode="wrap")
    def _without_gaps(self, handler: Any) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}

    def met(self, value: float) -> bool:
        """Whether a value meets it."""
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is not None and value <= self.at_most


def _read_period(value: object) -> object:
    return _short({"rounds": value} if type(value) is int else value)


def _read_on(value: object) -> tuple[int | str, ...]:
    items = tuple(value) if isinstance(value, list | tuple) else (value,)
    for item in items:
        if isinstance(item, bool) or not isinstance(item, int | str):
            raise ValueError(f"write nodes, links or a choice such as 'random(20%)'; got {item!r}")
    if not items:
        raise ValueError("name at least one target")
    return items


On = Annotated[
    tuple[int | str, ...],
    PlainValidator(_read_on),
    PlainSerializer(list),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": ["string", "integer"]},
                {"type": "array", "items": {"type": ["string", "integer"]}, "minItems": 1},
            ]
        }
    ),
]

MomentOrTime = Annotated[Moment, BeforeValidator(_short)]
SpanOrTime = Annotated[Span, BeforeValidator(_short)]


class FaultEvent(Section):
    """Something that is broken on purpose."""

    id: Annotated[str, AfterValidator(_event_name)]
    """The event's name, in records, checks and figures."""
    fault: Annotated[
        Fault,
        PlainSerializer(lambda fault: fault.kind),
        WithJsonSchema({FAMILY_MARK: "faults"}),
    ]
    """Which fault."""
    with_: Annotated[dict[str, Any], Field(alias="with")] = Field(default={})
    """The fault's own parameters."""
    on: On | None = None
    """Nodes or links that are hit: numbers, ranges, groups, '0->1', '0<->1', 'all', 'random(20%)',
    'random(2)', 'hub', 'leaf', 'minority', 'majority', 'minority_third', 'byzantine', 'honest',
    'cutset' (links), 'except(...)'."""
    at: MomentOrTime | None = None
    """When it begins; at the start if no moment is given."""
    from_: MomentOrTime | None = Field(default=None, alias="from")
    """When it begins; with 'to'."""
    to: MomentOrTime | None = None
    """When it ends; of what happens again and again, when that ends."""
    for_: SpanOrTime | None = Field(default=None, alias="for")
    """How long it lasts; to the end of the run if left out."""
    every: Annotated[Span, BeforeValidator(_read_period)] | None = None
    """It begins again and again, so far apart."""
    times: Count | None = None
    """How often it begins, with 'every'."""
    after: After | None = None
    """It begins after another event."""
    when: When | None = None
    """It begins when something is measured."""
    resample: Flag = False
    """Whether a random choice of targets is drawn anew each time, with 'every'."""

    @model_validator(mode="before")
    @classmethod
    def _build(cls, data: Any) -> Any:
        """Make the fault from its name and parameters."""
        if not isinstance(data, Mapping) or isinstance(data.get("fault"), Fault):
            return data
        name, given = data.get("fault"), data.get("with", data.get("with_")) or {}
        if name is None:
            return data
        try:
            if not isinstance(given, Mapping):
                raise ConfigError(f"expected the fault's parameters, got {given!r}", ("with",))
            if not isinstance(name, str):
                raise ConfigError(f"expected a fault's name, got {name!r}", ("kind",))
            fault = Fault.parse({**given, "kind": name})
        except ConfigError as error:
            path = ("fault",) if error.path == ("kind",) else ("with", *error.path)
            path = error.path if error.path[:1] == ("with",) else path
            raise as_pydantic(ConfigError(error.message, path)) from error
        parameters = {key: value for key, value in fault.config().items() if key != "kind"}
        rest = {key: value for key, value in data.items() if key not in ("with", "with_")}
        return rest | {"fault": fault, "with": parameters}

    @model_validator(mode="after")
    def _consistent(self) -> FaultEvent:
        beginnings = {"at": self.at, "from": self.from_, "after": self.after, "when": self.when}
        given = [name for name, value in beginnings.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"it begins once: give only one of {', '.join(given)}")
        if self.to is not None and self.from_ is None:
            raise ValueError("'to' goes with 'from'")
        if self.to is not None and self.for_ is not None and self.every is None:
            raise ValueError("give 'to' or 'for', not both")
        if self.every is None and (self.times is not None or self.resample):
            raise ValueError("'times' and 'resample' go with 'every'")
        if self.every is not None and self.every.bytes is not None:
            raise ValueError("'every' is a time or a number of rounds")
        return self

    @property
    def lasts_s(self) -> float | None:
        """How long it lasts; None where that is no time."""
        if self.for_ is not None:
            return None if self.for_.time is None else float(self.for_.time)
        start, end = self.from_, self.to
        if start is None or end is None or self.every is not None:
            return None
        return float(end.time - start.time) if start.time is not None and end.time else None

    @field_validator("for_")
    @classmethod
    def _lasts(cls, span: Span | None, info: Any) -> Span | None:
        fault = info.data.get("fault")
        if span is not None and fault is not None and not fault.lasting:
            raise ValueError(f"'{fault.kind}' has no duration")
        return span

    @model_serializer(mode="wrap")
    def _without_gaps(self, handler: Any) -> dict[str, Any]:
        return {
            key: value
            for key, value in handler(self).items()
            if value is not None and not (key in ("with", "with_") and not value)
        }
