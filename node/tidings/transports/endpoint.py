"""What the links of one node are made from, whatever carries them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tidings.links.shape import LinkShape, NicShape
from tidings.transports.identity import Identity
from tidings.transports.io_thread import IoThread, WallClock


@dataclass(frozen=True)
class Endpoint:
    """One node on the data plane."""

    identity: Identity
    #: the outgoing links by target, as this node is to pace them
    links: Mapping[int, LinkShape]
    nic: NicShape
    #: the in-neighbours; nobody else is let in
    sources: frozenset[int]
    #: of the run; losses and jitter of a link follow from it
    seed: int
    clock: WallClock
    io: IoThread
    #: maps the length that a frame announces to its whole length, or raises a WireError
    check_length: Callable[[int], int]
    #: what links and cards hand over at a time
    quantum_bytes: int
