"""Whether anything went where nothing may go."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tidings_coordinator.checks.base import Check, Judged, Verdict, checks, unknown
from tidings_coordinator.checks.final_state import state_of
from tidings_coordinator.records.reading import Run
from tidings_coordinator.records.windows import CUTS, Window, windows
from tidings_coordinator.report import wording


@checks.register("isolation")
@dataclass(frozen=True, kw_only=True)
class Isolation(Check):
    """No message arrives over a non-edge, and none crosses a cut: ``{check: isolation}``.

    Evidence, non-edges: every node's arrivals by source (nodes.jsonl) and every link's messages
    (links.jsonl) against the graph's arcs (graph.json). What a node was sent by another that is not
    its neighbour it refuses and counts; that is told, and is no arrival. Evidence, cuts
    (net.partition, link.cut, node.isolate): for each link that was cut, the messages that were
    handed to it while it was (faults.jsonl, "messages") against those that were stopped
    ("affected"), and these against the link's own count (links.jsonl, "faulted"): the sender's
    word. With `records.trace` the receivers' too: no message arrived that was sent in a round that
    lies inside of the cut (events.jsonl, "received"). Unknown where a closing record or a cut's
    count is missing. Of nodes that were killed nothing is asked: what they were sent their senders
    have counted.
    """

    def judge(self, run: Run) -> Judged:
        """Whether the records show a trespass."""
        cuts = [window for window in windows(run.faults) if window.fault in CUTS]
        strays = _strays(run)
        crossed, stopped, gaps = _crossings(run, cuts)
        asked_for = {str(row.get("id")) for row in run.at("faults") or () if row["fault"] in CUTS}
        never = sorted(asked_for - {window.event for window in cuts if window.active})
        refused = sum(row["refused"].get("not_a_neighbor", 0) for row in run.nodes)
        measured: dict[str, Any] = {
            "over_non_edges": strays,
            "refused_from_non_neighbors": refused,
            "across_cuts": crossed,
            "stopped_by_cuts": stopped,
        }
        asked = {"over_non_edges": 0, "across_cuts": 0}
        arrived = sum(row["messages_received"] for row in run.nodes)
        parts = [f"{arrived:,} arrivals, {strays:,} over a non-edge"]
        if cuts:
            parts.append(f"{stopped:,} messages stopped by cuts, {crossed:,} crossed")
        if refused:
            parts.append(f"{refused:,} from or to a non-neighbour refused")
        closed = {row["node"] for row in run.nodes}
        missing = [node for node in range(run.node_count) if node not in closed]
        killed = [node for node in missing if state_of(run, node) == "dead"]
        if killed:
            parts.append(
                f"what killed nodes ({wording.few(killed)}) were sent is their senders' word"
            )
        if unclear := [node for node in missing if node not in killed]:
            gaps = [f"no closing record of {wording.few(unclear)}", *gaps]
        gaps += [f"'{event}' never held" for event in never]
        verdict: Verdict = "fail" if strays or crossed else "unknown" if gaps else "pass"
        if not run.nodes:
            return unknown("no node has left a closing record", asked)
        return Judged(verdict, measured, asked, "; ".join([*parts, *gaps]))


def _strays(run: Run) -> int:
    """Messages over pairs of nodes that are no arc of the graph."""
    arcs = {(int(source), int(target)) for source, target in run.graph["arcs"]}
    over = sum(
        found["messages"]
        for row in run.nodes
        for source, found in row["arrivals"].items()
        if (int(source), row["node"]) not in arcs
    )
    sent = sum(
        link["messages"] for link in run.links if (link["source"], link["target"]) not in arcs
    )
    return int(max(over, sent))


def _crossings(run: Run, cuts: Sequence[Window]) -> tuple[int, int, list[str]]:
    """Messages that crossed a cut, messages that were stopped, and what is not known."""
    links = {f"{link['source']}->{link['target']}": link for link in run.links}
    seen = _rounds_received(run)
    crossed = stopped = 0
    gaps: list[str] = []
    for window in cuts:
        for target in window.active:
            detail = window.details[target]
            if target not in window.recovered or "messages" not in detail:
                if state_of(run, int(target.partition("->")[0])) != "dead":
                    gaps.append(f"what '{window.event}' did on {target} was not counted")
                continue
            within = _within(window, target, seen.get(target, ()))
            crossed += max(detail["messages"] - detail["affected"], within)
            stopped += detail["affected"]
            link = links.get(target, {})
            faulted = (link.get("faulted") or {}).get(window.name, {}).get("messages", 0)
            # of what a fault had doubled, the copies are in no count of the link's
            if link and faulted < detail["affected"] and not link["duplicated"]["messages"]:
                gaps.append(
                    f"{target} counts {faulted:,} lost by '{window.name}', "
                    f"not {detail['affected']:,}"
                )
    return crossed, stopped, gaps


def _rounds_received(run: Run) -> dict[str, list[int]]:
    """With records.trace: the rounds of the messages that arrived, by link."""
    found: dict[str, list[int]] = defaultdict(list)
    for event in run.events:
        if event["event"] == "received":
            fields = json.loads(event["fields"])
            found[f"{fields['source']}->{event['node']}"].append(fields["round"])
    return found


def _within(window: Window, target: str, rounds: Sequence[int]) -> int:
    """Messages that were sent in rounds that lie wholly inside of a window."""
    first, last = window.rounds.get(target), window.recovered_rounds.get(target)
    if first is None or last is None:
        return 0
    return sum(first < round_ < last for round_ in rounds)
