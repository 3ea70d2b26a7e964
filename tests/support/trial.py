"""A simulated run that is driven step by step: time goes on, things break, invariants are checked.

Every trial can be done again from its set-up and its steps, which are plain data.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from support.plans import QUADRATIC, plans
from support.scripts import Commit, check_atomic, take_part
from tidings.api import Node, Outcome, Protocol
from tidings.links.shape import LinkShape
from tidings.runtime.node import RuntimeNode
from tidings.runtime.observer import Observer
from tidings.runtime.plan import ArmedFault, CheckpointPlan, ComputePlan
from tidings.runtime.simulation import Controls, Run, arm_crash
from tidings.transports.base import LinkCounters
from tidings.transports.virtual_time import VirtualLoop, cancel_all

R = TypeVar("R")

NODES, ROUNDS = 5, 60
#: virtual seconds in which a run must end in which nothing is broken any more
ENDS_S = 30.0
SUSPECT_S = 0.02


@dataclass(frozen=True)
class Swap(Protocol):
    """Every round an exchange of whole numbers, whose sum is to stay what it is."""

    #: planted: so many commits, and one more takes something that nobody has given
    leak_after: float = math.inf
    commits: list[Commit] = field(default_factory=list, init=False)

    async def run(self, node: Node) -> None:
        """Until as many are done as there are to be rounds."""
        x = take_part(node, self.commits)
        x.fill_(100.0 * (node.id + 1))
        for _ in node.rounds():
            await node.sleep(0.004 * node.rng("pace").exponential())
            while True:
                peer = int(node.rng("peer").choice(node.neighbors))
                if await node.exchange(peer) is Outcome.DELIVERED:
                    break
                await node.sleep(0.005 * node.rng("retry").random())
            if len(self.commits) > self.leak_after:
                x.add_(1.0)
            await node.report()


PROTOCOLS: dict[str, Callable[[], Any]] = {
    "d_psgd": lambda: {"kind": "d_psgd", "lr": 0.05},
    "gradient_tracking": lambda: {"kind": "gradient_tracking", "lr": 0.02},
    "choco_sgd": lambda: {"kind": "choco_sgd", "lr": 0.05, "gamma": 0.3},
    "ad_psgd": lambda: {"kind": "ad_psgd", "lr": 0.05},
    "swap": Swap,
    "leaking_swap": lambda: Swap(leak_after=40),
}

#: what a link may suffer
LINK_FAULTS: dict[str, dict[str, Any]] = {
    "cut": {"kind": "link.cut"},
    "reject": {"kind": "link.cut", "mode": "reject"},
    "loss": {"kind": "link.loss", "p": 0.4},
    "twice": {"kind": "link.duplicate", "p": 0.4},
    "order": {"kind": "link.reorder", "p": 0.4, "by": "20ms"},
    "late": {"kind": "msg.delay", "p": 0.4, "by": "20ms"},
    "old": {"kind": "msg.replay", "p": 0.4},
    "short": {"kind": "msg.truncate", "p": 0.3},
    "narrow": {"kind": "link.shape", "rate": "200kbit/s", "delay": "5ms"},
}
CUTS = ("cut", "reject")


class Trial:
    """One run. ``setup``: protocol, topology, wait_for, loss, seed."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self.setup = setup
        #: (name, arguments) of all that was done
        self.steps: list[tuple[str, dict[str, Any]]] = []
        #: faults of links that are there: by name (node, targets)
        self.broken: dict[str, tuple[int, list[int]]] = {}
        self.paused: set[int] = set()
        self._cut: dict[str, dict[int, int]] = {}
        #: those that were killed
        self._died: set[int] = set()
        self._done_with = 0
        self._loop = VirtualLoop(setup["seed"])
        self._run, self._controls = self._within(self._build)
        self._main = self._loop.create_task(self._run.main())
        self.advance(0.001)

    def _build(self) -> tuple[Run, Controls]:
        made = plans(
            NODES,
            self.setup["topology"],
            PROTOCOLS[self.setup["protocol"]](),
            QUADRATIC,
            ROUNDS,
            link=LinkShape(20e6, 1_000_000, loss=self.setup["loss"]),
            seed=self.setup["seed"],
            wait_for=self.setup["wait_for"],
            wait_s=0.03,
            compute=ComputePlan(time_s=0.002, spread=0.3),
            checkpoint=CheckpointPlan(every_rounds=4),
        )
        run = Run(made, Observer(), self._loop)
        return run, Controls(run, SUSPECT_S)

    def _within(self, what: Callable[[], R]) -> R:
        async def call() -> R:
            return what()

        return self._loop.run_until_complete(call())

    @property
    def nodes(self) -> list[RuntimeNode]:
        """As they are now."""
        return self._run.nodes

    @property
    def dead(self) -> list[int]:
        """Those that were killed and are not back."""
        return [node.id for node in self.nodes if node.dead]

    @property
    def over(self) -> bool:
        """Whether all have finished."""
        return self._main.done()

    # -- what can be done ------------------------------------------------------------------------

    def do(self, name: str, **arguments: Any) -> None:
        """One step: what it says, and then all that must hold is looked at."""
        self.steps.append((name, arguments))
        getattr(self, name)(**arguments)
        self.check()

    def advance(self, seconds: float) -> None:
        """Let time go on."""

        async def wait() -> None:
            await asyncio.wait([self._main], timeout=seconds)

        self._loop.run_until_complete(wait())
        if self._main.done():
            self._main.result()

    def strike(self, kind: str, node: int, peers: list[int]) -> None:
        """Something befalls some of a node's outgoing links."""
        targets = [j for j in peers if j in self.nodes[node].plan.links]
        if node in self.dead or not targets or self.over:
            return
        self._done_with += 1
        event = f"{kind}{self._done_with}"
        armed = ArmedFault(event=event, fault=LINK_FAULTS[kind], targets=tuple(targets))
        if kind in CUTS:
            self._cut[event] = {j: _under_way(self.nodes[node].ledger.links[j]) for j in targets}
        self.broken[event] = (node, targets)
        self._within(lambda: self._controls.begin(node, armed))

    def heal(self, number: int) -> None:
        """One of the faults of links is over, by its place among those that are there."""
        if self.broken:
            event = list(self.broken)[number % len(self.broken)]
            node, _ = self.broken.pop(event)
            self._cut.pop(event, None)
            self._within(lambda: self._controls.heal(node, event, 0))

    def swizzle(self, node: int, gap_s: float) -> None:
        """All links of a node are cut one after the other, and mended in another order."""
        for peer in self.nodes[node].plan.links:
            for one, other in ((node, peer), (peer, node)):
                self.strike("cut", one, [other])
                self.advance(gap_s)
        for place in (1, 0, 2, 0, 1, 0, 1, 0):
            self.heal(place)
            self.advance(gap_s)

    def kill(self, node: int) -> None:
        """The node dies now."""
        if node not in self.dead and not self.over:
            self._forget(node)
            self._within(lambda: self._controls.kill(node, comes_back=True))

    def kill_between_sends(self, node: int, sends: int) -> None:
        """The node dies after so many more sends, before the next one."""
        if node not in self.dead and not self.over:
            self._within(lambda: arm_crash(self._run, node, sends, SUSPECT_S, None))

    def restart(self, node: int, lose_state: bool) -> None:
        """A node that was killed comes back."""
        if node in self.dead and not self.over:
            self._forget(node)
            self._within(lambda: self._controls.restart(node, lose_state))

    def pause(self, node: int) -> None:
        """The node stands still."""
        if node not in self.dead and node not in self.paused:
            self.paused.add(node)
            self._within(lambda: self._controls.pause(node, "pause"))

    def resume(self, node: int) -> None:
        """The node goes on."""
        if node in self.paused:
            self.paused.discard(node)
            self._within(lambda: self._controls.resume(node, "pause"))

    def calm(self) -> None:
        """Everything is mended, and so everyone gets on."""
        self._mend()
        before = [node.ledger.completed for node in self.nodes]
        left_s = ENDS_S

        def standing() -> list[RuntimeNode]:
            pairs = zip(self.nodes, before, strict=True)
            # one may have been killed between two sends meanwhile
            living = [(node, was) for node, was in pairs if not node.dead]
            return [node for node, was in living if node.ledger.completed <= was < ROUNDS]

        while not self.over and standing() and left_s > 0:
            if self.dead:
                # killed between two sends meanwhile: with both neighbours dead nobody can go on
                self._mend()
            self.advance(0.02)
            left_s -= 0.02
        assert self.over or not standing(), "nothing is broken, and some stand still: " + "; ".join(
            f"node {node.id}: {node.waiting.describe()}" for node in standing()
        )

    def finish(self) -> None:
        """Everything is mended, and the run comes to its end."""
        left_s = ENDS_S
        while not self.over and left_s > 0:
            self._mend()
            self.advance(0.5)
            left_s -= 0.5
        assert self.over, "nothing is broken, and the run does not end: " + "; ".join(
            f"node {node.id}: {node.waiting.describe()}" for node in self.nodes
        )
        for node in self.nodes:
            # one that comes back goes on where its neighbours are
            was_away = node.dead or node.id in self._died
            left_out = not was_away and node.ledger.completed < ROUNDS
            assert not left_out, f"node {node.id} has left out rounds"
        self._check_sums()

    def close(self) -> None:
        """Leave nothing behind."""
        self._main.cancel()
        cancel_all(self._loop)
        self._loop.close()

    def _mend(self) -> None:
        while self.broken:
            self.heal(0)
        for node in list(self.paused):
            self.resume(node)
        for node in self.dead:
            self.restart(node, lose_state=False)

    def _forget(self, node: int) -> None:
        """What a node does to itself ends with it."""
        self._died.add(node)
        self.paused.discard(node)
        for event in [event for event, (where, _) in self.broken.items() if where == node]:
            del self.broken[event]
            self._cut.pop(event, None)

    # -- what must hold --------------------------------------------------------------------------

    def check(self) -> None:
        """At any time: nothing comes from nowhere, and nothing over a cut."""
        for node in self.dead:
            # it died between two sends
            self._forget(node)
        for node in self.nodes:
            for target, link in node.ledger.links.items():
                came = self._came(node.id, target)
                assert came <= _under_way(link), f"more came over {node.id}->{target} than left"
                # what comes to a paused node it has not seen yet
                if not {node.id, target} & (self._died | self.paused):
                    on_its_way = _under_way(link) - came
                    assert link.in_flight_messages == on_its_way, f"{node.id}->{target}"
        for event, links in self._cut.items():
            node_id, _ = self.broken[event]
            for target, most in links.items():
                came = self._came(node_id, target)
                assert came <= most, f"{came - most} messages passed the cut {node_id}->{target}"

    def _came(self, source: int, target: int) -> int:
        return self.nodes[target].ledger.came(source)

    def _check_sums(self) -> None:
        """At the end: exchanges are atomic, and what they move is neither made nor lost."""
        doubt = sum(node.final().counters.get("exchange_in_doubt", 0) for node in self.nodes)
        protocol = self.nodes[0].protocol
        if not isinstance(protocol, Swap) or self._died or self.dead or doubt:
            return
        check_atomic([commit for node in self.nodes for commit in _commits(node)])
        total = sum(float(torch.sum(node.model)) / len(node.model) for node in self.nodes)
        assert total == 100.0 * NODES * (NODES + 1) / 2, f"the sum of all is {total:g}"


def _commits(node: RuntimeNode) -> list[Commit]:
    assert isinstance(node.protocol, Swap)
    return [commit for commit in node.protocol.commits if commit[0] == node.id]


def _under_way(link: LinkCounters) -> int:
    """How many messages have been handed to a link and are not lost."""
    lost = link.lost_messages + link.undeliverable_messages
    lost += sum(messages for messages, _ in link.faulted.values())
    return link.messages + link.duplicated_messages - lost


def carry_out(setup: dict[str, Any], steps: list[tuple[str, dict[str, Any]]]) -> None:
    """Do a trial again; raises what it raised."""
    trial = Trial(setup)
    try:
        for name, arguments in steps:
            trial.do(name, **arguments)
    finally:
        trial.close()
