"""Whether every message that was sent is accounted for."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from tidings_coordinator.checks.base import Check, Judged, checks, unknown
from tidings_coordinator.checks.final_state import state_of
from tidings_coordinator.records.reading import Row, Run
from tidings_coordinator.records.windows import DOWN, spans

#: what a receiver refuses because it is no frame; some of it before it is known whose it was
_NO_FRAMES = ("malformed", "oversized", "truncated", "wrong_shape")


@dataclass(frozen=True)
class _Book:
    """One directed link: what is known of its messages, and what is not explained."""

    source: int
    target: int
    counts: Counter[str]
    faulted: Counter[str]
    #: whether it is known what was on its way when the run was over
    exact: bool

    @property
    def rest(self) -> int:
        """Messages that went in and of which nothing is known; negative: more came out."""
        return self._rest("messages")

    @property
    def rest_bytes(self) -> int:
        """The same in bytes."""
        return self._rest("bytes")

    def _rest(self, unit: str) -> int:
        went_in = self.counts[f"handed {unit}"] + self.counts[f"duplicated {unit}"]
        ways = ("received", "refused", "lost", "undeliverable", "in_flight")
        gone = sum(self.counts[f"{way} {unit}"] for way in ways)
        return went_in - gone - sum(n for key, n in self.faulted.items() if key.endswith(unit))


@checks.register("accounting")
@dataclass(frozen=True, kw_only=True)
class Accounting(Check):
    """Every message is accounted for, link by link: ``{check: accounting}``.

    Messages and bytes handed to a link, and copies made by faults, equal what the receiver counted,
    plus what the link lost as asked, what a named fault lost, what was undeliverable, what went to
    a node that died with its count, and what the receiver refused as no frame. Exact, to the
    message and the byte: the simulator knows what is on its way at the end, and in a real run nodes
    hand in their counts when all that was sent has come. Where that has not come in time, as behind
    a connection that broke, and the run was stopped or its nodes do not go in step, what is missing
    makes it unknown.
    More received than sent is a failure always. Links whose sender was killed are not judged, for
    its count died with it. Evidence: links.jsonl, nodes.jsonl, faults.jsonl, and the event "over".
    """

    def judge(self, run: Run) -> Judged:
        """Whether the books balance."""
        if not run.links or not run.nodes:
            return unknown("no node has left a closing record")
        receivers = {row["node"]: row for row in run.nodes}
        restarted = set(spans(run.faults, DOWN)) & set(receivers)
        totals: Counter[str] = Counter()
        refusals = {node: _refused(row) for node, row in receivers.items()}
        wrong: list[str] = []
        gaps: list[str] = []
        for book in _books(run, receivers):
            link = f"{book.source}->{book.target}"
            if book.source in restarted:
                totals["links not judged"] += 1
                continue
            totals["links"] += 1
            totals.update({key: n for key, n in book.counts.items() if "bytes" not in key})
            totals.update({f"lost by '{key.rpartition(' ')[0]}'": n
                           for key, n in book.faulted.items() if "bytes" not in key})  # fmt: skip
            rest = book.rest
            if book.target not in receivers and rest >= 0:
                if state_of(run, book.target) in ("dead", "left"):
                    totals["to the dead"] += rest
                else:
                    gaps.append(f"node {book.target} has left no closing record")
                continue
            if book.target in restarted and rest >= 0:
                totals["to the dead"] += rest
                continue
            explained = min(max(rest, 0), refusals.get(book.target, 0))
            refusals[book.target] = refusals.get(book.target, 0) - explained
            totals["refused messages"] += explained
            rest -= explained
            totals["unexplained"] += rest
            if rest or (book.rest_bytes and not explained):
                unit = f"{rest:+,} messages" if rest else f"{book.rest_bytes:+,} bytes"
                lost = rest > 0 or (rest == 0 and book.rest_bytes > 0)
                exact = book.exact or _in_order(run)
                (gaps if lost and not exact else wrong).append(f"{link}: {unit}")
        return _verdict(totals, wrong, gaps)


def _verdict(totals: Counter[str], wrong: list[str], gaps: list[str]) -> Judged:
    measured = dict(sorted(totals.items()))
    asked = {"unexplained": 0}
    known = [f"{key.removesuffix(' messages')} {n:,}" for key, n in totals.items() if n]
    text = ", ".join(known)
    if wrong:
        return Judged("fail", measured, asked, f"{text}; not explained: {_some(wrong)}")
    if gaps:
        about = "on their way at the end, or lost" if totals["unexplained"] else "not known"
        return unknown(f"{text}; {about}: {_some(gaps)}", asked, measured)
    return Judged("pass", measured, asked, text)


def _some(texts: list[str]) -> str:
    distinct = list(dict.fromkeys(texts))
    return ", ".join(distinct[:5]) + (f" and {len(distinct) - 5} more" * (len(distinct) > 5))


def _refused(row: Row) -> int:
    """What a node has refused that is in no link's count."""
    links = [arrived.get("refused") or {} for arrived in row["arrivals"].values()]
    of_links = sum(int(refused.get("messages", 0)) for refused in links)
    return max(0, sum(int(row["refused"].get(reason, 0)) for reason in _NO_FRAMES) - of_links)


def _in_order(run: Run) -> bool:
    """Whether nothing can have been on its way when the run was over."""
    over = [row for row in run.events if row["event"] == "over"]
    return run.synchronous and bool(over) and over[-1].get("reason") is None


def _books(run: Run, receivers: dict[int, Row]) -> list[_Book]:
    """Every link of which its sender has left a count."""
    sums: dict[tuple[int, int], Counter[str]] = defaultdict(Counter)
    faulted: dict[tuple[int, int], Counter[str]] = defaultdict(Counter)
    known: set[tuple[int, int]] = set()
    for link in run.links:
        arc = (link["source"], link["target"])
        sums[arc].update(
            {"handed messages": link["messages"], "handed bytes": link["bytes"]["total"]}
        )
        if "in_flight" in link:
            known.add(arc)
        for way in ("lost", "undeliverable", "duplicated", "in_flight"):
            found: Any = link.get(way) or {}
            for unit in ("messages", "bytes"):
                sums[arc][f"{way} {unit}"] += found.get(unit, 0)
        for event, found in (link.get("faulted") or {}).items():
            for unit in ("messages", "bytes"):
                faulted[arc][f"{event} {unit}"] += found.get(unit, 0)
    for node, row in receivers.items():
        for source, arrived in row["arrivals"].items():
            arc = (int(source), node)
            if arc in sums or int(source) in receivers:
                for unit in ("messages", "bytes"):
                    sums[arc][f"received {unit}"] += arrived[unit]
                    sums[arc][f"refused {unit}"] += (arrived.get("refused") or {}).get(unit, 0)
    return [_Book(*arc, sums[arc], faulted[arc], arc in known) for arc in sorted(sums)]
