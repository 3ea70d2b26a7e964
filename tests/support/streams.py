"""Server-sent events as a browser would take them."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any


def events(url: str) -> Iterator[tuple[str, Any]]:
    """(kind, data) of each event, until the server ends the stream."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        kind = ""
        for line in answer:
            name, _, text = line.decode().rstrip("\n").partition(": ")
            if name == "event":
                kind = text
            elif name == "data":
                yield kind, json.loads(text)
