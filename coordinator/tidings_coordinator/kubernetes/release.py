"""What the manifests of one run are made from, and how its objects are called and labelled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tidings.errors import UserError
from tidings_coordinator.control.entrance import uses_tls
from tidings_coordinator.experiment.dump import dump_data
from tidings_coordinator.experiment.model import Experiment

Workload = Literal["jobs", "jobset", "mpi"]
Object = dict[str, Any]

#: where nodes enrol if the run uses TLS; the control plane is on the port after it then
COORDINATOR_PORT, METRICS_PORT, MONITOR_PORT = 7600, 7602, 7680
#: where the pods find the experiment
EXPERIMENT_DIRECTORY = "/experiment"
#: the API server's limit on a ConfigMap is 1 MiB
_MOST_BYTES = 900 << 10

MANAGED = {"app.kubernetes.io/name": "tidings", "app.kubernetes.io/managed-by": "tidings"}
INSTANCE, COMPONENT = "app.kubernetes.io/instance", "app.kubernetes.io/component"


@dataclass(frozen=True)
class Release:
    """One run on a cluster."""

    experiment: Experiment
    #: the run's id; left out of manifests that are kept
    run: str
    #: a label that no other run in the namespace has
    instance: str
    image: str
    pull: str = "IfNotPresent"
    pull_secret: str = ""
    cpu: str = "500m"
    memory: str = "1Gi"
    workload: Workload = "jobs"
    #: wall seconds for which finished Jobs, and with them their logs, are kept
    ttl_s: int = 3600
    #: wall seconds after which a Job is ended, whatever it does
    deadline_s: int = 86400
    #: for which nodes dial the coordinator
    join_s: int = 600
    #: PersistentVolumeClaim for the nodes' checkpoints; empty for none
    claim: str = ""
    #: environment of coordinator and nodes that must not be read by everyone
    join: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: and of the coordinator alone
    authority: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """Of the objects, and before a dash of all names."""
        return self.instance if self.instance == "tidings" else f"tidings-{self.instance}"

    @property
    def nodes(self) -> int:
        """How many node pods there are."""
        return self.experiment.nodes

    @property
    def secrets(self) -> dict[str, Mapping[str, str]]:
        """Secrets of the run by what comes after its name, those of the coordinator alone last.

        Empty where the run is in the clear, and under MPI, whose ranks are told by rank 0.
        """
        if not uses_tls(self.experiment) or self.workload == "mpi":
            return {}
        return {"join": self.join, "authority": self.authority}

    @property
    def control_ports(self) -> dict[str, int]:
        """Ports of the coordinator by name; the first is what nodes dial."""
        if not self.secrets:
            return {"control": COORDINATOR_PORT}
        return {"enrolment": COORDINATOR_PORT, "control": COORDINATOR_PORT + 1}

    def labels(self, component: str | None = None) -> dict[str, str]:
        """Labels of an object or pod."""
        own = {} if component is None else {COMPONENT: component}
        return MANAGED | {INSTANCE: self.instance} | own

    def selector(self, component: str | None = None) -> dict[str, str]:
        """Labels that tell this run's pods from all others."""
        own = {} if component is None else {COMPONENT: component}
        return {"app.kubernetes.io/name": "tidings", INSTANCE: self.instance} | own

    def annotations(self) -> dict[str, str]:
        """What pod discovery of Prometheus turns into labels, and annotation-based scraping."""
        return {
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(METRICS_PORT),
            "prometheus.io/path": "/metrics",
            "tidings-run": self.run,
            "tidings-experiment": self.experiment.name,
            "tidings-protocol": self.experiment.protocol.kind,
        }

    def files(self) -> dict[str, str]:
        """The experiment as the pods read it, and the plug-in files that it names."""
        plugins: dict[str, str] = {}
        data = _moved(self._data(), plugins)
        data["launcher"] = self._launcher()
        _watched(data)
        files = {"experiment.yaml": dump_data(data)} | plugins
        if sum(len(text.encode()) for text in files.values()) > _MOST_BYTES:
            raise UserError("the experiment with its plug-in files is too large for a ConfigMap")
        return files

    def _data(self) -> dict[str, Any]:
        """What the experiment says beyond the defaults, which are the image's too."""
        return self.experiment.model_dump(
            mode="json", by_alias=True, exclude_defaults=True, exclude={"launcher"}
        )

    def _launcher(self) -> dict[str, Any]:
        if self.workload == "mpi":
            return {"kind": "mpi"}
        killing = any(event.fault.needs is not None for event in self.experiment.faults)
        return {
            "kind": "external",
            "host": "0.0.0.0",
            "port": COORDINATOR_PORT,
            "own_network": True,
            "join": f"{self.join_s}s",
            # by who follows the coordinator's log
            **({"followed": True} if killing else {}),
        }


def _watched(data: dict[str, Any]) -> None:
    """The live page on the pod's loopback, where a port forward finds it."""
    data["monitor"] = {"port": MONITOR_PORT} | (data.get("monitor") or {})


def _moved(data: Any, plugins: dict[str, str]) -> Any:
    """``data`` with every ``/path/file.py:Class`` as it is in the pods; the files' texts."""
    if isinstance(data, Mapping):
        return {key: _moved(value, plugins) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_moved(item, plugins) for item in data]
    if not isinstance(data, str) or not data.startswith("/"):
        return data
    path, colon, name = data.rpartition(":")
    if not colon or not re.fullmatch(r".*\.py", path):
        raise UserError(f"{data} is a file on this machine, which the pods do not have")
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    key = f"{len(plugins)}-{path.rpartition('/')[2]}"
    key = next((known for known, other in plugins.items() if other == text), key)
    plugins[key] = text
    return f"{EXPERIMENT_DIRECTORY}/{key}:{name}"
