"""Prometheus service discovery: where a run can be scraped (http_sd)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tidings_coordinator.planning import RunPlan

#: metrics address by node, of those that serve
Targets = Callable[[], Mapping[int, str]]


def document(run: RunPlan, nodes: Mapping[int, str], coordinator: str) -> list[dict[str, object]]:
    """The targets as http_sd wants them: one per node that serves, and the coordinator."""
    common = {
        "run": run.run,
        "experiment": run.experiment.name,
        "protocol": run.experiment.protocol.kind,
    }
    targets: list[dict[str, object]] = [
        {"targets": [coordinator], "labels": common | {"role": "coordinator"}}
    ]
    for node, address in sorted(nodes.items()):
        labels = common | {"node": str(node), "role": run.roles[node]}
        targets.append({"targets": [address], "labels": labels})
    return targets
