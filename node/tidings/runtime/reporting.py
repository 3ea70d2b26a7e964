"""When a node's model is evaluated, and what goes into the row."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from tidings.api.problems import LocalProblem
from tidings.runtime.ledger import Ledger, measure
from tidings.runtime.plan import NodePlan
from tidings.runtime.world import World
from tidings.v1 import records_pb2 as records


class Reporter:
    """Has one node's models evaluated beside the run. Models are (d,) float32, copied."""

    def __init__(self, plan: NodePlan, problem: LocalProblem, world: World) -> None:
        self._plan = plan
        self._problem = problem
        self._world = world
        self._metrics: Mapping[str, float] = {}
        self._evaluated_s = self._reported_s = 0.0

    def go_on(self, time_s: float) -> None:
        """The node stands where it stood at an emulated time."""
        self._evaluated_s = self._reported_s = time_s

    async def report(
        self, ledger: Ledger, model: torch.Tensor, round_: int, metrics: Mapping[str, float]
    ) -> None:
        """A round is finished; evaluates where that is due, but for the last, which ends it all."""
        ledger.completed, self._metrics = round_ + 1, metrics
        now_s = self._reported_s = self._world.clock.now_s
        every, every_s = self._plan.evaluate_rounds, self._plan.evaluate_s
        due = every is not None and ledger.completed % every == 0
        if every_s is not None:
            due = due or now_s >= self._evaluated_s + every_s
        if due and ledger.completed != self._plan.stop_rounds:
            await self.evaluate(ledger, model)

    async def catch_up(self, ledger: Ledger, model: torch.Tensor, round_: int) -> None:
        """Make up for evaluations that fell due before ``round_`` while the node had no part.

        Nothing of it has changed since it last reported, so that is the time of these rows.
        """
        every = self._plan.evaluate_rounds
        if every is not None:
            first = (ledger.completed // every + 1) * every
            for completed in range(first, round_ + 1, every):
                if completed != self._plan.stop_rounds:
                    ledger.completed = completed
                    await self.evaluate(ledger, model, self._reported_s)
        ledger.completed = max(ledger.completed, round_)

    async def evaluate(
        self, ledger: Ledger, model: torch.Tensor, time_s: float | None = None, final: bool = False
    ) -> None:
        """Evaluate a model, as of now or of an earlier emulated time."""
        self._evaluated_s = self._world.clock.now_s
        x = model.clone()
        row = ledger.row(
            self._evaluated_s if time_s is None else time_s, final, dict(self._metrics)
        )

        def work() -> records.Evaluation:
            measure(row, self._problem.evaluate(x), x, self._plan.seed)
            return row

        await self._world.evaluate(work)
