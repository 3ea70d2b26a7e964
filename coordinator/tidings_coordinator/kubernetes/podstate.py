"""What a Pod object says about a pod of ours."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tidings_coordinator.kubernetes.release import COMPONENT, Object

_INDEX = "batch.kubernetes.io/job-completion-index"
#: in the name of an MPIJob's worker; some versions of the operator label the first one 1
_MPI_WORKER = re.compile(r"-worker-([0-9]+)$")
#: what a container is expected to wait for
_USUAL = {"ContainerCreating", "PodInitializing"}


@dataclass(frozen=True)
class PodState:
    """One pod as it was last heard of."""

    name: str
    #: coordinator or node
    component: str
    #: the node's number; None for the coordinator
    node: int | None
    phase: str
    #: whether its container has been started, so that there is a log
    started: bool
    #: why it does not start, where that is known
    trouble: str | None
    #: exit code of its container, once that has ended
    code: int | None
    #: OOMKilled, Error, Completed, or why the pod was ended
    reason: str
    #: whether somebody has deleted it
    deleted: bool

    @property
    def over(self) -> bool:
        """Whether nothing runs in it any more."""
        return self.code is not None or self.phase in ("Succeeded", "Failed")

    @property
    def title(self) -> str:
        """How users call it."""
        return "the coordinator" if self.node is None else f"node {self.node}"

    def ending(self) -> str:
        """How it ended."""
        how = "no exit code" if self.code is None else f"exit code {self.code}"
        return f"{how} ({self.reason})" if self.reason else how


def pod_state(pod: Object) -> PodState:
    """Read a Pod."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    labels = metadata.get("labels") or {}
    annotations = metadata.get("annotations") or {}
    component = labels.get(COMPONENT, "")
    index = annotations.get(_INDEX) or labels.get(_INDEX)
    if index is None and (worker := _MPI_WORKER.search(metadata["name"])):
        index = worker[1]
    containers = status.get("containerStatuses") or [{}]
    state = containers[0].get("state") or {}
    ended = state.get("terminated") or {}
    return PodState(
        name=metadata["name"],
        component=component,
        node=int(index) if component == "node" and index is not None else None,
        phase=status.get("phase", "Pending"),
        started="running" in state or "terminated" in state,
        trouble=_trouble(status, state.get("waiting") or {}),
        code=ended.get("exitCode"),
        reason=ended.get("reason") or status.get("reason") or "",
        deleted="deletionTimestamp" in metadata,
    )


def _trouble(status: Object, waiting: Object) -> str | None:
    if waiting and waiting.get("reason") not in _USUAL:
        return _both(waiting)
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return _both(condition)
    return None


def _both(told: Object) -> str:
    parts = [str(told[key]) for key in ("reason", "message") if told.get(key)]
    return ": ".join(parts) or "no reason given"
