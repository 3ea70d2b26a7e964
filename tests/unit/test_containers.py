"""What containers are made of: the Compose file, the image's packages, its health check."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import tidings
from tidings.runtime.health import well
from tidings_coordinator.launchers.compose_render import Stack, files_of, prometheus_config, render

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
STACK = Stack("run-12345678", "owner", "tidings:1", 3, "198.18.0.1:7600", "control-net", False)


def rendered(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(render(Stack(**vars(STACK) | changes)))
    return found


def test_a_service_a_node_each_with_its_own_number_and_name() -> None:
    services = rendered()["services"]
    assert list(services) == ["node-0", "node-1", "node-2"]
    for number, service in enumerate(services.values()):
        environment = service["environment"]
        assert environment["TIDINGS_NODE"] == str(number)
        assert environment["TIDINGS_COORDINATOR"] == "198.18.0.1:7600"
        assert service["networks"]["data"]["aliases"] == [environment["TIDINGS_ADVERTISE"]]


def test_nodes_may_nothing_and_reach_nobody_outside() -> None:
    document = rendered()
    assert document["networks"]["data"]["internal"] is True
    assert set(document["networks"]) == {"control", "data"}
    for service in document["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"cap_add", "user", "volumes", "ports", "privileged"} & set(service)
    assert "docker.sock" not in render(STACK)


def test_one_right_more_where_the_kernel_imposes_the_links() -> None:
    for service in rendered(kernel=True)["services"].values():
        assert (service["cap_drop"], service["cap_add"]) == (["ALL"], ["NET_ADMIN"])


def test_files_that_the_experiment_names_are_there_too(tmp_path: Path) -> None:
    own, data = tmp_path / "own.py", tmp_path / "data.csv"
    own.touch()
    data.touch()
    protocol = {"kind": f"{own}:Mine", "parts": [{"path": str(data)}], "other": "/no/such/file"}
    files = files_of(protocol, None)
    assert files == (str(data), str(own))
    service = rendered(files=files)["services"]["node-1"]
    assert service["volumes"] == [f"{data}:{data}:ro", f"{own}:{own}:ro"]


def test_who_watches_is_the_only_one_to_be_seen_from_outside() -> None:
    document = rendered(discovery="http://198.18.0.1:7680/sd", prometheus="p", grafana="g")
    assert set(document["services"]) == {"node-0", "node-1", "node-2", "prometheus", "grafana"}
    seen = [name for name, service in document["services"].items() if "ports" in service]
    assert seen == ["prometheus", "grafana"]
    assert all(port.startswith("127.0.0.1:")
               for name in seen for port in document["services"][name]["ports"])  # fmt: skip
    assert "http://198.18.0.1:7680/sd" in prometheus_config("http://198.18.0.1:7680/sd")


def test_the_stack_without_python_on_the_host_is_the_same() -> None:
    text = (ROOT / "deploy" / "compose" / "docker-compose.yml").read_text()
    document = yaml.safe_load(text)
    services = document["services"]
    own = rendered()["services"]["node-0"]
    quickstart = yaml.safe_load((ROOT / "examples" / "quickstart.yaml").read_text())
    nodes = [service for name, service in services.items() if name.startswith("node-")]
    assert len(nodes) == quickstart["nodes"]
    for number, service in enumerate(nodes):
        for key in ("read_only", "tmpfs", "cap_drop", "security_opt", "command", "pids_limit"):
            assert service[key] == own[key]
        assert service["environment"]["TIDINGS_NODE"] == str(number)
        assert service["networks"]["data"]["aliases"] == [f"node-{number}.data"]
    assert f"tidings:{tidings.__version__}}}" in text


def test_the_image_has_every_package_that_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = project["project"]["dependencies"] + project["build-system"]["requires"]
    asked += project["project"]["optional-dependencies"]["report"]
    asked += project["project"]["optional-dependencies"]["data"]
    pinned = (ROOT / "deploy" / "docker" / "requirements.txt").read_text().splitlines()
    names = {_plain(line.split("==")[0]) for line in pinned if not line.startswith("#")}
    assert {_plain(re.split(r"[<>=\[]", line)[0]) for line in asked} <= names
    assert all("==" in line for line in pinned if not line.startswith("#"))
    constraint = (ROOT / "constraints.txt").read_text().splitlines()[-1]
    assert constraint in pinned


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


@pytest.mark.parametrize(
    ("state", "other", "coordinator", "healthy"),
    [("01", 7600, "198.18.0.1:7600", True), ("01", 7601, "198.18.0.1:7600", True),
     ("01", 7600, "198.18.0.9:7600", False), ("08", 7600, "198.18.0.1:7600", False),
     ("01", 7600, "nowhere.invalid:7600", False), ("0A", 0, "", True), ("01", 7600, "", False)],
)  # fmt: skip
def test_health(tmp_path: Path, state: str, other: int, coordinator: str, healthy: bool) -> None:
    line = f"  0: 020012C6:A001 010012C6:{other:04X} {state} 00000000:00000000 00:00000000 0 0 0\n"
    (tmp_path / "tcp").write_text("  sl  local_address rem_address   st tx_queue\n" + line)
    assert well(coordinator, tmp_path) is healthy
