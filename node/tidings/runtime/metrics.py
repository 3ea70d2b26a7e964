"""A node's Prometheus metrics: a view of its ledger, computed when it is scraped."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from tidings.runtime.node import RuntimeNode
from tidings.runtime.real_world import RealWorld
from tidings.wire.frame import ByteCount


class NodeMetrics(Collector):
    """Yields the node's counters at each scrape; ``scrapes`` counts them.

    Run, node and protocol are labels of the target, given by service discovery. ``peer`` is the
    only label that grows with the graph; the round is a value, never a label.
    """

    def __init__(self, node: RuntimeNode, world: RealWorld) -> None:
        self._node = node
        self._world = world
        self.scrapes = 0

    def serve(self, host: str, port: int = 0) -> str:
        """Serve on a port of ``host``, by default any free one; the address to scrape."""
        registry = CollectorRegistry()
        registry.register(self)
        # registering collects once
        self.scrapes = 0
        server, _ = start_http_server(port, addr=host, registry=registry)
        return f"{host}:{server.server_address[1]}"

    def collect(self) -> Iterator[Metric]:
        """All metric families as of now."""
        self.scrapes += 1
        node, ledger = self._node, self._node.ledger
        yield InfoMetricFamily(
            "tidings_node",
            "The node's place in the run.",
            {"role": node.role, "protocol": node.protocol.kind, "model_size": str(node.codec.dim)},
        )
        yield _gauge("tidings_round", "Round or local step that the node is in.", node.round)
        yield _gauge("tidings_time_seconds", "Emulated time.", node.clock.now_s)
        yield _counter("tidings_gradients", "Gradients computed.", ledger.gradients)
        yield _counter("tidings_compute_seconds", "Emulated time computing.", ledger.compute_s)
        yield from self._links()
        received = CounterMetricFamily(
            "tidings_received_bytes", "Bytes of well-formed frames, by kind.", labels=["kind"]
        )
        _add_bytes(received, [], ledger.received)
        yield received
        refused = CounterMetricFamily(
            "tidings_refused", "Messages that were not used, by reason.", labels=["reason"]
        )
        for reason, count in ledger.refused.items():
            refused.add_metric([reason], count)
        yield refused
        yield from self._evaluation()

    def _links(self) -> Iterator[Metric]:
        sent = CounterMetricFamily(
            "tidings_link_sent_bytes",
            "Bytes handed to the link to a peer, after encoding, by kind.",
            labels=["peer", "kind"],
        )
        messages = CounterMetricFamily(
            "tidings_link_messages",
            "Messages handed to the link to a peer (sent), and what became of some.",
            labels=["peer", "result"],
        )
        lag = GaugeMetricFamily(
            "tidings_link_lag_seconds",
            "How much later than its model the link delivered, by quantile.",
            labels=["peer", "quantile"],
        )
        for peer, link in self._world.transport.links.items():
            _add_bytes(sent, [str(peer)], link.counts)
            for result, count in (
                ("sent", link.messages),
                ("lost", link.lost_messages),
                ("undeliverable", link.undeliverable_messages),
            ):
                messages.add_metric([str(peer), result], count)
            for quantile in (0.5, 0.99):
                seconds = link.lag.quantile_ns(quantile) / 1e9
                lag.add_metric([str(peer), str(quantile)], seconds)
        yield from (sent, messages, lag)

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
    for kind in ("payload", "metadata", "header", "control"):
        family.add_metric([*labels, kind], getattr(counts, kind))
