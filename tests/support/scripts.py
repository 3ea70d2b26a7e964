"""Scripts of exchanges: what each node does, what it notes, what was committed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from support.plans import IDEAL, plans
from tidings.api import Message, Node, Protocol, Weights
from tidings.links.shape import LinkShape
from tidings.runtime.simulation import Simulated, simulate

#: nanoseconds
SECOND = 1_000_000_000
TINY: dict[str, Any] = {"kind": "quadratic", "dim": 2, "structure": "diagonal"}

Role = Callable[["Script", Node], Awaitable[None]]
SCRIPTS: dict[str, Role] = {}

#: (node, peer, given, taken)
Commit = tuple[int, int, float, float]


def take_part(node: Node, commits: list[Commit]) -> torch.Tensor:
    """Give half of what one has, rounded down to whole numbers, so that all sums are exact."""
    x = node.model

    def offer(peer: int, seen: Message | None) -> Weights:
        return Weights(torch.floor(x / 2))

    def commit(peer: int, mine: Weights, theirs: Weights) -> None:
        x.add_(theirs.x - mine.x)
        commits.append((node.id, peer, float(mine.x[0]), float(theirs.x[0])))

    node.on_exchange(offer, commit)
    return x


def check_atomic(commits: list[Commit]) -> None:
    """What one end committed, the other did too, with the same two values."""
    assert Counter(commits) == Counter((j, i, b, a) for i, j, a, b in commits)


def script(role: Role) -> Role:
    """Makes a function playable."""
    SCRIPTS[role.__name__] = role  # type: ignore[attr-defined]
    return role


@dataclass(frozen=True)
class Script(Protocol):
    """Runs a script as each node; keeps commits and notes."""

    script: str
    commits: list[Commit] = field(default_factory=list, init=False)
    notes: list[tuple[Any, ...]] = field(default_factory=list, init=False)

    async def run(self, node: Node) -> None:
        x = take_part(node, self.commits)
        x.fill_(100.0 * (node.id + 1))
        await SCRIPTS[self.script](self, node)

    def note(self, node: Node, *what: Any) -> None:
        self.notes.append((node.id, round(node.clock.now_s, 3), *what))


def play(
    role: Role,
    nodes: int = 2,
    link: LinkShape | Callable[[int, int], LinkShape] = IDEAL,
    problem: dict[str, Any] = TINY,
    seed: int = 1,
    **options: Any,
) -> tuple[Script, Simulated]:
    """Two nodes or more, all connected, play a script."""
    protocol = Script(role.__name__)  # type: ignore[attr-defined]
    made = plans(nodes, "complete", protocol, problem, 1, link=link, seed=seed, wait_s=30.0)
    return protocol, simulate(made, **options)
