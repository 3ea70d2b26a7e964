"""What a node keeps for the time after its death: when it is written, how it is put back."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from tidings.api.message import Delivery, Message
from tidings.api.problems import LocalProblem
from tidings.errors import RunError
from tidings.faults.base import Heal
from tidings.runtime import checkpoint as files
from tidings.runtime.byzantine import Attacker
from tidings.runtime.checkpoint import Checkpoint, Store
from tidings.runtime.exchange import Exchanger
from tidings.runtime.ledger import Ledger
from tidings.runtime.mailbox import Mailbox
from tidings.runtime.plan import NodePlan
from tidings.runtime.reporting import Reporter
from tidings.runtime.world import World
from tidings.transports.base import LinkCounters
from tidings.wire.codec import Codec
from tidings.wire.frame import ByteCount


@dataclass
class Insides:
    """What of a node is kept beside what its protocol keeps, by the objects that hold it."""

    plan: NodePlan
    codec: Codec
    problem: LocalProblem
    world: World
    rngs: dict[str, np.random.Generator]
    mailbox: Mailbox
    exchanger: Exchanger
    reporter: Reporter
    attacker: Attacker | None
    #: whether all nodes go through the same rounds together
    synchronous: bool


class Keeper:
    """Writes one node's checkpoints and reads them back. ``store`` is None where there is none."""

    def __init__(self, insides: Insides, store: Store | None) -> None:
        self._in = insides
        self._store = store
        self._asked = insides.plan.checkpoint
        self._last_round, self._last_s = 0, 0.0
        self._parts: dict[str, Any] = {}
        #: errors with which writing is to fail, by the fault that wants it
        self._failing: dict[str, str] = {}
        #: checkpoints written and failed, their bytes
        self.counters: Counter[str] = Counter()

    # -- writing ---------------------------------------------------------------------------------

    def fail(self, event: str, error: str) -> Heal:
        """Let checkpoints fail with the system's error of that name, until it is healed."""
        self._failing[event] = error
        before = self.counters["failed"]

        def heal() -> Mapping[str, Any]:
            self._failing.pop(event, None)
            return {"checkpoints": self.counters["failed"] - before}

        return heal

    def due(self, completed: int) -> int | None:
        """The round of the checkpoint that is due now, or None.

        One that falls due while the node has no part in the run is of the round it fell due in.
        """
        if self._asked is None or self._store is None:
            return None
        every, every_s = self._asked.every_rounds, self._asked.every_s
        if every is not None and completed // every > self._last_round // every:
            return completed // every * every
        if every_s is not None and self._in.world.clock.now_s >= self._last_s + every_s:
            return completed if completed > self._last_round else None
        return None

    async def keep(
        self, parts: dict[str, Any] | None, model: torch.Tensor, ledger: Ledger, completed: int
    ) -> str | None:
        """Write a checkpoint where one is due; why that failed, if it did.

        ``parts`` is what the protocol wants to find again; None: what it wanted last time.
        """
        self._parts = self._parts if parts is None else parts
        round_ = self.due(completed)
        if round_ is None or self._asked is None or self._store is None:
            return None
        store, keep = self._store, self._asked.keep
        now_s = self._in.world.clock.now_s
        self._last_round, self._last_s = round_, now_s
        node = {"model": model, **self._snapshot(ledger)}
        # a copy now; what takes time is done beside the loop
        data = files.encode(Checkpoint(round_, now_s, self._parts, node), self._in.codec.digest)
        try:
            for error_name in self._failing.values():
                number = getattr(errno, error_name)
                raise OSError(number, os.strerror(number))
            size_bytes = await self._in.world.aside(lambda: files.save(store, round_, data, keep))
        except OSError as error:
            self.counters["failed"] += 1
            return f"round {round_}: {error.strerror or error}"
        self.counters["written"] += 1
        self.counters["bytes"] += size_bytes
        return None

    def _snapshot(self, ledger: Ledger) -> dict[str, Any]:
        inside = self._in
        return {
            "incarnation": inside.plan.incarnation,
            "rngs": dict(inside.rngs),
            "problem": inside.problem.keep(),
            "attack": None if inside.attacker is None else inside.attacker.rng,
            "mailbox": [(each.source, self._frame(each)) for each in inside.mailbox.contents()],
            "closed": {kind.__name__: r for kind, r in inside.mailbox.closed().items()},
            "sequences": inside.world.transport.sequences,
            "counted": counted(ledger, inside.exchanger, Counter(inside.mailbox.dropped)),
        }

    def _frame(self, waiting: Delivery[Message]) -> bytes:
        encode = self._in.codec.encode
        return bytes(encode(waiting.message, waiting.round, step=waiting.step).joined())

    # -- reading ---------------------------------------------------------------------------------

    def restore(self, ledger: Ledger) -> tuple[Checkpoint | None, list[str]]:
        """The checkpoint that the plan asks for, and what was wrong with others.

        What is the node's own of it has been put back. Records (bytes, messages, refusals) go on
        even where the state is lost: None, and they stand as in the last checkpoint. RunError
        where a certain one is asked for and is not there.
        """
        plan = self._in.plan
        if self._store is None or (plan.restore is None and not plan.incarnation):
            return None, []
        at = plan.restore if isinstance(plan.restore, int) else None
        found, wrong = files.load(self._store, self._in.codec.digest, self._in.codec.dim, at)
        if found is None:
            if at is not None:
                detail = f": {'; '.join(wrong)}" if wrong else ""
                raise RunError(f"node {plan.node} has no sound checkpoint of round {at}{detail}")
            return None, wrong
        if not ledger.taken_over:
            recount(ledger, self._in.exchanger, found.node["counted"])
        if plan.restore is None:
            return None, wrong
        self._last_round, self._last_s = found.round, found.time_s
        self._parts = dict(found.parts)
        self._put_back(found, ledger)
        return found, wrong

    def _put_back(self, found: Checkpoint, ledger: Ledger) -> None:
        inside, kept = self._in, found.node
        inside.rngs.clear()
        inside.rngs.update(kept["rngs"])
        inside.problem.put_back(kept["problem"])
        if inside.attacker is not None and kept["attack"] is not None:
            inside.attacker.rng = kept["attack"]
        for kind in inside.codec.types:
            if kind.__name__ in kept["closed"]:
                inside.mailbox.close(kind, *kept["closed"][kind.__name__])
        for source, frame in kept["mailbox"]:
            incoming = inside.codec.decode(frame)
            # where all go on from here, what is of later rounds will be sent again
            again = inside.synchronous and incoming.round >= found.round
            if incoming.message is not None and not again:
                inside.mailbox.put(source, incoming.round, incoming.message, incoming.step)
        ledger.completed = found.round
        inside.reporter.go_on(found.time_s)
        if kept["incarnation"] == inside.plan.incarnation:
            inside.world.transport.go_on(kept["sequences"])


