"""The run directory: appended to while the run goes on, never rewritten, readable at any moment.

::

    experiment.yaml    as it was given            events.jsonl   what happened, in order
    resolved.yaml      with every default         series.jsonl   one row per node and evaluation
    environment.json   versions, host, git        fidelity.json  the network asked for and achieved
    graph.json         who talks to whom          links.jsonl    every directed link at the end
    result.json        verdict and totals         nodes.jsonl    every node at the end
    report.html        all of it to look at       faults.jsonl   every fault's coming and going
    trace.json         for Perfetto               timeline.jsonl who computed, sent, waited when
    logs/              what the node processes wrote

A line of ``timeline.jsonl`` has a node's spans one after the other from ``from_us`` on, in
microseconds of emulated time, each as [length, of it computing, of it held up in sending]; what is
left of a span is waiting.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import fcntl
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from tidings.errors import RecordError, UserError
from tidings.v1 import records_pb2 as records

_PACKAGES = (
    "tidings",
    "torch",
    "numpy",
    "grpcio",
    "protobuf",
    "pydantic",
    "networkx",
    "cryptography",
)


class RunDirectory:
    """Writes one run. Every line is on disk when its method returns.

    RecordError for anything that cannot be written, with the system's reason.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[str, TextIO] = {}
        self._lock: int | None = None
        #: by file, what stands there already and is not written again; None: nothing is looked up
        self._known: dict[str, set[str]] | None = None
        #: called with the file's name and the line, for every line that has been written
        self.listeners: list[Callable[[str, Mapping[str, Any]], None]] = []

    @classmethod
    def create(cls, path: Path) -> Self:
        """A new directory; UserError where it exists and is not empty, or cannot be made."""
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise UserError(f"{path} is not empty; choose another --out")
            (path / "logs").mkdir()
        except OSError as error:
            raise UserError(f"cannot make the run directory {path}: {error.strerror}") from error
        directory = cls(path)
        directory._claim()
        return directory

    @classmethod
    def reopen(cls, path: Path) -> Self:
        """A directory to go on in; UserError where a run is going on in it.

        Lines that were cut off in the middle are taken away, so that others can follow.
        """
        directory = cls(path)
        directory._claim()
        for file in path.glob("*.jsonl"):
            os.truncate(file, file.read_bytes().rfind(b"\n") + 1)
        return directory

    @classmethod
    def adopt(cls, path: Path) -> Self:
        """As reopen, for a run that has gone on: what nodes say again is not written twice."""
        directory = cls.reopen(path)
        directory._known = {
            file.stem: {_content(line) for line in read_lines(path, file.stem)}
            for file in path.glob("*.jsonl")
        }
        return directory

    @property
    def lengths(self) -> dict[str, int]:
        """How many lines the files have."""
        names = sorted(file.stem for file in self.path.glob("*.jsonl"))
        return {name: sum(1 for _ in read_lines(self.path, name)) for name in names}

    def _claim(self) -> None:
        """Nobody else may write here, as long as this process lives."""
        self._lock = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._unlock()
            raise UserError(f"a run is going on in {self.path}") from None

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; the directory is complete."""
        for file in self._files.values():
            try:
                file.close()
            except OSError:
                # a full disk was reported when the line was written
                continue
        self._files.clear()
        self._unlock()

    # -- writing ---------------------------------------------------------------------------------

    def write(self, name: str, text: str) -> None:
        """A whole file."""
        write_whole(self.path / name, text)

    def write_json(self, name: str, data: object) -> None:
        """A JSON file; infinities and NaN become null, which JSON has."""
        self.write(name, json.dumps(_finite(data), indent=1) + "\n")

    def append(self, name: str, line: Mapping[str, object]) -> bool:
        """A line of ``name``.jsonl; whether it was not there yet."""
        if self._known is not None and _content(line) in self._known.get(name, ()):
            return False
        try:
            if name not in self._files:
                self._files[name] = (self.path / f"{name}.jsonl").open("a", encoding="utf-8")
            self._files[name].write(json.dumps(_finite(line), separators=(",", ":")) + "\n")
            self._files[name].flush()
        except OSError as error:
            raise _failure(self.path / f"{name}.jsonl", error) from error
        for listener in self.listeners:
            listener(name, line)
        return True

    def event(self, name: str, time_s: float, node: int | None = None, **fields: object) -> None:
        """Something happened, at an emulated time."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        line = {"time_s": round(time_s, 6), "utc": now, "node": node, "event": name}
        self.append("events", line | fields)

    def evaluation(self, row: records.Evaluation) -> bool:
        """A node was evaluated; whether that was not known yet."""
        return self.append("series", evaluation_line(row))

    def activity(self, activity: records.Activity) -> None:
        """What a node did in a stretch of time."""
        lengths = activity.length_us, activity.computing_us, activity.sending_us
        spans = [list(span) for span in zip(*lengths, strict=True)]
        line = {"node": activity.node, "from_us": activity.from_us, "spans": spans}
        self.append("timeline", line)

    def final(self, final: records.Final) -> None:
        """A node's closing record, and its links."""
        for link in final.links:
            self.append("links", link_line(link))
        self.append(
            "nodes",
            {
                "node": final.node,
                "weights_sha256": final.weights_sha256.hex(),
                "received": bytes_line(final.reception.bytes),
                "messages_received": final.reception.messages,
                "arrivals": {
                    str(link.source): {
                        "bytes": link.bytes,
                        "messages": link.messages,
                        "refused": {
                            "messages": link.refused.messages,
                            "bytes": link.refused.bytes,
                        },
                    }
                    for link in final.reception.links
                },
                "refused": dict(final.reception.refused),
                "gradients": final.gradients,
                "compute_s": final.compute_s,
                "counters": dict(final.counters),
            },
        )


