"""A node as a fault finds it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tidings.faults.base import Heal, Striker, nothing
from tidings.links.layers import Layer, compose
from tidings.runtime import disturbing
from tidings.runtime.plan import AttackPlan, derive_rng
from tidings.runtime.strikes import Cut

if TYPE_CHECKING:
    from tidings.runtime.node import RuntimeNode
    from tidings.runtime.world import World


@dataclass
class NodeSite:
    """The node, for one event; ``timed``: it begins at a point in time, not with a round."""

    node: RuntimeNode
    world: World
    event: str
    timed: bool

    def lay(self, targets: Sequence[int], layer: Layer) -> Heal:
        """As Site.lay; one target at a time. Where the kernel imposes the link, what it has let
        through meanwhile is in the detail; OSError where it refuses."""
        (target,) = targets
        before = self.world.wire_bytes(target)
        layers = self.node.layers.setdefault(target, {})
        layers[self.event] = layer
        try:
            self._reshape(target)
        except OSError:
            del layers[self.event]
            raise

        def heal() -> Mapping[str, Any]:
            layers.pop(self.event, None)
            after = self.world.wire_bytes(target)
            self._reshape(target)
            return {} if before is None or after is None else {"wire_bytes": after - before}

        return heal

    def _reshape(self, target: int) -> None:
        base = self.node.plan.links[target]
        self.world.reshape(target, compose(base, self.node.layers[target].values()))

    def strike(self, targets: Sequence[int], fresh: Callable[[], Striker]) -> Heal:
        """As Site.strike; one target at a time."""
        (target,) = targets
        return self.node.strikes.begin(target, self.event, fresh)

    def cut(self, targets: Sequence[int], reject: bool) -> Heal:
        """As Site.cut."""
        heal = self.strike(targets, lambda: Cut(reject))
        if self.timed:
            self.world.transport.discard(targets[0], self.event)
        return heal

    def reset(self, targets: Sequence[int]) -> Heal:
        """As Site.reset."""
        for target in targets:
            self.world.transport.reset(target)
        return nothing

    def slow(self, factor: float) -> Heal:
        """As Site.slow."""
        self.node.slowness[self.event] = factor
        return self._forget(self.node.slowness)

    def skew(self, offset_s: float, drift: float) -> Heal:
        """As Site.skew."""
        self.node.clock.skew(self.event, offset_s, drift)

        def heal() -> Mapping[str, Any]:
            self.node.clock.mend(self.event)
            return {}

        return heal

    def attack(self, config: Mapping[str, Any], attackers: Sequence[int]) -> Heal:
        """As Site.attack."""
        before = self.node.turn(AttackPlan(config=dict(config), attackers=tuple(attackers)))

        def heal() -> Mapping[str, Any]:
            self.node.turn(before)
            return {}

        return heal

    def disturb(self, kind: str, strength: float) -> Heal:
        """As Site.disturb; ValueError where the problem's data cannot be disturbed."""
        plan = self.node.plan
        rng = derive_rng(plan.seed, plan.node, "fault", self.event)
        disturbed = {"label_noise": disturbing.noisy, "shift": disturbing.shifted}[kind]
        return self.node.disturb(self.event, lambda problem: disturbed(problem, strength, rng))

    def stress(self, workers: int, memory_bytes: int) -> Heal:
        """As Site.stress; the load ends with the node, whatever ends that."""
        if not self.world.native:
            raise NotImplementedError("there is no load in virtual time")
        from tidings.runtime.stress import load

        return load(workers, memory_bytes)

    def fail_store(self, reason: str) -> Heal:
        """As Site.fail_store."""
        return self.node.fail_store(self.event, reason)

    def leave(self) -> Heal:
        """As Site.leave."""
        self.node.take_leave()
        return self._close(deaf=True)

    def stand_still(self) -> Heal:
        """Let the node wait, and what arrives with it."""
        return self._close(deaf=False)

    def _close(self, deaf: bool) -> Heal:
        self.node.gate.close(self.event, deaf)

        def heal() -> Mapping[str, Any]:
            self.node.gate.open(self.event)
            if deaf:
                self.node.returned()
            return {}

        return heal

    def rewire(self) -> Heal:
        """As Site.rewire; ValueError where the plan has no other graph."""
        # another occurrence of the event has the same one
        event = self.event.partition("#")[0]
        if event not in self.node.plan.graphs:
            raise ValueError(f"the plan has no graph for '{event}'")
        self.node.rewired[self.event] = self.node.plan.graphs[event]

        def heal() -> Mapping[str, Any]:
            self.node.rewired.pop(self.event, None)
            return {}

        return heal

    def later(self, delay_s: float, what: Callable[[], None]) -> Callable[[], None]:
        """As Site.later."""
        loop = asyncio.get_running_loop()
        handle = loop.call_later(delay_s * self.world.time_scale, what)
        return handle.cancel

    def _forget(self, there: dict[str, float]) -> Heal:
        def heal() -> Mapping[str, Any]:
            there.pop(self.event, None)
            return {}

        return heal
