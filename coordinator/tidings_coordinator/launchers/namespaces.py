"""A bridge and network namespaces behind it, by iproute2.

Everything is named after the run, so that what a killed run has left can be found: the bridge
``tid-KEY``, namespaces ``tidings-KEY-NODE``, and on the bridge's side devices ``tKEY-NODE``, with
KEY the last part of the run's id. The bridge's alias says which process made it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tidings.errors import ConfigError, RunError
from tidings_coordinator.launchers.owner import Owner

#: set aside for the testing of networks (RFC 2544), so in nobody's use
_RANGE = ipaddress.IPv4Network("198.18.0.0/15")
_FOLDER = Path("/run/netns")

BRIDGE, DEVICE, NAMESPACE = "tid-", "t", "tidings-"


def key_of(run: str) -> str:
    """What names the run's parts: the random end of its id."""
    return run.rpartition("-")[2][:8]


def free_subnet(nodes: int) -> ipaddress.IPv4Network:
    """A network with room for the nodes and the bridge that this machine has no route to."""
    prefix = 32 - (nodes + 3 - 1).bit_length()
    if prefix < _RANGE.prefixlen:
        message = f"at most {_RANGE.num_addresses - 3} fit behind one bridge"
        raise ConfigError(message, ("nodes",))
    shown = json.loads(_run(["ip", "-j", "route", "show", "table", "all"]))
    taken = [
        ipaddress.ip_network(route["dst"], strict=False)
        for route in shown
        if "dst" in route and route["dst"] != "default" and ":" not in route["dst"]
    ]
    for subnet in _RANGE.subnets(new_prefix=prefix):
        if not any(subnet.overlaps(other) for other in taken if other.prefixlen > 1):
            return subnet
    message = f"no free network for {nodes} nodes is left in {_RANGE}"
    raise ConfigError(message, ("launcher",))


@dataclass(frozen=True)
class Namespaces:
    """The namespaces of one run; may exist or not."""

    run: str
    subnet: ipaddress.IPv4Network

    @property
    def bridge(self) -> str:
        """The bridge's device."""
        return BRIDGE + key_of(self.run)

    @property
    def gateway(self) -> str:
        """The bridge's address."""
        return str(self.subnet[1])

    def name(self, node: int) -> str:
        """A node's namespace."""
        return f"{NAMESPACE}{key_of(self.run)}-{node}"

    def device(self, node: int) -> str:
        """The bridge's end of the way to a node."""
        return f"{DEVICE}{key_of(self.run)}-{node}"

    def file(self, node: int) -> Path:
        """What stands for a node's namespace in the file system."""
        return _FOLDER / self.name(node)

    def address(self, node: int) -> str:
        """A node's address."""
        return str(self.subnet[node + 2])

    def make_bridge(self) -> None:
        """The bridge, up and with its address; RunError where that fails."""
        owner = Owner.me().text(self.run)
        _batch(
            [
                f"link add {self.bridge} type bridge",
                f'link set dev {self.bridge} alias "{owner}"',
                f"addr add {self.gateway}/{self.subnet.prefixlen} dev {self.bridge}",
                f"link set {self.bridge} up",
            ]
        )

    def make_namespaces(self, nodes: int) -> None:
        """A namespace a node, with its address on a device eth0; RunError where that fails."""
        outside = []
        for node in range(nodes):
            name, device = self.name(node), self.device(node)
            outside += [
                f"netns add {name}",
                f"link add {device} type veth peer name eth0 netns {name}",
                f"link set {device} master {self.bridge} up",
            ]
        _batch(outside)
        for node in range(nodes):
            inside = [
                "link set lo up",
                f"addr add {self.address(node)}/{self.subnet.prefixlen} dev eth0",
                "link set eth0 up",
            ]
            _batch(inside, self.name(node))

    def remove(self) -> None:
        """Take down whatever of it is there."""
        remove(key_of(self.run))


# -- by key alone, for what a killed run has left ------------------------------------------------


def found() -> dict[str, tuple[Owner | None, list[str]]]:
    """By key: who made it, if that is known, and the names of what is there."""
    left: dict[str, tuple[Owner | None, list[str]]] = {}
    for name in _namespace_names():
        left.setdefault(name.split("-")[1], (None, []))[1].append(f"namespace {name}")
    for link in json.loads(_run(["ip", "-j", "link"])):
        key = _key_of_device(link["ifname"])
        if key is None:
            continue
        owner, names = left.setdefault(key, (None, []))
        if link["ifname"].startswith(BRIDGE):
            owner = Owner.parse(link.get("ifalias", ""))
        left[key] = (owner, [*names, f"device {link['ifname']}"])
    return left


def remove(key: str) -> None:
    """Take down all namespaces and devices of a run; RunError for what will not go."""
    devices = [
        link["ifname"]
        for link in json.loads(_run(["ip", "-j", "link"]))
        if _key_of_device(link["ifname"]) == key
    ]
    names = [name for name in _namespace_names() if name.startswith(f"{NAMESPACE}{key}-")]
    # a namespace takes its end of the pair with it, so the pair may go at any moment
    with contextlib.suppress(RunError):
        _batch([f"link del {name}" for name in devices], force=True)
    with contextlib.suppress(RunError):
        _batch([f"netns del {name}" for name in names], force=True)
    if still := found().get(key):
        raise RunError(f"cannot remove {', '.join(still[1])}")


def _namespace_names() -> list[str]:
    if not _FOLDER.exists():
        return []
    return sorted(entry.name for entry in _FOLDER.iterdir() if entry.name.startswith(NAMESPACE))


def _key_of_device(name: str) -> str | None:
    key = name.removeprefix(BRIDGE)
    if key == name:
        key, dash, node = name.removeprefix(DEVICE).rpartition("-")
        if not (name.startswith(DEVICE) and dash and node.isdecimal()):
            return None
    return key if len(key) == 8 and all(c in "0123456789abcdef" for c in key) else None


def _batch(lines: Iterable[str], namespace: str | None = None, force: bool = False) -> None:
    command = ["ip", *(["-netns", namespace] if namespace else [])]
    _run([*command, *(["-force"] if force else []), "-batch", "-"], "\n".join(lines) + "\n")


def _run(command: Sequence[str], text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(f"{' '.join(command)} failed: {' '.join(done.stderr.split())}")
    return done.stdout
