"""Did the network do what was asked of it? Measured before the run and during it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tidings.links.shape import LinkShape, NicShape
from tidings.v1 import control_pb2 as pb
from tidings.v1 import records_pb2 as records
from tidings_coordinator.experiment.model import Tolerance
from tidings_coordinator.planning import RunPlan

#: bytes of a probe's frame without filler
_PING_BYTES = 24
#: losses are judged where so many messages were sent
_ENOUGH_MESSAGES = 200

Arc = tuple[int, int]


@dataclass(frozen=True)
class LinkClass:
    """Links that were asked to be alike: shape, and the cards at both ends."""

    shape: LinkShape
    egress_bit_per_s: float
    ingress_bit_per_s: float

    @property
    def rate_bit_per_s(self) -> float:
        """What one message stream can get."""
        return min(self.shape.rate_bit_per_s, self.egress_bit_per_s, self.ingress_bit_per_s)


@dataclass(frozen=True)
class Measured:
    """A probed link: asked and achieved. Infinite rates are not measured."""

    source: int
    target: int
    links_alike: int
    rate_asked_bit_per_s: float
    rate_achieved_bit_per_s: float | None
    rate_error: float | None
    round_trip_asked_s: float
    round_trip_achieved_s: float | None
    #: of one way
    delay_error_s: float | None
    within_tolerance: bool
    error: str


def classes(run: RunPlan) -> dict[LinkClass, list[Arc]]:
    """All directed links by what was asked of them."""
    nics = {node.node: node.nic for node in run.nodes}
    found: dict[LinkClass, list[Arc]] = defaultdict(list)
    for (source, target), shape in run.links.items():
        asked = replace(shape, loss=0.0)
        key = LinkClass(asked, nics[source].egress_bit_per_s, nics[target].ingress_bit_per_s)
        found[key].append((source, target))
    return dict(found)


def probe_order(run: RunPlan) -> list[list[Arc]]:
    """One link of each class, in batches in which no node takes part twice."""
    batches: list[list[Arc]] = []
    for arcs in classes(run).values():
        arc = next((a for a in arcs if (a[1], a[0]) in run.links), None)
        if arc is None:
            # a one-way link has no way back for the answer
            continue
        for batch in batches:
            if len(batch) < 4 and not {node for pair in batch for node in pair} & set(arc):
                batch.append(arc)
                break
        else:
            batches.append([arc])
    return batches


def judge(run: RunPlan, results: Iterable[pb.ProbeResult], tolerance: Tolerance) -> list[Measured]:
    """Each probe against what was asked."""
    sizes = {arc: len(arcs) for arcs in classes(run).values() for arc in arcs}
    return [_judge(run, result, sizes[result.source, result.target], tolerance)
            for result in results]  # fmt: skip


def _judge(run: RunPlan, result: pb.ProbeResult, alike: int, tolerance: Tolerance) -> Measured:
    source, target = result.source, result.target
    forth, back = run.links[source, target], run.links[target, source]
    rate = _rate(run, source, target)
    asked_s = _one_way_s(forth, rate) + _one_way_s(back, _rate(run, target, source))
    # of a few tries the fastest counts, so jitter can only make the trip look shorter
    slack_s = (forth.jitter_ns + back.jitter_ns) / 1e9
    rate_error = delay_error = None
    within = not result.error
    if result.rate_bit_per_s and math.isfinite(rate):
        rate_error = result.rate_bit_per_s / rate - 1
        within = within and abs(rate_error) <= tolerance.rate
    if not result.error:
        delay_error = (result.round_trip_s - asked_s) / 2
        within = within and -tolerance.delay - slack_s <= delay_error <= tolerance.delay
    return Measured(
        source=source,
        target=target,
        links_alike=alike,
        rate_asked_bit_per_s=rate,
        rate_achieved_bit_per_s=result.rate_bit_per_s or None,
        rate_error=rate_error,
        round_trip_asked_s=asked_s,
        round_trip_achieved_s=None if result.error else result.round_trip_s,
        delay_error_s=delay_error,
        within_tolerance=within,
        error=result.error,
    )


def _rate(run: RunPlan, source: int, target: int) -> float:
    nics: Sequence[NicShape] = [node.nic for node in run.nodes]
    return min(
        run.links[source, target].rate_bit_per_s,
        nics[source].egress_bit_per_s,
        nics[target].ingress_bit_per_s,
    )


def _one_way_s(shape: LinkShape, rate_bit_per_s: float) -> float:
    return shape.delay_ns / 1e9 + 8 * _PING_BYTES / rate_bit_per_s


def report(
    run: RunPlan, measured: Sequence[Measured], finals: Iterable[records.Final]
) -> dict[str, Any]:
    """``fidelity.json``: the probes, the lag and the loss during the run, and the judgement."""
    tolerance = run.experiment.network.tolerance
    links = [link for final in finals for link in final.links]
    lags = [link.lag for link in links if link.lag.count]
    lag_p50 = max((lag.p50_ns for lag in lags), default=0) / 1e9 / run.experiment.network.time_scale
    lag_p99 = max((lag.p99_ns for lag in lags), default=0) / 1e9 / run.experiment.network.time_scale
    loss = _loss(run, links)
    shaped = any(shape.shaped for shape in run.links.values())
    problems = [
        f"link {m.source}->{m.target} is not what was asked: {m.error or _describe(m)}"
        for m in measured
        if not m.within_tolerance
    ]
    if lag_p50 > tolerance.delay:
        problems.append(f"during the run half of a link's chunks were over {lag_p50:.4f} s late")
    if loss is not None and loss["surprise"] > 5:
        problems.append(f"losses are {loss['surprise']:.1f} standard deviations off")
    verdict = "fail" if problems else "pass"
    if shaped and not measured and not problems:
        verdict = "unknown"
    return {
        "verdict": verdict,
        "problems": problems,
        "tolerance": {"rate": float(tolerance.rate), "delay_s": float(tolerance.delay)},
        "rate_error": _worst(m.rate_error for m in measured),
        "delay_error_s": _worst(m.delay_error_s for m in measured),
        "lag_p50_s": lag_p50,
        "lag_p99_s": lag_p99,
        "loss": loss,
        "probes": [asdict(m) for m in measured],
    }


def virtual() -> dict[str, Any]:
    """The fidelity of a simulated run: its links are the model itself."""
    return {
        "verdict": "pass",
        "problems": [],
        "rate_error": 0.0,
        "delay_error_s": 0.0,
        "lag_p50_s": 0.0,
        "lag_p99_s": 0.0,
        "loss": None,
        "probes": [],
    }


def _describe(measured: Measured) -> str:
    parts = []
    if measured.rate_error is not None:
        parts.append(f"rate off by {measured.rate_error:+.1%}")
    if measured.delay_error_s is not None:
        parts.append(f"delay off by {1e3 * measured.delay_error_s:+.2f} ms")
    return ", ".join(parts)


def _worst(errors: Iterable[float | None]) -> float | None:
    known = [error for error in errors if error is not None]
    return max(known, key=abs) if known else None


def _loss(run: RunPlan, links: Sequence[records.LinkRecord]) -> dict[str, float] | None:
    """Lost messages against the number that was to be expected; None where none were asked for."""
    asked = [(run.links[link.source, link.target].loss, link) for link in links]
    lossy = [(loss, link) for loss, link in asked if loss > 0]
    if not lossy:
        return None
    sent = sum(link.messages for _, link in lossy)
    lost = sum(link.lost_messages for _, link in lossy)
    expected = sum(loss * link.messages for loss, link in lossy)
    variance = sum(loss * (1 - loss) * link.messages for loss, link in lossy)
    surprise = abs(lost - expected) / math.sqrt(variance) if sent >= _ENOUGH_MESSAGES else 0.0
    return {"messages": sent, "expected": expected, "lost": lost, "surprise": surprise}