def counted(ledger: Ledger, exchanger: Exchanger, dropped: Counter[str]) -> dict[str, Any]:
    """What a node has counted, as plain data."""
    return {
        "received": asdict(ledger.received),
        "arrivals": {source: list(pair) for source, pair in ledger.arrivals.items()},
        "refused": dict(ledger.refused + dropped),
        "gradients": ledger.gradients,
        "compute_s": ledger.compute_s,
        "exchanges": dict(exchanger.counters),
        "links": {target: _counts_of(link) for target, link in ledger.links.items()},
    }


def recount(ledger: Ledger, exchanger: Exchanger, found: Mapping[str, Any]) -> None:
    """Count on from what :func:`counted` gave; on top of what was counted since the start."""
    ledger.taken_over = True
    ledger.received.add(ByteCount(**found["received"]))
    for source, (size_bytes, messages) in found["arrivals"].items():
        before_bytes, before = ledger.arrivals.get(source, (0, 0))
        ledger.arrivals[source] = (before_bytes + size_bytes, before + messages)
    ledger.refused.update(found["refused"])
    ledger.gradients += found["gradients"]
    ledger.compute_s += found["compute_s"]
    exchanger.counters.update(found["exchanges"])
    for target, counts in found["links"].items():
        link = ledger.links.get(target)
        if link is not None:
            _count_on(link, counts)


def _counts_of(link: LinkCounters) -> dict[str, Any]:
    """All but the lags and what is on its way, which are the process's own."""
    own = ("counts", "lag", "in_flight_messages", "in_flight_bytes")
    plain = {key: value for key, value in vars(link).items() if key not in own}
    return plain | {"bytes": asdict(link.counts)}


def _count_on(link: LinkCounters, counts: Mapping[str, Any]) -> None:
    link.counts.add(ByteCount(**counts["bytes"]))
    # what of that was on its way nobody knows any more
    link.in_flight_messages = None
    for name, held in counts.items():
        if isinstance(held, dict) and name != "bytes":
            # (messages, bytes) by event
            mine = getattr(link, name)
            for event, pair in held.items():
                before = mine.get(event, (0, 0))
                mine[event] = (before[0] + pair[0], before[1] + pair[1])
        elif name != "bytes":
            setattr(link, name, getattr(link, name) + held)
