"""When a run is to end, other than by its rounds."""

from __future__ import annotations

from collections.abc import Collection

from tidings.errors import RunError
from tidings.v1 import records_pb2 as records
from tidings_coordinator.experiment.model import Stop


class StopRule:
    """Checks the experiment's stop conditions; each method returns the reason to stop, or None."""

    def __init__(self, stop: Stop, honest: tuple[int, ...]) -> None:
        self._stop = stop
        self._honest = honest
        self._accuracy: dict[int, float] = {}
        #: nodes that were killed on purpose, as long as they are dead
        self.dead: Collection[int] = ()

    @property
    def needs_bytes(self) -> bool:
        """Whether anyone has to count."""
        return self._stop.bytes is not None

    def row(self, row: records.Evaluation) -> str | None:
        """A node was evaluated. RunError where that says nothing of the accuracy."""
        if self._stop.accuracy is None:
            return None
        if "accuracy" not in row.metrics:
            raise RunError("stop.accuracy: this problem has no accuracy, only a loss")
        self._accuracy[row.node] = row.metrics["accuracy"]
        known = [self._accuracy.get(node) for node in self._honest if node not in self.dead]
        if any(value is None for value in known):
            return None
        mean = sum(value for value in known if value is not None) / len(known)
        return f"accuracy {mean:.3f}" if mean >= self._stop.accuracy else None

    def sent(self, total_bytes: int) -> str | None:
        """All nodes together have sent that much."""
        limit = self._stop.bytes
        return f"{limit} sent" if limit is not None and total_bytes >= limit else None

    def time(self, time_s: float) -> str | None:
        """That much emulated time has passed."""
        limit = self._stop.time
        return f"{limit} passed" if limit is not None and time_s >= limit else None
