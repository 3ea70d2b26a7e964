"""The node: everything that the API promises, on top of a transport and a world."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any, TypeVar

import numpy as np
import torch

from tidings.api.message import Message
from tidings.api.node import Outcome, Outgoing
from tidings.api.plugins import Attack
from tidings.api.problems import LocalProblem
from tidings.errors import NodeCrashed
from tidings.faults.base import Heal, Mail
from tidings.links.layers import Layer
from tidings.runtime.agent import FaultAgent
from tidings.runtime.byzantine import attacker_for
from tidings.runtime.engaged import Engaged, Handshake
from tidings.runtime.keeping import Insides, Keeper
from tidings.runtime.ledger import Ledger
from tidings.runtime.parts import Parts
from tidings.runtime.plan import ArmedFault, AttackPlan, NodePlan, Phase, Rewired, derive_rng
from tidings.runtime.reporting import Reporter
from tidings.runtime.site import NodeSite
from tidings.runtime.strikes import Strikes
from tidings.runtime.turns import Recorder, in_turn
from tidings.runtime.world import World
from tidings.v1 import control_pb2 as control
from tidings.v1 import records_pb2 as records

R = TypeVar("R")

#: (a share of the problem) -> the same with other data
Disturb = Callable[[LocalProblem], LocalProblem]


class RuntimeNode(Engaged):
    """A node of a run; see :class:`tidings.api.Node` for what its methods mean.

    Life: ``begin`` starts the protocol, ``end`` winds it up, ``crash`` kills it at once.
    """

    def __init__(self, plan: NodePlan, parts: Parts, world: World) -> None:
        super().__init__(plan, parts, world)
        self.model = self.problem.initial()
        self._honest_problem = parts.problem
        self._disturbed: dict[str, Disturb] = {}
        self._attack: AttackPlan | None = None
        self.turn(plan.attack)
        self._rngs: dict[str, np.random.Generator] = {}
        #: what faults do to the node: layers over its links, strikes at its messages, ...
        self.layers: dict[int, dict[str, Layer]] = {}
        self.strikes = Strikes(world.transport, plan.seed, plan.node, world.time_scale)
        self.slowness: dict[str, float] = {}
        self.rewired: dict[str, Rewired] = {}
        self._graph: Rewired | None = None
        self.agent = FaultAgent(plan.node, world, lambda e, t: NodeSite(self, world, e, t))
        #: set when it comes to a round that the coordinator waits for
        self.awaited = asyncio.Event()
        self._main: asyncio.Task[None] | None = None
        self._answers: asyncio.Task[None] | None = None
        #: whether it sends nothing more
        self._silenced = False
        self._reporter = Reporter(plan, parts.problem, world)
        insides = Insides(
            plan,
            self.codec,
            self.problem,
            world,
            self._rngs,
            self._mailbox,
            self._exchanger,
            self._reporter,
            self._attacker,
            self.protocol.synchronous,
        )
        self._keeper = Keeper(insides, world.store)

    # -- life ----------------------------------------------------------------------------

    def begin(self) -> asyncio.Task[None]:
        """Start the protocol; the task ends when the protocol's run() does."""
        # what was counted until now was measuring, not running
        self.ledger = Ledger(self.id, self._world.transport.links)
        self.timeline.begin()
        self._main = asyncio.create_task(self._live())
        self._answers = asyncio.create_task(self._exchanger.serve())
        self._answers.add_done_callback(self._answered)
        self.agent.arm(self.plan.faults, returning=self.plan.incarnation > 0)
        self._pulse.begin()
        return self._main

    async def _live(self) -> None:
        try:
            if self.plan.restore is None and not self.plan.incarnation:
                await self._evaluate(final=False)
            if self.turns is not None:
                await self.turns.reached(self.turns.call(), "begin")
            await self.protocol.run(self)
        except asyncio.CancelledError:
            self._check_answers()
            raise
        if not self._exchanger.participates:
            await self._evaluate(final=True)

    async def end(self) -> None:
        """Wind up: settle the open exchange, unwind the protocol, measure the final model.

        Peers that still ask what became of an exchange are answered for as long as the loop runs.
        """
        assert self._main is not None
        if isinstance(self.turns, Recorder):
            self.turns.note("over")
        self._over()
        # one that was paused takes what has come meanwhile, as a frozen process does
        self.gate.open_all()
        await self._exchanger.settle(self.plan.wait_s * self.plan.time_scale)
        finished = self._main.done()
        self._main.cancel()
        await asyncio.wait([self._main])
        self._check_answers()
        if self._exchanger.participates or not finished:
            await self._evaluate(final=True)

    def fall_silent(self) -> None:
        """Answer nobody any more, and send nothing; what comes is still counted."""
        self._silenced = True
        self._rejoiner.stop()
        if self._answers is not None:
            self._answers.cancel()

    def _over(self) -> None:
        self._ended.set()
        self.agent.heal_all("the end of the run")
        self.strikes.end()
        self._pulse.end()

    def _answered(self, answers: asyncio.Task[None]) -> None:
        """The answering has ended; of a node that is dead nobody asks how."""
        if not answers.cancelled():
            answers.exception()
        if self._main is not None:
            self._main.cancel()

    def _check_answers(self) -> None:
        """Raise what ended the answering: an offer or a commit of the protocol's that failed."""
        if self._answers is not None and self._answers.done():
            self._answers.result()
        self._rejoiner.check()

    def crash(self) -> None:
        """The fence: from now on no effect of this node is visible."""
        self.dead = True
        self.timeline.end()
        self.strikes.end()
        self._pulse.end()
        self.agent.stop()
        self._world.transport.abort()
        self._mailbox.clear()
        self._rejoiner.stop()
        for task in filter(None, (self._main, self._answers)):
            task.cancel()

    def _alive(self) -> None:
        if self.dead:
            raise NodeCrashed(f"node {self.id} is dead")

    # -- the graph -----------------------------------------------------------------------

    @property
    def _phase(self) -> Phase:
        """The node's place in the graph of this round."""
        return self._phase_in(self.round)

    def _phase_in(self, round_: int) -> Phase:
        phases, every = self.plan.phases, self.plan.phase_rounds
        if self._graph is not None:
            phases, every = self._graph.phases, self._graph.phase_rounds
        return phases[(round_ // every) % len(phases)]

    @property
    def out_neighbors(self) -> tuple[int, ...]:
        return self._phase.out_neighbors

    @property
    def in_neighbors(self) -> tuple[int, ...]:
        return tuple(sorted(self._phase.weights))

    @property
    def suspected(self) -> Set[int]:
        return self._suspected

    @property
    def all_neighbors(self) -> tuple[int, ...]:
        return tuple(sorted(self.plan.links))

    def weights_in(self, round_: int) -> Mapping[int, float]:
        return self._phase_in(round_).weights

    def weight(self, source: int) -> float:
        phase = self._phase
        return phase.self_weight if source == self.id else phase.weights[source]

    def share(self, target: int) -> float:
        phase = self._phase
        return phase.self_weight if target == self.id else phase.shares[target]

    # -- learning ------------------------------------------------------------------------

    def initial(self) -> torch.Tensor:
        return self.problem.initial()

    def rng(self, purpose: str) -> np.random.Generator:
        self._alive()
        if purpose not in self._rngs:
            self._rngs[purpose] = derive_rng(self.plan.seed, self.id, purpose)
        return self._rngs[purpose]

    def shared_rng(self, purpose: str) -> np.random.Generator:
        self._alive()
        return derive_rng(self.plan.seed, "shared", purpose)

    @in_turn
    async def compute(self, work: Callable[[], R], gradients: float = 1.0) -> R:
        self._alive()
        began_s = self._world.clock.now_s
        plan, luck = self.plan.compute, self.rng("compute time")
        slow = math.prod(self.slowness.values())
        cost_s = plan.cost_s(gradients * slow, self._world.native, luck)
        with self.waiting.working("computing"):
            result = await self._world.compute(work, cost_s, plan.factor * slow)
        await self.gate.passed()
        self._alive()
        self.ledger.gradients += round(gradients)
        self.ledger.compute_s += self._world.clock.now_s - began_s
        return result

    def rounds(self) -> Iterator[int]:
        self._next_round = self._first_round
        while True:
            number = self._next_round
            self._next_round += 1
            limit = self.plan.stop_rounds
            if self._ended.is_set() or (limit is not None and number >= limit):
                return
            self._alive()
            self._enter(number)
            yield number

    def _enter(self, round_: int) -> None:
        if any(self.round < awaited <= round_ for awaited in self.plan.report_rounds):
            self.awaited.set()
        self.round, self.step = round_, 0
        self.agent.entered(round_)
        # of several the last one counts; never within a round, whose messages are on their way
        self._graph = next(reversed(self.rewired.values()), None)

    @in_turn
    async def report(self, **metrics: float) -> None:
        self._alive()
        await self._reporter.report(self.ledger, self.model, self.round, metrics)

    @in_turn
    async def catch_up(self, round_: int) -> None:
        self._alive()
        await self._reporter.catch_up(self.ledger, self.model, round_)
        await self._keep(None, round_)
        self._enter(round_)

    async def _evaluate(self, final: bool) -> None:
        self._alive()
        await self._reporter.evaluate(self.ledger, self.model, final=final)

    # -- messages ------------------------------------------------------------------------

    @in_turn
    async def send(self, target: int, message: Message) -> Outcome:
        self._alive()
        if target not in self.plan.links:
            self.ledger.refused["not_a_neighbor"] += 1
            return Outcome.REFUSED
        if self._attacker is not None:
            message = await self._attacker.rewrite(message, target)
        elif self._world.oracle is not None:
            self._world.oracle.post(self.id, self.round, message)
        return await self._transmit(target, message, None)

    @in_turn
    async def send_all(self, outgoing: Outgoing) -> None:
        if self._attacker is not None or any(target not in self.plan.links for target in outgoing):
            await super().send_all(outgoing)
            return
        # a broadcast is encoded once, and is one snapshot of the sender's tensors
        if self._world.oracle is not None:
            for message in outgoing.values():
                self._world.oracle.post(self.id, self.round, message)
        distinct = {id(message): message for message in outgoing.values()}
        encoded = {
            key: self.codec.encode(m, self.round, step=self.step) for key, m in distinct.items()
        }
        for target in sorted(outgoing):
            message = outgoing[target]
            await self._post(Mail(target, type(message), self.round, encoded[id(message)]))

    async def _transmit(
        self, target: int, message: Message | None, handshake: Handshake | None
    ) -> Outcome:
        self._alive()
        frame = self.codec.encode(message, self.round, handshake, self.step)
        kind = None if message is None else type(message)
        outcome = await self._post(Mail(target, kind, self.round, frame))
        self._alive()
        return outcome

    async def _post(self, mail: Mail) -> Outcome:
        await self.gate.passed()
        self._alive()
        if self._silenced:
            return Outcome.REFUSED
        if self.strikes.rejected(mail):
            self.ledger.refused["rejected"] += 1
            return Outcome.REFUSED
        with self.waiting.working():
            await self.strikes.send(mail)
        return Outcome.UNKNOWN

    def turn(self, attack: AttackPlan | None) -> AttackPlan | None:
        """Be Byzantine from now on, or honest; what it was before."""
        before, self._attack = self._attack, attack
        self._attacker = attacker_for(
            self.plan, attack, self.protocol, self, self._spy, self._world.oracle
        )
        problem = self._honest_problem
        for disturb in self._disturbed.values():
            problem = disturb(problem)
        self.problem = problem if attack is None else Attack.parse(attack.config).poison(problem)
        return before

    def disturb(self, event: str, how: Disturb) -> Heal:
        """Learn from other data, until it is healed; ValueError where that cannot be."""
        how(self._honest_problem)
        self._disturbed[event] = how
        self.turn(self._attack)

        def heal() -> Mapping[str, Any]:
            self._disturbed.pop(event, None)
            self.turn(self._attack)
            return {}

        return heal

    def fail_store(self, event: str, error: str) -> Heal:
        """Let checkpoints fail, with the system's error of that name."""
        return self._keeper.fail(event, error)

    def obey(self, message: control.CoordinatorMessage) -> None:
        """Carry out a command that came during the run."""
        if message.HasField("membership"):
            self.told(message.membership.node, message.membership.present)
        elif message.HasField("fault") and message.fault.HasField("heal"):
            self.agent.heal(message.fault.heal.event, message.fault.heal.occurrence)
        elif message.HasField("fault"):
            self.agent.begin(ArmedFault.model_validate_json(message.fault.begin))

    # -- records -------------------------------------------------------------------------

    def log(self, event: str, **fields: object) -> None:
        self._alive()
        self._world.event(
            records.Event(
                node=self.id, time_s=self._world.clock.now_s, name=event, fields=json.dumps(fields)
            )
        )

    @property
    def refused(self) -> Counter[str]:
        """What was not used so far, by reason; for any thread."""
        return self.ledger.with_refused(self._mailbox.dropped, self._world.transport.refused)

    def final(self) -> records.Final:
        """What this node has to say when it is over."""
        counters = {"exchange_" + name: n for name, n in self._exchanger.counters.items()}
        counters |= {"checkpoints_" + name: n for name, n in self._keeper.counters.items()}
        return self.ledger.final(self.model, self.refused, counters)
