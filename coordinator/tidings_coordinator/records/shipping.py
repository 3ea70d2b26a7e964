"""A run directory and the view of a run as lines of text, for whoever reads a container's log.

A log is the one thing that can be read of any container, everywhere and by the same permission, so
the run directory travels as numbered lines of base64 (see docs/decisions)::

    tidings-view {"phase": "running", ...}       now and then
    tidings-kill {"node": 3, "comes_back": true} what the coordinator cannot do itself
    tidings-run 0/17 H4sIA...                    the directory, a .tar.gz, at the end
    tidings-run sha256 9f86d0...
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import tarfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tidings.errors import RecordError
from tidings_coordinator.control.watch import NodeView, RunView, Watcher

_VIEW, _RUN, _DIGEST, _KILL = "tidings-view ", "tidings-run ", "sha256 ", "tidings-kill "
#: per line, before base64; container runtimes break lines at 16 KiB
_CHUNK_BYTES = 6 << 10
#: wall seconds between two views, and how many nodes may be in one without making them rarer
_VIEW_S, _VIEW_NODES = 2.0, 16


@dataclass(frozen=True)
class Request:
    """A node is to be killed by whoever reads this."""

    node: int
    #: whether another process is to take its place, which then waits until it is let in
    comes_back: bool

    @property
    def line(self) -> str:
        """As it is written."""
        return _KILL + json.dumps(asdict(self))


def shipment(directory: Path) -> Iterator[str]:
    """The lines that carry a run directory."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(directory, arcname=".")
    data = packed.getvalue()
    total = -(-len(data) // _CHUNK_BYTES)
    for number in range(total):
        chunk = data[number * _CHUNK_BYTES : (number + 1) * _CHUNK_BYTES]
        yield f"{_RUN}{number}/{total} {base64.b64encode(chunk).decode()}"
    yield f"{_RUN}{_DIGEST}{hashlib.sha256(data).hexdigest()}"


class Collector:
    """Picks the run out of the lines of a log; lines may come twice and in any order."""

    def __init__(self) -> None:
        self._chunks: dict[int, bytes] = {}
        self._total: int | None = None
        self._digest: str | None = None
        #: what was asked for, and is to be taken out by who does it
        self.requests: list[Request] = []
        #: the latest view of the run
        self.view: RunView | None = None

    def feed(self, line: str) -> bool:
        """Take a line; whether it was for us."""
        if line.startswith(_VIEW):
            self.view = _parse_view(line.removeprefix(_VIEW))
            return True
        if line.startswith(_KILL):
            with contextlib.suppress(ValueError, TypeError):
                self.requests.append(Request(**json.loads(line.removeprefix(_KILL))))
            return True
        if not line.startswith(_RUN):
            return False
        rest = line.removeprefix(_RUN).strip()
        if rest.startswith(_DIGEST):
            self._digest = rest.removeprefix(_DIGEST)
            return True
        place, _, text = rest.partition(" ")
        number, _, total = place.partition("/")
        try:
            self._chunks[int(number)] = base64.b64decode(text, validate=True)
            self._total = int(total)
        except ValueError:
            # cut off where the container ended; it will be missing
            pass
        return True

    @property
    def complete(self) -> bool:
        """Whether the whole directory has come."""
        return self._digest is not None and len(self._chunks) == self._total

    def unpack(self, directory: Path) -> None:
        """Write the run directory; RecordError where it has not come whole."""
        if self._digest is None:
            raise RecordError("the coordinator's log holds no finished run")
        if not self.complete:
            raise RecordError(
                f"the coordinator's log holds {len(self._chunks)} of {self._total} parts of the run"
            )
        data = b"".join(self._chunks[number] for number in range(len(self._chunks)))
        if hashlib.sha256(data).hexdigest() != self._digest:
            raise RecordError("the run in the coordinator's log is damaged: wrong checksum")
        try:
            with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
                archive.extractall(directory, filter="data")
        except (OSError, tarfile.TarError) as error:
            raise RecordError(f"cannot unpack the run into {directory}: {error}") from error


class ShippedWatcher(Watcher):
    """Writes views of the run as lines; rarer for many nodes, so that the log stays small."""

    def __init__(self) -> None:
        self._phase = ""
        self._next = 0.0

    def show(self, view: RunView) -> None:
        now = time.monotonic()
        if view.phase == self._phase and now < self._next:
            return
        self._phase = view.phase
        self._next = now + _VIEW_S * max(1.0, len(view.nodes) / _VIEW_NODES)
        self.say(_VIEW + _view_text(view))

    def say(self, text: str) -> None:
        print(text, flush=True)


def _view_text(view: RunView) -> str:
    nodes = {
        number: [node.state, node.round, node.sent_bytes, node.accuracy, node.loss]
        for number, node in view.nodes.items()
    }
    return json.dumps(
        {
            "name": view.name,
            "phase": view.phase,
            "time_s": round(view.time_s, 3),
            "target_rounds": view.target_rounds,
            "honest": view.honest,
            "nodes": nodes,
        },
        separators=(",", ":"),
    )


def _parse_view(text: str) -> RunView | None:
    try:
        data = json.loads(text)
        data["nodes"] = {int(number): NodeView(*node) for number, node in data["nodes"].items()}
        data["honest"] = tuple(data["honest"])
        return RunView(**data)
    except (ValueError, TypeError, KeyError):
        return None
