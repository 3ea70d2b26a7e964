"""What became of nodes."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Literal, Self

from tidings_coordinator.checks.base import Check, Judged, checks, unknown
from tidings_coordinator.experiment.selectors import ALL, Nodes, Resolver
from tidings_coordinator.records.reading import Run
from tidings_coordinator.records.windows import DOWN, LEFT, spans, windows
from tidings_coordinator.report import wording

State = Literal["finished", "dead", "left"]


@checks.register("final_state")
@dataclass(frozen=True, kw_only=True)
class FinalState(Check):
    """How nodes ended: ``{check: final_state, nodes: [3], is: dead}``.

    finished: handed in its closing record. dead: has none, and was killed by a fault or is known to
    have died. left: a fault had it leave, and it did not come back. Evidence: nodes.jsonl,
    faults.jsonl and the event "died". Unknown where a node has neither a closing record nor a known
    death.
    """

    #: which nodes, as elsewhere in the file
    nodes: Nodes = (ALL,)  # type: ignore[assignment]
    #: finished, dead or left
    is_: State = field(metadata={"key": "is"})
    #: of them only those that this fault event was active on
    hit_by: str | None = None
    #: of them only those that this fault event was never active on
    spared_by: str | None = None

    def resolved(self, resolver: Resolver, *path: str | int) -> Self:
        """The same with node names as numbers."""
        return dataclasses.replace(self, nodes=resolver.nodes(self.nodes, *path, "nodes"))

    @property
    def events(self) -> dict[str, str]:
        """Those that choose nodes."""
        given = {"hit_by": self.hit_by, "spared_by": self.spared_by}
        return {key: event for key, event in given.items() if event is not None}

    def judge(self, run: Run) -> Judged:
        """Whether all of them ended like that."""
        asked = {"is": self.is_, "nodes": list(self.nodes)}
        chosen = self._chosen(run)
        if not chosen:
            return unknown("no node is meant: the faults hit other nodes than was thought", asked)
        found = defaultdict(list)
        for node in chosen:
            found[state_of(run, node) or "unknown"].append(node)
        measured = dict(sorted(found.items()))
        text = ", ".join(f"{_listed(nodes)} {state}" for state, nodes in measured.items())
        text = f"{text}; asked: {self.is_}"
        if set(found) <= {self.is_}:
            return Judged("pass", measured, asked, text)
        others = set(found) - {self.is_, "unknown"}
        return Judged("fail" if others else "unknown", measured, asked, text)

    def _chosen(self, run: Run) -> list[int]:
        hit: dict[str, set[int]] = defaultdict(set)
        for window in windows(run.faults):
            hit[window.event] |= {int(node) for node in window.active if node.isdecimal()}
        chosen = set(self.nodes)
        if self.hit_by is not None:
            chosen &= hit[self.hit_by]
        if self.spared_by is not None:
            chosen -= hit[self.spared_by]
        return sorted(chosen)


def state_of(run: Run, node: int) -> State | None:
    """What became of a node; None where the records do not tell."""
    if any(end_s is None for _, end_s in spans(run.faults, LEFT).get(node, ())):
        return "left"
    if any(row["node"] == node for row in run.nodes):
        return "finished"
    killed = any(end_s is None for _, end_s in spans(run.faults, DOWN).get(node, ()))
    died = any(row["event"] == "died" and row.get("node") == node for row in run.events)
    return "dead" if killed or died else None


def _listed(nodes: list[int]) -> str:
    shown = wording.few(nodes)
    return f"node {shown}" if len(nodes) == 1 else f"{len(nodes)} nodes ({shown})"
