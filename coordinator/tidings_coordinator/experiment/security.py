"""The section ``security`` of the experiment file."""

from __future__ import annotations

import ipaddress
from typing import Literal

from tidings_coordinator.experiment.section import Section


class Security(Section):
    """Who may take part, and who may read along."""

    tls: Literal["auto", "always", "never"] = "auto"
    """Mutually authenticated TLS between all parts; 'auto': off loopback."""

    def on(self, host: str) -> bool:
        """Whether parts that listen on ``host`` talk TLS."""
        return self.tls == "always" or (self.tls == "auto" and not on_loopback(host))


def on_loopback(host: str) -> bool:
    """Whether an address can only be reached from this machine; names other than localhost: no."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
