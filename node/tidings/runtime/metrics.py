"""A node's Prometheus metrics: a view of its ledger, computed when it is scraped."""

from __future__ import annotations

import math
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from tidings.runtime.ledger import Staleness
from tidings.runtime.node import RuntimeNode
from tidings.runtime.real_world import RealWorld
from tidings.runtime.scraping import Scrapes, serve_metrics
from tidings.wire.frame import ByteCount

#: what a node can be doing
STATES = ("computing", "waiting", "finished")


class NodeMetrics(Collector):
    """Yields the node's counters at each scrape; ``scrapes`` counts them.

    Run, node, role and protocol are labels of the target, given by service discovery. ``peer`` is
    the only label that grows with the graph; the round is a value, never a label.
    """

    def __init__(self, node: RuntimeNode, world: RealWorld) -> None:
        self._node = node
        self._world = world
        self.scrapes = Scrapes()
        #: whether the protocol is done
        self.finished = False

    def serve(self, host: str, port: int = 0) -> str:
        """Serve on a port of ``host``, by default any free one; the address to scrape."""
        registry = CollectorRegistry()
        registry.register(self)
        return f"{host}:{serve_metrics(registry, self.scrapes, host, port)}"

    def describe(self) -> list[Metric]:
        """Nothing in advance, so that registering does not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metric families as of now."""
        node, ledger, plan = self._node, self._node.ledger, self._node.plan
        yield _gauge("tidings_round", "Round or local step that the node is in.", node.round)
        yield _gauge("tidings_rounds_completed", "Rounds or local steps done.", ledger.completed)
        yield _gauge("tidings_time_seconds", "Emulated time.", node.clock.going_s)
        yield _gauge("tidings_time_scale", "Real seconds per emulated second.", plan.time_scale)
        yield _gauge("tidings_model_parameters", "Floats in the model.", node.codec.dim)
        yield _gauge(
            "tidings_node_honest", "1, or 0 where the node attacks.", float(plan.attack is None)
        )
        yield self._state()
        yield _counter("tidings_gradients", "Gradients computed.", ledger.gradients)
        yield _counter("tidings_compute_seconds", "Emulated time computing.", ledger.compute_s)
        yield from self._asked()
        yield from self._links()
        yield from self._received()
        yield from self._evaluation()

    def _state(self) -> Metric:
        waits = bool(self._node.waiting.describe())
        now = "finished" if self.finished else "waiting" if waits else "computing"
        family = GaugeMetricFamily(
            "tidings_node_state", "1 for what the node is doing, 0 for the rest.", labels=["state"]
        )
        for state in STATES:
            family.add_metric([state], float(state == now))
        return family

    def _asked(self) -> Iterator[Metric]:
        """What the experiment asks of the links; those without a limit have none here."""
        plan = self._node.plan
        rate = GaugeMetricFamily(
            "tidings_link_asked_bytes_per_second",
            "The rate asked of the link to a peer, or the card's where lower; in emulated time.",
            labels=["peer"],
        )
        delay = GaugeMetricFamily(
            "tidings_link_asked_delay_seconds",
            "The one-way delay asked of the link to a peer, without jitter.",
            labels=["peer"],
        )
        for peer, shape in plan.links.items():
            bit_per_s = min(shape.rate_bit_per_s, plan.nic.egress_bit_per_s)
            if math.isfinite(bit_per_s):
                rate.add_metric([str(peer)], bit_per_s / 8)
            delay.add_metric([str(peer)], shape.delay_ns / 1e9)
        yield from (rate, delay)

    def _links(self) -> Iterator[Metric]:
        sent = CounterMetricFamily(
            "tidings_link_sent_bytes",
            "Bytes handed to the link to a peer, after encoding, by kind.",
            labels=["peer", "kind"],
        )
        gone = CounterMetricFamily(
            "tidings_link_gone_bytes",
            "Bytes of messages to a peer that were lost as asked, or found no connection.",
            labels=["peer", "result"],
        )
        messages = CounterMetricFamily(
            "tidings_link_messages",
            "Messages handed to the link to a peer (sent), and what became of some.",
            labels=["peer", "result"],
        )
        reconnects = CounterMetricFamily(
            "tidings_link_reconnects", "Times that the link came back.", labels=["peer"]
        )
        blocked = CounterMetricFamily(
            "tidings_link_blocked_seconds",
            "Emulated time for which a full queue held back the sender.",
            labels=["peer"],
        )
        lag = GaugeMetricFamily(
            "tidings_link_lag_seconds",
            "How much later than its model the link delivered, by quantile.",
            labels=["peer", "quantile"],
        )
        for peer, link in self._world.transport.links.items():
            to = str(peer)
            _add_bytes(sent, [to], link.counts)
            gone.add_metric([to, "lost"], link.lost_bytes)
            gone.add_metric([to, "undeliverable"], link.undeliverable_bytes)
            messages.add_metric([to, "sent"], link.messages)
            messages.add_metric([to, "lost"], link.lost_messages)
            messages.add_metric([to, "undeliverable"], link.undeliverable_messages)
            reconnects.add_metric([to], link.reconnects)
            blocked.add_metric([to], link.blocked_ns / 1e9)
            for quantile in (0.5, 0.99):
                lag.add_metric([to, str(quantile)], link.lag.quantile_ns(quantile) / 1e9)
        yield from (sent, gone, messages, reconnects, blocked, lag)

    def _received(self) -> Iterator[Metric]:
        received = CounterMetricFamily(
            "tidings_received_bytes", "Bytes of well-formed frames, by kind.", labels=["kind"]
        )
        _add_bytes(received, [], self._node.ledger.received)
        refused = CounterMetricFamily(
            "tidings_refused", "Messages that were not used, by reason.", labels=["reason"]
        )
        for reason, count in self._node.refused.items():
            refused.add_metric([reason], count)
        staleness = HistogramMetricFamily(
            "tidings_staleness_rounds",
            "How many rounds behind the receiver the messages were that arrived.",
        )
        seen, buckets = 0, []
        age = self._node.ledger.staleness
        for bound, count in zip((*Staleness.BOUNDS, math.inf), list(age.classes), strict=True):
            seen += count
            buckets.append(("+Inf" if math.isinf(bound) else f"{float(bound)}", float(seen)))
        staleness.add_metric([], buckets, age.total)
        yield from (received, refused, staleness)

    def _evaluation(self) -> Iterator[Metric]:
        row = self._world.latest
        if row is None:
            return
        yield _gauge(
            "tidings_evaluated_round", "Rounds complete at the last evaluation.", row.round
        )
        metrics = GaugeMetricFamily(
            "tidings_evaluation", "The last evaluation of the model, by metric.", labels=["metric"]
        )
        for name, value in row.metrics.items():
            metrics.add_metric([name], value)
        yield metrics


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value)


def _add_bytes(family: CounterMetricFamily, labels: list[str], counts: ByteCount) -> None:
    for kind in ("payload", "metadata", "header", "control", "heartbeat"):
        family.add_metric([*labels, kind], getattr(counts, kind))
