"""The lower sections of a run's page in words and tables: bytes, fidelity, events, environment."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidings_coordinator.records.reading import KINDS, Row, Run
from tidings_coordinator.report import wording
from tidings_coordinator.report.render import Table

#: events shown: of more, the first and the last
_FIRST_EVENTS, _LAST_EVENTS = 80, 20
_KIND_WORDS = {
    "payload": "model values",
    "metadata": "indices, scales and shapes",
    "header": "addressing and framing",
    "control": "protocol messages without a model",
    "heartbeat": "signs of life between neighbours",
}


# -- bytes -------------------------------------------------------------------------------------


def byte_shares(run: Run) -> list[tuple[str, float]]:
    """Kinds of bytes with their shares in percent; empty where nothing was sent."""
    sums = {kind: sum(node[kind] for node in run.sent().values()) for kind in KINDS}
    total = sum(sums.values())
    return [(kind, 100 * sums[kind] / total) for kind in KINDS] if total else []


def byte_table(run: Run) -> Table:
    """Bytes by kind: together, and per node."""
    sent = run.sent()
    total = sum(node["total"] for node in sent.values())
    rows = []
    for kind in (*KINDS, "total"):
        values = np.array([node[kind] for node in sent.values()], dtype=np.float64)
        share = values.sum() / total if total else None
        about = _KIND_WORDS.get(kind, "every byte that left a node")
        of_nodes = [wording.size(float(f(values))) for f in (np.min, np.mean, np.max)]
        rows.append([kind, about, wording.size(values.sum()), wording.percent(share, 2), *of_nodes])
    head = ["", "", "all nodes", "share", "least of a node", "mean", "most"]
    return Table(head, rows, left=2)


def byte_notes(run: Run) -> list[str]:
    """Lost, undeliverable, refused: what did not arrive, or was not used."""
    notes = []
    if not run.closed:
        text = "As of each node's last evaluation: not every node has left a closing record."
        return [text] if run.latest else []
    for what, meaning in (
        ("lost", "lost by the links, as asked"),
        ("undeliverable", "undeliverable: sent, but the other end was gone"),
    ):
        messages = sum(link[what]["messages"] for link in run.links)
        size = sum(link[what]["bytes"] for link in run.links)
        if messages:
            text = f"{wording.plural(messages, 'message')} ({wording.size(size)}) {meaning}"
            notes.append(text + ". They count as sent.")
    if not notes:
        notes.append("No message was lost or undeliverable.")
    if reconnects := sum(link["reconnects"] for link in run.links):
        notes.append(f"{wording.plural(reconnects, 'reconnection')} of links.")
    if plane := (run.result or {}).get("control_plane_bytes"):
        notes.append(
            f"Between coordinator and nodes: {wording.size(plane)}, in none of these numbers."
        )
    return notes


def counted(run: Run, what: str) -> Table | None:
    """Sums over nodes of what each counted by name: messages refused, outcomes of exchanges."""
    sums: Counter[str] = Counter()
    busiest: dict[str, tuple[int, int]] = {}
    for node in run.nodes:
        for name, many in node[what].items():
            sums[name] += many
            busiest[name] = max(busiest.get(name, (0, 0)), (many, node["node"]))
    rows = [
        [name.replace("_", " "), wording.count(many), f"{busiest[name][0]:,} on {busiest[name][1]}"]
        for name, many in sums.most_common()
        if many
    ]
    head = ["reason" if what == "refused" else "", "all nodes", "most on node"]
    return Table(head, rows) if rows else None


# -- fidelity ----------------------------------------------------------------------------------


def fidelity_table(run: Run) -> Table | None:
    """Asked and achieved of every probed class of links."""
    probes: Sequence[Row] = (run.fidelity or {}).get("probes") or ()
    rows = []
    for probe in probes:
        others = probe["links_alike"] - 1
        alike = f" and {wording.plural(others, 'link')} like it" if others else ""
        unlimited = probe["rate_asked_bit_per_s"] is None
        rows.append(
            [
                f"{probe['source']} → {probe['target']}{alike}",
                "unlimited" if unlimited else wording.rate(probe["rate_asked_bit_per_s"]),
                wording.rate(probe["rate_achieved_bit_per_s"]),
                wording.error(probe["rate_error"]),
                wording.seconds(probe["round_trip_asked_s"]),
                wording.seconds(probe["round_trip_achieved_s"]),
                wording.signed(wording.seconds(probe["delay_error_s"])),
                "yes" if probe["within_tolerance"] else "NO" + f" {probe['error']}".rstrip(),
            ]
        )
    head = ["links", "rate asked", "achieved", "error", "round trip asked", "achieved"]
    return Table([*head, "one-way error", "within tolerance"], rows) if rows else None


def fidelity_notes(run: Run) -> list[str]:
    """Lag and loss during the run."""
    found = run.fidelity or {}
    if run.simulated or not found:
        return []
    notes = []
    tolerance = found.get("tolerance")
    if tolerance:
        rate, delay = wording.percent(tolerance["rate"], 0), wording.seconds(tolerance["delay_s"])
        notes.append(f"Tolerance: {rate} of the rate, {delay} of the one-way delay.")
    if wording.known(found.get("lag_p50_s")) and run.links:
        p50, p99 = wording.seconds(found["lag_p50_s"]), wording.seconds(found["lag_p99_s"])
        notes.append(
            f"During the run, on the worst link, half of the chunks came at most {p50} after the "
            f"model's time; no link's 99th percentile is above {p99}."
        )
    if loss := found.get("loss"):
        notes.append(
            f"Loss: {loss['lost']:,} of {loss['messages']:,} messages; "
            f"{wording.number(loss['expected'])} were to be expected "
            f"({wording.number(loss['surprise'], 2)} standard deviations off)."
        )
    return notes


# -- events, environment -----------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """A line of the log; ``long`` is text that is folded away."""

    time: str
    node: str
    name: str
    text: str
    long: str = ""


def events(run: Run) -> tuple[list[Event], str, list[Event]]:
    """The first events, what was left out, and the last ones."""
    found = [_event(row) for row in run.events]
    if len(found) <= _FIRST_EVENTS + _LAST_EVENTS:
        return found, "", []
    hidden = Counter(event.name for event in found[_FIRST_EVENTS:-_LAST_EVENTS])
    kinds = ", ".join(f"{name} {many:,}" for name, many in hidden.most_common(8))
    text = f"{hidden.total():,} more in events.jsonl: {kinds}"
    return found[:_FIRST_EVENTS], text, found[-_LAST_EVENTS:]


def _event(row: Row) -> Event:
    shown, long = [], []
    fields = {key: row[key] for key in row if key not in ("time_s", "utc", "node", "event")}
    if isinstance(packed := fields.get("fields"), str):
        try:
            unpacked = json.loads(packed)
        except json.JSONDecodeError:
            unpacked = None
        if isinstance(unpacked, dict):
            fields = {key: fields[key] for key in fields if key != "fields"} | unpacked
    for key, value in fields.items():
        text = value if isinstance(value, str) else json.dumps(value)
        if "\n" in text or len(text) > 160:
            long.append(f"{key}:\n{text}")
        elif value is not None:
            shown.append(f"{key} {text}")
    node = "" if row.get("node") is None else str(row["node"])
    time_s = row.get("time_s")
    time = f"{time_s:,.3f}" if time_s is not None and wording.known(time_s) else wording.NOTHING
    return Event(time, node, str(row.get("event", "")), ", ".join(shown), "\n\n".join(long))


def environment(run: Run) -> list[tuple[str, str]]:
    """Versions, host and git state."""
    found = run.environment
    first = ("host", "platform", "cpus", "python")
    rows: list[tuple[str, str]] = [(key, str(found[key])) for key in first if key in found]
    packages = found.get("packages") or {}
    rows += [(str(name), str(version)) for name, version in packages.items() if version]
    if git := found.get("git"):
        dirty = ", with changes that are not committed" if git.get("dirty") else ""
        rows.append(("git", f"{str(git.get('commit'))[:12]}{dirty}"))
    if argv := found.get("argv"):
        rows.append(("command", shlex.join(str(word) for word in argv)))
    if result := run.result:
        rows += [
            (key.replace("_", " "), str(result[key]))
            for key in ("run_id", "trace_hash")
            if result.get(key)
        ]
    return rows
