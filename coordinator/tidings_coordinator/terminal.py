"""A run in the terminal: a live table on a TTY, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tidings_coordinator.control.watch import RunView, Watcher

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


def size_text(size_bytes: float) -> str:
    """Bytes for people: '12.3 MB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000 or unit == "GB":
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    raise AssertionError("unreachable")
