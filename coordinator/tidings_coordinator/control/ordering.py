"""What a launcher is told of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tidings_coordinator.launchers.base import Order
from tidings_coordinator.planning import RunPlan


def order_of(
    run: RunPlan, address: str, directory: Path, discovery: str, join: Mapping[str, str]
) -> Order:
    """The order for a run whose coordinator listens at ``address``."""
    experiment, checkpoint = run.experiment, run.nodes[0].checkpoint
    return Order(
        run.run,
        len(run.nodes),
        address,
        directory,
        run.nodes[0].protocol,
        run.nodes[0].problem,
        experiment.network.enforce == "kernel",
        None if checkpoint is None else Path(checkpoint.directory),
        None if experiment.byzantine is None else experiment.byzantine.attack.config(),
        discovery,
        run.grace_s,
        join,
    )
