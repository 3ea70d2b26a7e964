"""Colours by name, for paper and for dark screens.

Figures are drawn in the light colours; in the page each is replaced by the CSS variable of its
name, so that one drawing serves both.
"""

from __future__ import annotations

import re

#: name -> (light, dark); all light values differ, because they are how a colour is recognised
_COLORS = {
    "paper": ("#ffffff", "#15181b"),
    "ink": ("#1b1e22", "#e3e6e9"),
    "muted": ("#646c76", "#98a1ab"),
    "rule": ("#dce0e5", "#343a41"),
    "wash": ("#f6f7f9", "#1c2024"),
    "good": ("#1c7447", "#6cc394"),
    "warn": ("#8a5a00", "#e3b34f"),
    "bad": ("#b3261e", "#f28b82"),
    "bad-wash": ("#fdf0ee", "#33201e"),
    "warn-wash": ("#fdf6e7", "#2e2718"),
    "s0": ("#1f5f9e", "#76b4ec"),
    "s1": ("#c4501b", "#f2925f"),
    "s2": ("#1a7f60", "#62cba6"),
    "s3": ("#84509c", "#c89bdb"),
    "s4": ("#a97708", "#e0b84c"),
    "s5": ("#2891aa", "#70d0e2"),
    "s6": ("#ab2f5f", "#ee84a8"),
    "s7": ("#5e6b2d", "#b4c27a"),
}

#: how many series have a colour of their own
SERIES = 8

INK = _COLORS["ink"][0]
MUTED = _COLORS["muted"][0]
RULE = _COLORS["rule"][0]
PAPER = _COLORS["paper"][0]


def series(number: int) -> str:
    """The colour of a series; there are eight, then they come again."""
    return _COLORS[series_name(number)][0]


def series_name(number: int) -> str:
    """The same, as the name of the page's variable."""
    return f"s{number % SERIES}"


def css() -> str:
    """The variables, light by default, dark on screens that ask for it, never on paper."""

    def block(side: int) -> str:
        return ";".join(f"--{name}:{pair[side]}" for name, pair in _COLORS.items())

    return (
        f":root{{{block(0)}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{block(1)}}}}}\n"
    )


def by_name(svg: str) -> str:
    """The drawing with variables in place of the colours that are known here."""
    names = {light: name for name, (light, _) in _COLORS.items()}

    def named(found: re.Match[str]) -> str:
        name = names.get(found[0])
        return f"var(--{name})" if name else found[0]

    return re.sub(r"#[0-9a-f]{6}\b", named, svg)
