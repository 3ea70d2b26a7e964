"""Pages from templates. Everything that was read is escaped; nothing outside is referred to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidings.errors import MissingExtra
from tidings_coordinator.report import palette

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Table:
    """Text in rows; the first ``left`` columns are words, the others numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1


def render(template: str, **values: Any) -> str:
    """A page; MissingExtra where its packages are not installed."""
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError:
        raise MissingExtra("the report", "report") from None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = palette.css() + (_TEMPLATES / "page.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(style=Markup(style), **values)
