"""A node's links in the hands of the kernel: made by ``ip`` and ``tc``, changed, and looked at.

All of it happens in the calling process's network namespace; what the commands say is in
:mod:`tidings.links.kernel`.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Mapping, Sequence

from tidings.errors import UserError
from tidings.links.kernel import (
    HANDLE,
    INGRESS_DEVICE,
    Device,
    Lane,
    ceiling,
    changed,
    class_of,
    commands,
    readdressed,
)
from tidings.links.shape import LinkShape, NicShape

#: queueing disciplines that a device has when nobody has set one
_DEFAULTS = {"noqueue", "pfifo_fast", "fq_codel", "fq", "mq", "pfifo"}
#: tc shows a rate in its largest unit that leaves a thousand of it
_PRECISION = 2e-3
#: of a neighbour that has no address now; no packet goes there
_NOWHERE = "0.0.0.0"
_PREFIXES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class ImposedLinks:
    """One node's links, each in its class of the kernel's tree."""

    def __init__(
        self, device: Device, addresses: Mapping[int, str], nic: NicShape, time_scale: float
    ) -> None:
        self._device = device
        self._addresses = dict(addresses)
        self._numbers = {target: number for number, target in enumerate(addresses)}
        self._nic = nic
        self._time_scale = time_scale

    def reshape(self, target: int, shape: LinkShape) -> None:
        """Give a link another shape, and look whether it has it. OSError where not."""
        number, device = self._numbers[target], self._device
        lines = changed(device, number, shape, len(self._numbers), self._nic, self._time_scale)
        try:
            _batch("tc", lines)
            shown = self._shown(target)
        except UserError as error:
            raise OSError(str(error)) from error
        asked = ceiling(shape, device, self._nic, self._time_scale)
        found = re.search(r" ceil (\d+)([KMGT]?)bit ", shown)
        has = int(found[1]) * _PREFIXES[found[2]] if found else 0
        if abs(has - asked) > _PRECISION * asked:
            raise OSError(f"the kernel was asked for {asked} bit/s, and shows {has} bit/s")

    def wire_bytes(self, target: int) -> int:
        """What has passed a link so far, in bytes of packets; OSError where nobody can tell."""
        try:
            found = re.search(r"Sent (\d+) bytes", self._shown(target))
        except UserError as error:
            raise OSError(str(error)) from error
        if found is None:
            raise OSError(f"tc shows nothing of the link to node {target}")
        return int(found[1])

    def redirect(self, addresses: Mapping[int, str]) -> None:
        """These neighbours, as host:port, may be elsewhere now. UserError where that fails."""
        for target in self._numbers.keys() & addresses.keys():
            before, now = self._addresses[target], _resolve(addresses[target])
            if now != before:
                _batch("tc", readdressed(self._device, self._numbers[target], now, self._nic))
                self._addresses[target] = now

    def _shown(self, target: int) -> str:
        own = class_of(self._numbers[target])
        return _run(["tc", "-s", "class", "show", "dev", self._device.name, "classid", own])


def impose(
    links: Mapping[int, LinkShape],
    addresses: Mapping[int, str],
    nic: NicShape,
    coordinator: str,
    time_scale: float,
    returning: bool = False,
) -> ImposedLinks | None:
    """Have the kernel impose a node's links, in the calling process's network namespace.

    ``addresses`` are the neighbours' host:port, ``coordinator`` likewise. None where there are no
    links. ``returning``: neighbours may be dead, and have no address until they are back. Raises
    UserError where the kernel or its rights do not allow it, or where the device is shaped by
    somebody else.
    """
    if not links:
        return None
    found = {target: _resolve(addresses[target], returning) for target in links}
    lanes = [Lane(found[target], shape) for target, shape in links.items()]
    device = _device_to(max(found.values(), key=lambda address: address != _NOWHERE))
    _clear(device)
    ip, tc = commands(device, lanes, nic, _resolve(coordinator), time_scale)
    _batch("ip", ip)
    _batch("tc", tc)
    return ImposedLinks(device, found, nic, time_scale)


def _resolve(address: str, returning: bool = False) -> str:
    host = address.rpartition(":")[0]
    try:
        return socket.gethostbyname(host)
    except OSError as error:
        if returning:
            return _NOWHERE
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
