"""A run in the terminal: a live table on a TTY, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tidings_coordinator.control.watch import RunView, Watcher
from tidings_coordinator.judging import told

#: seconds between two plain lines
_LINE_S = 2.0
#: nodes shown one by one; beyond, only how many are in which state
_MAX_ROWS = 16


def watcher(quiet: bool = False) -> Watcher:
    """What fits where standard error goes."""
    if quiet:
        return Watcher()
    return LiveWatcher() if sys.stderr.isatty() else LineWatcher()


class LineWatcher(Watcher):
    """A line every two seconds, and one for every new phase."""

    def __init__(self) -> None:
        self._phase = ""
        self._next = 0.0

    def show(self, view: RunView) -> None:
        now = time.monotonic()
        if view.phase == self._phase and now < self._next:
            return
        self._phase, self._next = view.phase, now + _LINE_S
        self.say(_headline(view))

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class LiveWatcher(Watcher):
    """A table that is drawn over."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)
        self._live.start()

    def show(self, view: RunView) -> None:
        self._live.update(_table(view))

    def say(self, text: str) -> None:
        self._console.print(text, style="yellow", highlight=False, markup=False)

    def close(self) -> None:
        self._live.stop()


def _headline(view: RunView) -> str:
    rounds = f"{view.round}" + (f"/{view.target_rounds}" if view.target_rounds else "")
    parts = [f"{view.name}: {view.phase}", f"{view.time_s:7.1f} s", f"round {rounds}"]
    accuracy, loss = view.mean("accuracy"), view.mean("loss")
    if accuracy is not None:
        parts.append(f"accuracy {accuracy:.3f}")
    if loss is not None:
        parts.append(f"loss {loss:.4g}")
    parts.append(f"{size_text(view.sent_bytes)} sent")
    states = Counter(node.state for node in view.nodes.values())
    parts.append(", ".join(f"{count} {state}" for state, count in sorted(states.items())))
    return "  ".join(parts)


def _table(view: RunView) -> Table:
    table = Table(title=_headline(view), title_justify="left", title_style="bold")
    for heading in ("node", "state", "round", "sent", "accuracy", "loss"):
        table.add_column(heading, justify="right" if heading != "state" else "left")
    for number, node in list(view.nodes.items())[:_MAX_ROWS]:
        table.add_row(
            str(number) + ("" if number in view.honest else " (Byzantine)"),
            node.state,
            str(node.round),
            size_text(node.sent_bytes),
            "" if node.accuracy is None else f"{node.accuracy:.3f}",
            "" if node.loss is None else f"{node.loss:.4g}",
        )
    if len(view.nodes) > _MAX_ROWS:
        table.add_row("...", f"and {len(view.nodes) - _MAX_ROWS} more", "", "", "", "")
    return table


def summary(found: Mapping[str, Any]) -> None:
    """Print what a run came to, from its result."""
    reason = f" ({found['reason']})" if found["reason"] else ""
    print(f"run {found['run']}{reason}; network {_network(found)}")
    parts = [f"{found['rounds']:g} rounds", f"{found['time_s']:.1f} s"]
    parts += [f"{size_text(found['bytes']['total'])} in {found['messages']} messages"]
    if found["accuracy"] is not None:
        parts.append(f"accuracy {100 * found['accuracy']:.1f} %")
    if found["loss"] is not None:
        parts.append(f"loss {found['loss']:.4g}")
    print(", ".join(parts))
    for line in told(found["expect"]):
        print(line)
    if found["to_target"] is not None:
        cost = found["to_target"]
        print(
            f"to target {found['target']}: {size_text(cost['bytes'])}, {cost['time_s']:.1f} s, "
            f"{cost['rounds']:g} rounds"
        )


def _network(found: Mapping[str, Any]) -> str:
    texts = {"pass": "as asked for", "fail": "NOT as asked for", "unknown": "not measured"}
    problems = found["fidelity"]["problems"]
    return texts[found["fidelity"]["verdict"]] + (": " + "; ".join(problems) if problems else "")


def size_text(size_bytes: float) -> str:
    """Bytes for people: '12.3 MB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000 or unit == "GB":
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    raise AssertionError("unreachable")
