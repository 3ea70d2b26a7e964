"""Links that the kernel imposes: what was asked of them as commands for ``tc``.

In the node's own network namespace, on the device that leads to its neighbours: a class of the
hierarchical token bucket per neighbour, by destination address, under the network card's own class;
what comes in passes an intermediate device with the card's other direction. Traffic with anybody
else (the coordinator, a scrape) is left alone. Delay and jitter need the kernel's sch_netem.

Rates are those of the frames: TCP and IP headers ride on top, as they do where the pacer shapes. A
message's loss is decided by the sending node, not by the kernel.
"""

from __future__ import annotations

import functools
import json
import math
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidings.errors import ConfigError, UserError
from tidings.links.shape import LinkShape, NicShape

#: of our root queueing discipline; what has another handle is not ours and is not touched
HANDLE = "7d1d:"
#: the device that incoming traffic passes
INGRESS_DEVICE = "tidings-in"

#: queueing disciplines that a device has when nobody has set one
_DEFAULTS = {"noqueue", "pfifo_fast", "fq_codel", "fq", "mq", "pfifo"}
#: Ethernet, IP and TCP headers with timestamps
_HEADER_BYTES = 14 + 20 + 32
_ETHERNET_BYTES = 14
#: what is not limited, in bit/s; a class needs a number
_UNLIMITED_BIT_PER_S = 100e9
#: a token bucket holds what passes in that time, and two packets at the least
_BURST_S = 0.001
#: of one packet that the network device is to cut
_MAX_SEGMENTS = 44
_DISTRIBUTIONS = {"uniform": "", "normal": "normal", "pareto": "pareto"}


@dataclass(frozen=True)
class Lane:
    """The kernel's way to (or from) one neighbour."""

    address: str
    shape: LinkShape


@dataclass(frozen=True)
class Device:
    """The network device that leads to the neighbours."""

    name: str
    mtu_bytes: int


# -- what to do, as text -------------------------------------------------------------------------


def commands(
    device: Device,
    lanes: Sequence[Lane],
    nic: NicShape,
    coordinator: str,
    time_scale: float = 1.0,
) -> tuple[list[str], list[str]]:
    """Lines for ``ip -batch`` and, to follow, for ``tc -batch``; empty where nothing is asked.

    Addresses are IPv4. ``time_scale`` is wall seconds per emulated second.
    """
    links = [Lane(lane.address, _scaled(lane.shape, time_scale)) for lane in lanes]
    egress = nic.egress_bit_per_s / time_scale
    ingress = nic.ingress_bit_per_s / time_scale
    ip: list[str] = []
    tc = _tree(device, device.name, links, egress, "dst")
    slowest = min([egress, *(lane.shape.rate_bit_per_s for lane in links)])
    if tc and math.isfinite(slowest):
        # a packet passes as a whole at the beginning of its time, so it must not last long
        segments = max(1, int(slowest / 8 * _BURST_S / device.mtu_bytes))
        ip.append(f"link set dev {device.name} gso_max_segs {min(segments, _MAX_SEGMENTS)}")
    if math.isfinite(ingress):
        ip += [f"link add {INGRESS_DEVICE} type ifb", f"link set {INGRESS_DEVICE} up"]
        arriving = [Lane(lane.address, LinkShape(queue_bytes=lane.shape.queue_bytes))
                    for lane in links]  # fmt: skip
        tc += _tree(device, INGRESS_DEVICE, arriving, ingress, "src", everybody=True)
        tc += [
            f"qdisc add dev {device.name} handle ffff: ingress",
            f"filter add dev {device.name} parent ffff: protocol ip prio 1 u32 "
            f"match ip src {coordinator}/32 flowid :1",
            f"filter add dev {device.name} parent ffff: protocol ip prio 2 u32 "
            f"match u32 0 0 action mirred egress redirect dev {INGRESS_DEVICE}",
        ]
    return ip, tc


