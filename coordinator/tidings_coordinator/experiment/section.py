"""What all parts of the experiment file share: the base model and the types of its values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StrictInt,
    ValidationError,
)
from pydantic_core import InitErrorDetails

from tidings.errors import ConfigError
from tidings.registry import as_pydantic
from tidings.units import Duration, Size


class Section(BaseModel):
    """A part of the file: read-only, no unknown keys; a field's docstring is its documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def _positive(value: Any) -> Any:
    if value <= 0:
        raise ValueError(f"must be above zero, got '{value}'")
    return value


def _count_or_duration(value: object) -> object:
    try:
        count = isinstance(value, int) and not isinstance(value, bool)
        found = value if count else Duration.parse(value)
    except ValueError:
        raise ValueError(
            f"write a number of rounds such as 10, or a time such as '5s'; got {value!r}"
        ) from None
    return _positive(found)


@dataclass(frozen=True)
class Words:
    """In the annotation of a parameter: its type, for the reference."""

    text: str


Flag = Annotated[bool, Strict()]
#: a whole number from 1 on
Count = Annotated[int, Strict(), Field(ge=1)]
#: a finite number
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
PositiveDuration = Annotated[Duration, AfterValidator(_positive)]
PositiveSize = Annotated[Size, AfterValidator(_positive)]
#: a number of rounds, or a time
Every = Annotated[StrictInt | Duration, BeforeValidator(_count_or_duration)]


def refuse(errors: list[ConfigError]) -> None:
    """Raise all of ``errors`` at once, for a validator; nothing where there are none."""
    if errors:
        details = [InitErrorDetails(type=as_pydantic(error), input=None) for error in errors]
        raise ValidationError.from_exception_data("experiment", details)
