"""Who a node is on the data plane."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Identity:
    """Who a node is on the data plane; both ends of a link must agree on run and digest."""

    run: str
    node: int
    #: of the codec: protocol, message table, model size
    digest: bytes

    def refusal(self, run: str, digest: bytes) -> str | None:
        """Why a peer is not to be talked to, or None."""
        if run != self.run:
            return f"this is run {self.run}, not {run}"
        if digest != self.digest:
            return "protocol, message types or model size differ"
        return None
