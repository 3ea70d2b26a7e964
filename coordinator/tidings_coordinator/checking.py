"""``tidings check``: what an experiment resolves to, without starting anything."""

from __future__ import annotations

import math

from tidings.errors import ConfigError
from tidings.links.shape import LinkShape
from tidings.units import Duration, Rate
from tidings_coordinator.control.fidelity import classes
from tidings_coordinator.experiment.dump import dump
from tidings_coordinator.planning import RunPlan, predicted_round_bytes
from tidings_coordinator.terminal import size_text
from tidings_coordinator.topology.describe import describe as describe_graph


def refuse(run: RunPlan) -> None:
    """UserError, with file, line and key, for what keeps the run from starting on this machine."""
    experiment = run.experiment
    try:
        experiment.launcher.check(run)
    except ConfigError as error:
        raise experiment.mistake(error) from error


def describe(run: RunPlan) -> str:
    """The resolved file, the graph, the links, and the traffic that is to be expected."""
    experiment = run.experiment
    dim = run.parts.codec.dim
    lines = [dump(experiment).rstrip(), "", "# graph", str(describe_graph(run.schedule))]
    lines += ["", "# links", *_links(run), "", "# model and traffic"]
    lines.append(f"model: {dim} parameters, {size_text(4 * dim)} dense")
    per_round = predicted_round_bytes(run)
    lines.append(f"predicted: {size_text(per_round)} per round over all nodes")
    rounds = experiment.stop.rounds
    if rounds is not None:
        lines.append(f"           {size_text(per_round * rounds)} in {rounds} rounds")
    return "\n".join(lines)


def _links(run: RunPlan) -> list[str]:
    lines = []
    for kind, arcs in classes(run).items():
        text = f"{len(arcs)} x {_shape(kind.shape)}"
        cards = (kind.egress_bit_per_s, kind.ingress_bit_per_s)
        if any(math.isfinite(rate) for rate in cards):
            text += f", cards {Rate(cards[0])} out, {Rate(cards[1])} in"
        lines.append(f"{text} (such as {arcs[0][0]}->{arcs[0][1]})")
    return lines


def _shape(shape: LinkShape) -> str:
    text = f"{Rate(shape.rate_bit_per_s)}, delay {Duration(shape.delay_ns / 1e9)}"
    if shape.jitter_ns:
        text += f" +- {Duration(shape.jitter_ns / 1e9)} ({shape.jitter_kind})"
    return text
