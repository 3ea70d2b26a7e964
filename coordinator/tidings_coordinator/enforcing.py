"""Whether the kernel can impose what a run asks of its links, before anything is started."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tidings.errors import ConfigError
from tidings.faults.base import ReshapingFault
from tidings.links import kernel
from tidings.links.layers import compose
from tidings.links.shape import LinkShape

if TYPE_CHECKING:
    from tidings_coordinator.faults.firing import Firing
    from tidings_coordinator.planning import RunPlan

Check = Callable[[LinkShape], None]


def check(run: RunPlan, check_one: Check) -> None:
    """Try every link, as it is and as each fault would have it; what ``check_one`` raises gets the
    place where the file says it."""
    network = run.experiment.network
    for (source, target), shape in run.links.items():
        try:
            check_one(shape)
        except ConfigError as error:
            raise ConfigError(
                error.message, ("network", *network.place(str(error.path[0]), source, target))
            ) from error
    for firing in run.firings:
        if isinstance(firing.fault, ReshapingFault):
            _check_reshaped(run, firing, firing.fault, check_one)


def check_here(run: RunPlan) -> None:
    """ConfigError where this machine's kernel is to impose the links and cannot; needs root."""
    if run.experiment.network.enforce == "kernel":
        kernel.check_programs()
        check(run, kernel.check_here)


def _check_reshaped(run: RunPlan, firing: Firing, fault: ReshapingFault, check_one: Check) -> None:
    events = [event.id for event in run.experiment.faults]
    layers = fault.layers()
    for shape in {compose(run.links[arc], [layer]) for arc in firing.arcs for layer in layers}:
        try:
            check_one(shape)
        except ConfigError as error:
            place = ("faults", events.index(firing.event), "fault")
            raise ConfigError(f"'{fault.kind}': {error.message}", place) from error
