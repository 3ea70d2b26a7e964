"""``trace.json``: the run in the Trace Event Format, for Perfetto and chrome://tracing.

Google, "Trace Event Format", 2016: complete events (ph X), async events (b, e), instant events (i)
and metadata (M); times in microseconds. Here of emulated time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tidings_coordinator.records.directory import write_whole
from tidings_coordinator.records.reading import Run, read
from tidings_coordinator.records.timeline import timelines
from tidings_coordinator.records.windows import INSTANT, windows

#: the processes that the viewer shows: nodes are threads of the first
_NODES, _FAULTS = 1, 2
#: events of the log that are shown; messages that arrived are too many
_MAX_EVENTS = 10_000


def write_trace(directory: Path, out: Path | None = None) -> Path | None:
    """Write a run's trace.json, into its directory or to ``out``; None where there is no timeline.

    UserError where the directory is no run, RecordError where the file cannot be written.
    """
    run = read(directory)
    events = list(trace_events(run))
    if not any(event["ph"] == "X" for event in events):
        return None
    path = out or directory / "trace.json"
    data = {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"run": run.name}}
    write_whole(path, json.dumps(data, separators=(",", ":")) + "\n")
    return path


def trace_events(run: Run) -> Iterator[dict[str, Any]]:
    """What nodes did, what happened, and when faults held."""
    yield _named("process_name", _NODES, 0, f"{run.name}: nodes")
    for node, spans in timelines(run).items():
        byzantine = " (Byzantine)" if node in run.byzantine else ""
        yield _named("thread_name", _NODES, node, f"node {node}{byzantine}")
        for span in spans:
            computing, sending = span.shares()
            shares = {"computing": round(computing, 4), "sending": round(sending, 4)}
            yield {
                "ph": "X",
                "pid": _NODES,
                "tid": node,
                "ts": span.from_us,
                "dur": span.to_us - span.from_us,
                "name": span.state or "several",
                "cat": "node",
            } | ({} if span.state else {"args": shares})
    shown = [event for event in run.events if event["event"] != "received"]
    for event in shown[:_MAX_EVENTS]:
        about = event.get("node")
        yield {
            "ph": "i",
            "pid": _NODES,
            "tid": about or 0,
            "ts": _us(event["time_s"]),
            "name": event["event"],
            "cat": "event",
            "s": "p" if about is None else "t",
        }
    yield from _faults(run)


def _faults(run: Run) -> Iterator[dict[str, Any]]:
    held = [window for window in windows(run.faults) if window.start_s is not None]
    if held:
        yield _named("process_name", _FAULTS, 0, f"{run.name}: faults")
    end_s = float((run.result or {}).get("time_s") or (run.last.time_s if run.last else 0.0))
    for number, window in enumerate(held):
        common = {"pid": _FAULTS, "tid": 0, "cat": "fault", "name": window.event}
        start_us = _us(window.start_s)
        args = {"fault": window.fault, "on": list(window.targets), "asked": window.asked}
        if window.fault in INSTANT:
            yield common | {"ph": "i", "ts": start_us, "s": "g", "args": args}
            continue
        stop_us = max(start_us, _us(end_s if window.end_s is None else window.end_s))
        yield common | {"ph": "b", "id": number, "ts": start_us, "args": args}
        yield common | {"ph": "e", "id": number, "ts": stop_us}


def _named(what: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": process, "tid": thread, "name": what, "args": {"name": name}}


def _us(time_s: float | None) -> int:
    return round(1e6 * (time_s or 0.0))