def _content(line: Mapping[str, object]) -> str:
    """A line but for when it was written."""
    return json.dumps(_finite({k: v for k, v in line.items() if k != "utc"}), sort_keys=True)


def write_whole(path: Path, text: str) -> None:
    """Write a file beside and move it into place: it is there whole or not at all.

    RecordError where that cannot be done.
    """
    beside = path.with_name(path.name + ".part")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise _failure(path, error) from error


def _failure(path: Path, error: OSError) -> RecordError:
    return RecordError(f"cannot write {path}: {error.strerror}")


# -- reading ---------------------------------------------------------------------------------------


def read_lines(path: Path, name: str) -> Iterator[dict[str, Any]]:
    """The lines of ``name``.jsonl; a last line that was cut off by a crash is left out."""
    file = path / f"{name}.jsonl"
    if not file.exists():
        return
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return


def read_json(path: Path, name: str) -> dict[str, Any] | None:
    """A JSON file of the run; None where it is missing or broken."""
    try:
        found = json.loads((path / name).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    return found if isinstance(found, dict) else None


# -- lines -----------------------------------------------------------------------------------------


def bytes_line(counts: records.Bytes) -> dict[str, int]:
    """Bytes by kind, with their total."""
    kinds = {
        "payload": counts.payload,
        "metadata": counts.metadata,
        "header": counts.header,
        "control": counts.control,
        "heartbeat": counts.heartbeat,
    }
    return {"total": sum(kinds.values())} | kinds


def evaluation_line(row: records.Evaluation) -> dict[str, object]:
    """A row of the series."""
    return {
        "node": row.node,
        "round": row.round,
        "time_s": round(row.time_s, 6),
        "bytes": bytes_line(row.bytes),
        "messages": row.messages,
        "metrics": dict(sorted(row.metrics.items())),
        "sketch": base64.b64encode(row.sketch).decode(),
        "final": row.final,
    }


def link_line(link: records.LinkRecord) -> dict[str, object]:
    """A directed link at the end of the run."""
    known = link.HasField("in_flight")
    way = {"messages": link.in_flight.messages, "bytes": link.in_flight.bytes}
    return {
        "source": link.source,
        "target": link.target,
        "bytes": bytes_line(link.bytes),
        "messages": link.messages,
        "lost": {"messages": link.lost_messages, "bytes": link.lost_bytes},
        "faulted": {
            event: {"messages": count.messages, "bytes": count.bytes}
            for event, count in sorted(link.faulted.items())
        },
        "duplicated": {"messages": link.duplicated.messages, "bytes": link.duplicated.bytes},
        "undeliverable": {
            "messages": link.undeliverable_messages,
            "bytes": link.undeliverable_bytes,
        },
        **({"in_flight": way} if known else {}),
        "reconnects": link.reconnects,
        "lag_s": {
            "count": link.lag.count,
            "p50": link.lag.p50_ns / 1e9,
            "p99": link.lag.p99_ns / 1e9,
            "max": link.lag.max_ns / 1e9,
        },
        "blocked_s": link.blocked_s,
    }


def _finite(data: Any) -> Any:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return data


# -- environment -----------------------------------------------------------------------------------


def environment(directory: Path) -> dict[str, object]:
    """What the run ran on: versions, host, and the git state of the experiment's directory."""
    return {
        "packages": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "cpus": os.cpu_count(),
        "argv": sys.argv,
        "git": _git(directory),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(directory: Path) -> dict[str, object] | None:
    def ask(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
        return done.stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