def _scaled(shape: LinkShape, time_scale: float) -> LinkShape:
    return LinkShape(
        shape.rate_bit_per_s / time_scale,
        round(shape.delay_ns * time_scale),
        round(shape.jitter_ns * time_scale),
        shape.jitter_kind,
        queue_bytes=shape.queue_bytes,
    )


def _tree(
    device: Device,
    on: str,
    lanes: Sequence[Lane],
    card_bit_per_s: float,
    end: str,
    everybody: bool = False,
) -> list[str]:
    """A class per lane under the card's; ``everybody``: one more, for those that have no lane."""
    limited = math.isfinite(card_bit_per_s)
    shaped = [lane for lane in lanes if limited or _asks(lane.shape)]
    if not shaped:
        return []
    rest = len(shaped) + 16 if everybody else 0
    lines = [f"qdisc add dev {on} root handle {HANDLE} htb default {rest:x} direct_qlen 1000"]
    parent = HANDLE
    if limited:
        parent = HANDLE + "1"
        lines.append(_class(device, on, HANDLE, parent, card_bit_per_s, card_bit_per_s))
    share = card_bit_per_s / (len(shaped) + everybody)
    for number, lane in enumerate(shaped, start=16):
        ceiling = min(lane.shape.rate_bit_per_s, card_bit_per_s)
        own = f"{HANDLE}{number:x}"
        lines.append(_class(device, on, parent, own, min(ceiling, share), ceiling))
        lines.append(f"qdisc add dev {on} parent {own} {_leaf(device, lane.shape)}")
        lines.append(
            f"filter add dev {on} parent {HANDLE} protocol ip prio 1 u32 "
            f"match ip {end} {lane.address}/32 flowid {own}"
        )
    if everybody:
        own = f"{HANDLE}{rest:x}"
        lines.append(_class(device, on, parent, own, share, card_bit_per_s))
        lines.append(f"qdisc add dev {on} parent {own} {_leaf(device, LinkShape())}")
    return lines


def _asks(shape: LinkShape) -> bool:
    return math.isfinite(shape.rate_bit_per_s) or shape.delay_ns > 0 or shape.jitter_ns > 0


def _class(
    device: Device, on: str, parent: str, own: str, rate_bit_per_s: float, ceil_bit_per_s: float
) -> str:
    """A class that lets frames pass at that rate, so packets at a little more."""
    wire = (device.mtu_bytes + _ETHERNET_BYTES) / (
        device.mtu_bytes + _ETHERNET_BYTES - _HEADER_BYTES
    )
    rate, ceiling = (
        round(min(value * wire, _UNLIMITED_BIT_PER_S)) for value in (rate_bit_per_s, ceil_bit_per_s)
    )
    packet = device.mtu_bytes + _ETHERNET_BYTES
    bursts = (max(2 * packet, round(value / 8 * _BURST_S)) for value in (rate, ceiling))
    burst, ceiling_burst = bursts
    return (
        f"class add dev {on} parent {parent} classid {own} htb rate {max(rate, 8)}bit "
        f"ceil {max(ceiling, 8)}bit burst {burst} cburst {ceiling_burst} quantum {8 * packet}"
    )


def _leaf(device: Device, shape: LinkShape) -> str:
    if shape.delay_ns == 0 and shape.jitter_ns == 0:
        return f"bfifo limit {shape.queue_bytes}"
    rate = min(shape.rate_bit_per_s, _UNLIMITED_BIT_PER_S)
    flying_bytes = rate / 8 * (shape.delay_ns + 4 * shape.jitter_ns) / 1e9
    packets = math.ceil((flying_bytes + shape.queue_bytes) / device.mtu_bytes)
    text = f"netem limit {packets} delay {shape.delay_ns / 1e3:.0f}us"
    if shape.jitter_ns:
        text += f" {shape.jitter_ns / 1e3:.0f}us"
        distribution = _DISTRIBUTIONS[shape.jitter_kind]
        text += f" distribution {distribution}" if distribution else ""
    return text


# -- what this machine can -----------------------------------------------------------------------


