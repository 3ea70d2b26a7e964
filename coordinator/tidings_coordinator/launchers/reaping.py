"""Finds and removes what killed runs have left on this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tidings.errors import UserError
from tidings_coordinator.launchers import docker_parts, namespaces
from tidings_coordinator.launchers.owner import Owner


@dataclass(frozen=True)
class Leftover:
    """What one run has left in one place."""

    owner: Owner | None
    names: list[str]
    remove: Callable[[], None]

    @property
    def run(self) -> str:
        """The run, as far as it is known."""
        return self.owner.run if self.owner is not None and self.owner.run else "of unknown run"


def leftovers() -> list[Leftover]:
    """Everything that Tidings runs of this machine have made and not removed, live runs' too."""
    found = []
    if os.geteuid() == 0 and shutil.which("ip") is not None:
        for key, (owner, names) in sorted(namespaces.found().items()):
            found.append(Leftover(owner, names, partial(namespaces.remove, key)))
    for run, (owner, names) in sorted(docker_parts.found().items()):
        found.append(Leftover(owner, names, partial(docker_parts.remove, run)))
    return found


def reap(dry: bool, say: Callable[[str], None]) -> None:
    """Remove what no running process owns, and list it; UserError where that needs more rights."""
    if os.geteuid() != 0:
        raise UserError("reap: network namespaces and containers of others need root to be removed")
    removed = 0
    for leftover in leftovers():
        if leftover.owner is not None and leftover.owner.alive:
            say(f"kept: run {leftover.run} is still going on (process {leftover.owner.pid})")
            continue
        if not dry:
            leftover.remove()
        removed += len(leftover.names)
        for name in leftover.names:
            say(f"{'would remove' if dry else 'removed'}: {name} (run {leftover.run})")
    if removed == 0:
        say("nothing was left behind")
