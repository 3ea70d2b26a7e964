"""Quantities in words that people read."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tidings_coordinator.terminal import size_text

NOTHING = "—"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power_of_ten(exponent: int) -> str:
    """'10⁻³'."""
    return "10" + str(exponent).translate(_SUPERSCRIPT)


def known(value: object) -> bool:
    """Whether this is a number that says something."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(float(value))
    )


def number(value: float | None, digits: int = 4) -> str:
    """Significant digits without an exponent where that stays readable."""
    if value is None or not known(value):
        return NOTHING
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if -4 <= magnitude < 6:
        # 0.1000 says no more than 0.1
        text = f"{value:,.{max(0, digits - 1 - magnitude)}f}"
        return signed(text.rstrip("0").rstrip(".") if "." in text else text)
    return signed(f"{value / 10.0**magnitude:.{digits - 1}f}×{power_of_ten(magnitude)}")


def signed(text: str) -> str:
    """With a minus sign in place of a hyphen."""
    return text.replace("-", "−", 1) if text.startswith("-") else text


def count(value: float | None) -> str:
    """A number of things: '12,345'; averages keep one decimal."""
    if value is None or not known(value):
        return NOTHING
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def percent(ratio: float | None, decimals: int = 1) -> str:
    """A ratio of one: '90.0 %'."""
    return f"{100 * ratio:.{decimals}f} %" if ratio is not None and known(ratio) else NOTHING


def error(ratio: float | None) -> str:
    """A relative error with its sign: '+0.15 %'."""
    return signed(f"{100 * ratio:+.2f} %") if ratio is not None and known(ratio) else NOTHING


def size(size_bytes: float | None) -> str:
    """'488.6 MB'; more than the terminal's units where it has to be."""
    if size_bytes is None or not known(size_bytes):
        return NOTHING
    if size_bytes >= 1e12:
        return f"{size_bytes / 1e12:,.1f} TB"
    return size_text(size_bytes)


def rate(bit_per_s: float | None) -> str:
    """'20.03 Mbit/s'."""
    if bit_per_s is None or not known(bit_per_s):
        return NOTHING
    for factor, unit in ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")):
        if bit_per_s >= factor:
            return f"{number(bit_per_s / factor)} {unit}"
    return f"{number(bit_per_s)} bit/s"


def seconds(span_s: float | None) -> str:
    """'41.1 ms', '18.0 s', '2 min 5 s', '3 h 12 min'."""
    if span_s is None or not known(span_s):
        return NOTHING
    size_s = abs(span_s)
    if 0 < size_s < 1e-3:
        return f"{number(1e6 * span_s, 3)} µs"
    if 0 < size_s < 1:
        return f"{number(1e3 * span_s, 3)} ms"
    if size_s < 120:
        return f"{number(span_s, 3)} s"
    minutes, rest = divmod(round(span_s), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def metric(name: str, value: float | None) -> str:
    """A metric's value as it is usually given: accuracy in percent."""
    return percent(value) if name == "accuracy" else number(value)


def few(things: Sequence[object], most: int = 8) -> str:
    """'3, 4, 7'; of many the first ones."""
    return ", ".join(map(str, things[:most])) + (", ..." if len(things) > most else "")


def plural(many: int, one: str, several: str | None = None) -> str:
    """'1 node', '8 nodes'."""
    return f"{many:,} {one if many == 1 else several or one + 's'}"
