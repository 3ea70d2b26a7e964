"""Quantities that carry their unit in the value: ``20Mbit/s``, ``15ms``, ``64KiB``, ``5%``.

Bare numbers for rates, times and sizes are refused, because they are wrong by a factor of 8 or 1000
sooner or later. Each quantity is a number in its base unit (bit/s, s, bytes, 1), parses from a
string with a unit, and prints as one that parses to the same value.
"""

from __future__ import annotations

import math
import re
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

NS_PER_S = 1_000_000_000

_NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+)\s*([^\s]*)\s*")

#: far beyond any run; without a bound, nanoseconds overflow
_LONGEST_S = 1e12


class Quantity(float):
    """Base of the unit-bearing numbers; subclasses say which units there are."""

    name: ClassVar[str]
    #: unit -> factor to the base unit
    units: ClassVar[dict[str, float]]
    #: spellings that are read but never printed
    aliases: ClassVar[dict[str, str]] = {}
    example: ClassVar[str]

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read ``value``; raises ValueError with a message that says what is expected."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, str):
            raise ValueError(f"{cls.name} needs a unit, for example '{cls.example}'; got {value!r}")
        found = _NUMBER.fullmatch(value)
        unit = cls.aliases.get(found[2], found[2]) if found else ""
        if found is None or unit not in cls.units:
            raise ValueError(
                f"'{value}' is not a {cls.name}; write for example '{cls.example}' "
                f"(units: {', '.join(cls.units)})"
            )
        quantity = cls(float(found[1]) * cls.units[unit])
        if not math.isfinite(quantity):
            raise ValueError(f"'{value}' is too large a {cls.name}")
        return quantity

    def __str__(self) -> str:
        """The shortest text that parses back to exactly this value."""
        base = next((unit for unit, factor in self.units.items() if factor == 1.0), "")
        texts = [
            f"{self / factor:.12g}{unit}"
            for unit, factor in sorted(self.units.items(), key=lambda item: -item[1])
            if abs(self) >= factor
        ]
        exact = [text for text in texts if self._reads_back(text)]
        return min(exact, key=len) if exact else f"{float(self)!r}".removesuffix(".0") + base

    def _reads_back(self, text: str) -> bool:
        try:
            return float(self.parse(text)) == float(self)
        except ValueError:
            return False

    def __repr__(self) -> str:
        return f"{type(self).__name__}('{self}')"

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "description": f"a {cls.name}", "examples": [cls.example]}


class Duration(Quantity):
    """A time span in seconds."""

    name = "duration"
    example = "20ms"
    units: ClassVar[dict[str, float]] = {
        "ns": 1e-9,
        "us": 1e-6,
        "ms": 1e-3,
        "s": 1.0,
        "min": 60.0,
        "h": 3600.0,
    }
    aliases: ClassVar[dict[str, str]] = {"µs": "us", "m": "min"}

    @classmethod
    def parse(cls, value: object) -> Self:
        duration = super().parse(value)
        if duration > _LONGEST_S:
            raise ValueError(f"'{value}' is too large a {cls.name}")
        return duration

    @property
    def ns(self) -> int:
        """The span in whole nanoseconds."""
        return round(self * NS_PER_S)


class Rate(Quantity):
    """A data rate in bit/s; ``unlimited`` is infinity."""

    name = "rate"
    example = "20Mbit/s"
    units: ClassVar[dict[str, float]] = {
        "bit/s": 1.0,
        "kbit/s": 1e3,
        "Mbit/s": 1e6,
        "Gbit/s": 1e9,
    }
    aliases: ClassVar[dict[str, str]] = {
        "bit": "bit/s",
        "kbit": "kbit/s",
        "Mbit": "Mbit/s",
        "Gbit": "Gbit/s",
    }

    @classmethod
    def parse(cls, value: object) -> Self:
        if value == "unlimited":
            return cls(math.inf)
        rate = super().parse(value)
        if rate <= 0:
            raise ValueError(f"a rate must be above zero, got '{value}' (or write 'unlimited')")
        return rate

    def __str__(self) -> str:
        return "unlimited" if math.isinf(self) else super().__str__()


class Size(Quantity):
    """A number of bytes."""

    name = "size"
    example = "64KiB"
    units: ClassVar[dict[str, float]] = {
        "B": 1.0,
        "KiB": 2.0**10,
        "MiB": 2.0**20,
        "GiB": 2.0**30,
    }
    #: decimal multiples are read as well
    _decimal: ClassVar[dict[str, float]] = {"kB": 1e3, "MB": 1e6, "GB": 1e9}

    @classmethod
    def parse(cls, value: object) -> Self:
        if isinstance(value, str):
            found = _NUMBER.fullmatch(value)
            if found and found[2] in cls._decimal:
                value = f"{float(found[1]) * cls._decimal[found[2]]!r}B"
        size = super().parse(value)
        if not float(size).is_integer():
            raise ValueError(f"a size is a whole number of bytes, got '{value}'")
        return size


class Ratio(Quantity):
    """A fraction of one: ``5%`` or ``0.05`` (a bare number is a ratio already)."""

    name = "ratio"
    example = "5%"
    units: ClassVar[dict[str, float]] = {"%": 0.01}

    @classmethod
    def parse(cls, value: object) -> Self:
        if isinstance(value, int | float) and not isinstance(value, bool):
            ratio = cls(value)
        elif isinstance(value, str) and _NUMBER.fullmatch(value) and not value.endswith("%"):
            ratio = cls(float(value))
        else:
            ratio = super().parse(value)
        if not 0 <= ratio <= 1:
            raise ValueError(f"a ratio lies between 0% and 100%, got '{value}'")
        return ratio

    def __str__(self) -> str:
        percent = f"{float(self) * 100:.12g}%"
        return percent if float(self.parse(percent)) == float(self) else repr(float(self))
