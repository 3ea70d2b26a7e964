"""Links that the kernel imposes: what was asked of them as commands for ``tc``.

In the node's own network namespace, on the device that leads to its neighbours: a class of the
hierarchical token bucket per neighbour, by destination address, under the network card's own class;
what comes in passes an intermediate device with the card's other direction. Traffic with anybody
else (the coordinator, a scrape) is left alone. Delay and jitter need the kernel's sch_netem.

Rates are those of the frames: TCP and IP headers ride on top, as they do where the pacer shapes. A
message's loss is decided by the sending node, not by the kernel. See :mod:`tidings.links.imposed`
for who carries this out.
"""

from __future__ import annotations

import functools
import math
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from tidings.errors import ConfigError
from tidings.links.shape import LinkShape, NicShape

#: of our root queueing discipline; what has another handle is not ours and is not touched
HANDLE = "7d1d:"
#: the device that incoming traffic passes
INGRESS_DEVICE = "tidings-in"

#: Ethernet, IP and TCP headers with timestamps
_HEADER_BYTES = 14 + 20 + 32
_ETHERNET_BYTES = 14
#: what is not limited, in bit/s; a class needs a number
_UNLIMITED_BIT_PER_S = 100e9
#: a token bucket holds what passes in that time, and two packets at the least
_BURST_S = 0.001
#: of one packet that the network device is to cut
_MAX_SEGMENTS = 44
#: a lane's class and its filter's priority are its number and this
_FIRST = 16
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
    """Lines for ``ip -batch`` and, to follow, for ``tc -batch``.

    Addresses are IPv4. ``time_scale`` is wall seconds per emulated second. Every lane has its
    class, also where nothing is asked of it, for a fault may ask later.
    """
    links = [Lane(lane.address, _scaled(lane.shape, time_scale)) for lane in lanes]
    egress = nic.egress_bit_per_s / time_scale
    ingress = nic.ingress_bit_per_s / time_scale
    ip: list[str] = []
    tc = _tree(device, device.name, links, egress, "dst")
    slowest = min([egress, *(lane.shape.rate_bit_per_s for lane in links)])
    if math.isfinite(slowest):
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


def changed(
    device: Device,
    number: int,
    shape: LinkShape,
    lanes: int,
    nic: NicShape,
    time_scale: float = 1.0,
) -> list[str]:
    """Lines for ``tc -batch`` that give lane ``number`` of ``lanes`` another shape."""
    branch = _Branch(device, device.name, number, nic.egress_bit_per_s / time_scale, lanes)
    return branch.lines(_scaled(shape, time_scale), "change", "replace")


def readdressed(device: Device, number: int, address: str, nic: NicShape) -> list[str]:
    """Lines for ``tc -batch`` that lead lane ``number`` to another address."""
    ends = {device.name: "dst"}
    if math.isfinite(nic.ingress_bit_per_s):
        ends[INGRESS_DEVICE] = "src"
    lines = []
    for on, end in ends.items():
        lines.append(f"filter del dev {on} parent {HANDLE} prio {number + _FIRST}")
        lines.append(_filter(on, number, end, address))
    return lines


def class_of(number: int) -> str:
    """The class of lane ``number``."""
    return f"{HANDLE}{number + _FIRST:x}"


def ceiling(shape: LinkShape, device: Device, nic: NicShape, time_scale: float) -> int:
    """The rate, in bit/s of packets, above which a lane of that shape must not go."""
    rate = min(shape.rate_bit_per_s, nic.egress_bit_per_s) / time_scale
    return _on_wire(device, rate)


def _tree(
    device: Device,
    on: str,
    lanes: Sequence[Lane],
    card_bit_per_s: float,
    end: str,
    everybody: bool = False,
) -> list[str]:
    """A class per lane under the card's; ``everybody``: one more, for those that have no lane."""
    rest = len(lanes) + _FIRST if everybody else 0
    lines = [f"qdisc add dev {on} root handle {HANDLE} htb default {rest:x} direct_qlen 1000"]
    if math.isfinite(card_bit_per_s):
        card = _class(device, on, HANDLE, HANDLE + "1", card_bit_per_s, card_bit_per_s)
        lines.append(f"class add {card}")
    for number, lane in enumerate(lanes):
        branch = _Branch(device, on, number, card_bit_per_s, len(lanes) + everybody)
        lines += branch.lines(lane.shape, "add", "add")
        lines.append(_filter(on, number, end, lane.address))
    if everybody:
        branch = _Branch(device, on, len(lanes), card_bit_per_s, len(lanes) + 1)
        lines += branch.lines(LinkShape(), "add", "add")
    return lines


@dataclass(frozen=True)
class _Branch:
    """A lane's class and what queues in it, one of ``siblings`` under the card's."""

    device: Device
    on: str
    number: int
    card_bit_per_s: float
    siblings: int

    def lines(self, shape: LinkShape, how: str, how_leaf: str) -> list[str]:
        """To make it, or to change it."""
        limited = math.isfinite(self.card_bit_per_s)
        parent, own = HANDLE + "1" if limited else HANDLE, class_of(self.number)
        most = min(shape.rate_bit_per_s, self.card_bit_per_s)
        least = min(most, self.card_bit_per_s / self.siblings)
        return [
            f"class {how} {_class(self.device, self.on, parent, own, least, most)}",
            f"qdisc {how_leaf} dev {self.on} parent {own} {_leaf(self.device, shape)}",
        ]


def _filter(on: str, number: int, end: str, address: str) -> str:
    """What sorts a lane's packets into its class; by its priority it can be found again."""
    return (
        f"filter add dev {on} parent {HANDLE} protocol ip prio {number + _FIRST} u32 "
        f"match ip {end} {address}/32 flowid {class_of(number)}"
    )


def _class(
    device: Device, on: str, parent: str, own: str, rate_bit_per_s: float, ceil_bit_per_s: float
) -> str:
    """A class that lets frames pass at that rate, so packets at a little more."""
    rate, ceiling = (_on_wire(device, value) for value in (rate_bit_per_s, ceil_bit_per_s))
    packet = device.mtu_bytes + _ETHERNET_BYTES
    bursts = (max(2 * packet, round(value / 8 * _BURST_S)) for value in (rate, ceiling))
    burst, ceiling_burst = bursts
    return (
        f"dev {on} parent {parent} classid {own} htb rate {rate}bit "
        f"ceil {ceiling}bit burst {burst} cburst {ceiling_burst} quantum {8 * packet}"
    )


def _on_wire(device: Device, rate_bit_per_s: float) -> int:
    """The rate of packets that lets frames pass at that rate."""
    packet = device.mtu_bytes + _ETHERNET_BYTES
    wire = packet / (packet - _HEADER_BYTES)
    return max(8, round(min(rate_bit_per_s * wire, _UNLIMITED_BIT_PER_S)))


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
