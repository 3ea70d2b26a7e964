"""What is known of a run of real nodes while it goes on, and when it has ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from tidings.errors import RunError
from tidings.v1 import records_pb2 as records
from tidings_coordinator.control import fidelity


@dataclass
class Conducted:
    """How a run of real nodes ended."""

    finals: list[records.Final]
    measured: list[fidelity.Measured]
    #: emulated time at which it was over
    time_s: float
    #: bytes of the control plane
    control_bytes: int
    #: why it was stopped, where it did not end by itself
    reason: str | None
    #: what went wrong, if anything did
    error: RunError | None
    #: whether the run was protected, and who was turned away
    security: dict[str, object]


@dataclass
class Progress:
    """How far a run has come; moments are of the monotonic clock but for ``ended``."""

    started: float = 0.0
    ended: float = 0.0
    reason: str | None = None
    measured: list[fidelity.Measured] = field(default_factory=list)
    gone_since: dict[int, float] = field(default_factory=dict)