def check(shape: LinkShape) -> None:
    """ConfigError, with the link's key, for a link that no kernel imposes."""
    if shape.jitter_ns and shape.jitter_kind not in _DISTRIBUTIONS:
        raise ConfigError(
            f"the kernel has no '{shape.jitter_kind}' jitter "
            f"(valid with network.enforce: kernel: {', '.join(sorted(_DISTRIBUTIONS))})",
            ("jitter_kind",),
        )


def check_programs() -> None:
    """ConfigError, with the key, where the programs that shape links are not there."""
    if shutil.which("tc") is None or shutil.which("ip") is None:
        message = "kernel links need the programs tc and ip (iproute2)"
        raise ConfigError(message, ("network", "enforce"))


def check_here(shape: LinkShape) -> None:
    """ConfigError, with the link's key, for what this machine's kernel cannot do; needs root."""
    if (shape.delay_ns > 0 or shape.jitter_ns > 0) and not has_netem():
        raise ConfigError(
            "this machine's kernel has no sch_netem, so it cannot impose delay or jitter; "
            "leave them out, or write network.enforce: user",
            ("delay" if shape.delay_ns > 0 else "jitter",),
        )


@functools.cache
def has_netem() -> bool:
    """Whether the kernel has sch_netem; tried in a network namespace of its own."""
    tried = ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


# -- doing it ------------------------------------------------------------------------------------


def impose(
    links: Mapping[int, LinkShape],
    addresses: Mapping[int, str],
    nic: NicShape,
    coordinator: str,
    time_scale: float,
) -> None:
    """Have the kernel impose a node's links, in the calling process's network namespace.

    ``addresses`` are the neighbours' host:port, ``coordinator`` likewise. Raises UserError where
    the kernel or its rights do not allow it, or where the device is shaped by somebody else.
    """
    if not links:
        return
    lanes = [Lane(_resolve(addresses[target]), shape) for target, shape in links.items()]
    device = _device_to(lanes[0].address)
    _clear(device)
    ip, tc = commands(device, lanes, nic, _resolve(coordinator), time_scale)
    _batch("ip", ip)
    _batch("tc", tc)


def _resolve(address: str) -> str:
    host = address.rpartition(":")[0]
    try:
        return socket.gethostbyname(host)
    except OSError as error:
        raise UserError(f"network.enforce: cannot resolve {host}: {error}") from error


def _device_to(address: str) -> Device:
    route = json.loads(_run(["ip", "-j", "route", "get", address]))
    name = route[0]["dev"]
    link = json.loads(_run(["ip", "-j", "link", "show", "dev", name]))
    return Device(name, link[0]["mtu"])


def _clear(device: Device) -> None:
    """Take off what an earlier life of this node has put on; UserError for what is not ours."""
    shown = json.loads(_run(["tc", "-j", "qdisc", "show", "dev", device.name]))
    for qdisc in shown:
        if qdisc.get("root") and qdisc["handle"] == HANDLE:
            _run(["tc", "qdisc", "del", "dev", device.name, "root"])
        elif qdisc.get("root") and qdisc["kind"] not in _DEFAULTS:
            raise UserError(
                f"network.enforce: {device.name} is shaped already, and not by us "
                f"({qdisc['kind']} {qdisc['handle']})"
            )
    if any(link["ifname"] == INGRESS_DEVICE for link in json.loads(_run(["ip", "-j", "link"]))):
        _run(["tc", "qdisc", "del", "dev", device.name, "ingress"])
        _run(["ip", "link", "del", INGRESS_DEVICE])


def _batch(program: str, lines: Sequence[str]) -> None:
    if lines:
        _run([program, "-batch", "-"], "\n".join(lines) + "\n")


def _run(command: Sequence[str], text: str = "") -> str:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise UserError(f"network.enforce: there is no program {command[0]}") from error
    if done.returncode:
        said = " ".join(done.stderr.split())
        raise UserError(f"network.enforce: {' '.join(command[:2])} failed: {said}")
    return done.stdout
