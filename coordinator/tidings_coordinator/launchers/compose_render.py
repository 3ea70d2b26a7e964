"""A run as a Compose file: one container a node, a network for control and one for data.

Both networks have no way out of the machine. On the control network containers see the coordinator
and not each other; on the data network they see each other. Prometheus and Grafana, where asked
for, get a third, by which they can be looked at.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tidings.runtime.checkpoint import folder_of
from tidings.runtime.main import ONE_THREAD

#: on everything that a run makes: the run, and the process that made it
RUN_LABEL, OWNER_LABEL, NODE_LABEL = "tidings.run", "tidings.owner", "tidings.node"

#: where rules, dashboards and the like are, in a checkout
_DEPLOY = Path(__file__).resolve().parents[3] / "deploy"


@dataclass(frozen=True)
class Stack:
    """What is rendered."""

    run: str
    owner: str
    image: str
    nodes: int
    #: of the coordinator, host:port
    coordinator: str
    #: name of the control network, which is there already
    control: str
    #: whether the nodes' kernel links are to be made inside their containers
    kernel: bool
    #: where on this machine the nodes' checkpoints are to be; None for no checkpoints
    checkpoints: Path | None = None
    #: files of the experiment that the nodes need, at the same place
    files: tuple[str, ...] = ()
    #: where Prometheus asks what to scrape; empty for no Prometheus and no Grafana
    discovery: str = ""
    #: variables that nodes get from the environment of docker compose, for they are secret
    join: tuple[str, ...] = ()
    prometheus: str = ""
    grafana: str = ""
    #: where Prometheus' own configuration is
    directory: Path = Path()

    @property
    def labels(self) -> dict[str, str]:
        """On everything."""
        return {RUN_LABEL: self.run, OWNER_LABEL: self.owner}


def service(node: int) -> str:
    """A node's service."""
    return f"node-{node}"


def data_name(node: int) -> str:
    """A node's name on the data network, and on no other."""
    return f"node-{node}.data"


def files_of(*configs: object) -> tuple[str, ...]:
    """Files of the experiment that plug-ins' parameters name, to be there in the containers too."""
    found: set[str] = set()

    def look(value: object) -> None:
        if isinstance(value, dict):
            for inner in value.values():
                look(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                look(inner)
        elif isinstance(value, str) and value.startswith("/"):
            # path/to/file.py:Class
            path = value.split(".py:")[0] + ".py" if ".py:" in value else value
            if Path(path).is_file():
                found.add(path)

    look(configs)
    return tuple(sorted(found))


def render(stack: Stack) -> str:
    """The Compose file."""
    document: dict[str, Any] = {
        "services": {service(node): _node(stack, node) for node in range(stack.nodes)},
        "networks": {
            "control": {"external": True, "name": stack.control},
            "data": {"internal": True, "labels": stack.labels},
        },
    }
    if stack.discovery:
        document["services"] |= {"prometheus": _prometheus(stack), "grafana": _grafana(stack)}
        document["networks"]["watch"] = {"labels": stack.labels}
    text: str = yaml.safe_dump(document, sort_keys=False, width=100)
    return f"# {stack.run}: made by tidings run --launcher compose\n{text}"


def _hardened(stack: Stack) -> dict[str, Any]:
    """What a container may not do."""
    return {
        "read_only": True,
        "tmpfs": ["/tmp"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "no",
        "labels": stack.labels,
    }


def _node(stack: Stack, node: int) -> dict[str, Any]:
    found = {
        "image": stack.image,
        "command": ["tidings-node"],
        "environment": ONE_THREAD
        | dict.fromkeys(stack.join)
        | {
            "TIDINGS_RUN": stack.run,
            "TIDINGS_NODE": str(node),
            "TIDINGS_COORDINATOR": stack.coordinator,
            "TIDINGS_HOST": "0.0.0.0",
            "TIDINGS_ADVERTISE": data_name(node),
        },
        "networks": {"control": {}, "data": {"aliases": [data_name(node)]}},
        "stop_grace_period": "2s",
        "pids_limit": 256,
        **_hardened(stack),
    }
    found["labels"] = stack.labels | {NODE_LABEL: str(node)}
    if stack.kernel:
        # tc needs root inside the container, and of root's rights this one
        found |= {"cap_add": ["NET_ADMIN"], "user": "0:0"}
    volumes = [f"{path}:{path}:ro" for path in stack.files]
    if stack.checkpoints is not None:
        # its own only, at the place that its plan names
        own = folder_of(stack.checkpoints, node).path
        volumes.append(f"{own}:{own}")
    if volumes:
        found["volumes"] = volumes
    return found


def _prometheus(stack: Stack) -> dict[str, Any]:
    mounts = [f"{stack.directory / 'prometheus.yml'}:/etc/prometheus/prometheus.yml:ro"]
    mounts += [f"{file}:/etc/prometheus/{file.name}:ro" for file in rule_files()]
    return {
        "image": stack.prometheus,
        "command": [
            "--config.file=/etc/prometheus/prometheus.yml",
            "--storage.tsdb.path=/prometheus",
        ],
        # a guest on the data network: to reach the nodes' metrics, unshaped
        "networks": ["control", "data", "watch"],
        "ports": ["127.0.0.1::9090"],
        "volumes": mounts,
        **_hardened(stack),
        "tmpfs": ["/prometheus:mode=1777"],
    }


def _grafana(stack: Stack) -> dict[str, Any]:
    folders = {
        "provisioning": "/etc/grafana/provisioning",
        "dashboards": "/var/lib/grafana/dashboards/tidings",
    }
    return {
        "image": stack.grafana,
        "environment": {
            "GF_AUTH_ANONYMOUS_ENABLED": "true",
            "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
            "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        },
        "networks": ["watch"],
        "ports": ["127.0.0.1::3000"],
        "volumes": [
            f"{_DEPLOY / 'grafana' / name}:{place}:ro"
            for name, place in folders.items()
            if (_DEPLOY / "grafana" / name).is_dir()
        ],
        **_hardened(stack),
        "tmpfs": ["/tmp", "/var/lib/grafana:mode=1777", "/var/log/grafana:mode=1777"],
    }


def rule_files() -> list[Path]:
    """Recording and alert rules, where this is a checkout."""
    names = ("rules.yml", "alerts.yml")
    return [_DEPLOY / "prometheus" / name for name in names
            if (_DEPLOY / "prometheus" / name).is_file()]  # fmt: skip


def prometheus_config(discovery: str) -> str:
    """What Prometheus is to scrape: whatever the coordinator says is there."""
    config = {
        "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"},
        "rule_files": [file.name for file in rule_files()],
        "scrape_configs": [
            {
                "job_name": "tidings",
                "http_sd_configs": [{"url": discovery, "refresh_interval": "2s"}],
            }
        ],
    }
    # JSON is YAML
    return json.dumps(config, indent=1) + "\n"
