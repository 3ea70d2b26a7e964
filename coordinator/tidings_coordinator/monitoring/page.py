"""The live page: one document with everything in it; its script may talk to nobody but us."""

from __future__ import annotations

import base64
import hashlib
import html
from functools import cache
from pathlib import Path

from tidings_coordinator.report import palette

_HERE = Path(__file__).parent / "static"
_REPORT = Path(palette.__file__).parent / "templates"


@cache
def page(name: str) -> tuple[bytes, str]:
    """The page of an experiment, and the content security policy to serve it with."""
    script = (_HERE / "live.js").read_text(encoding="utf-8")
    style = palette.css() + (_REPORT / "page.css").read_text(encoding="utf-8")
    style += (_HERE / "live.css").read_text(encoding="utf-8")
    text = (_HERE / "live.html").read_text(encoding="utf-8")
    for mark, content in (
        ("{{ title }}", html.escape(name)),
        ("{{ style }}", style),
        ("{{ script }}", script),
    ):
        text = text.replace(mark, content)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return text.encode(), policy
