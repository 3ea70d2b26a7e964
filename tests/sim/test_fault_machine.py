"""Hypothesis' state machine breaks a simulated run step by step; invariants hold after each.

TIDINGS_SCHEDULES says how many schedules are tried, each of up to 15 steps.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.schedules import packed, replayable, unpacked
from support.trial import LINK_FAULTS, NODES, Trial, carry_out

pytestmark = pytest.mark.sim

SCHEDULES = int(os.environ.get("TIDINGS_SCHEDULES", "25"))
SETTINGS = settings(
    max_examples=SCHEDULES,
    stateful_step_count=15,
    deadline=None,
    report_multiple_bugs=False,
    # a schedule is short already, and shrinking one takes minutes
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
NODE = st.integers(0, NODES - 1)
SHORT = st.sampled_from([0.001, 0.003, 0.01, 0.04])


class Machine(RuleBasedStateMachine):
    """Rules for everything that can befall a run."""

    protocols: ClassVar[list[str]] = ["d_psgd", "gradient_tracking", "choco_sgd", "ad_psgd", "swap"]

    def __init__(self) -> None:
        super().__init__()
        self.trial: Trial | None = None

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        setup = {
            "protocol": data.draw(st.sampled_from(self.protocols)),
            "topology": data.draw(st.sampled_from(["ring", "complete"])),
            "wait_for": data.draw(st.sampled_from(["all", "live", 1])),
            "loss": data.draw(st.sampled_from([0.0, 0.05])),
            "seed": data.draw(st.integers(0, 10**6)),
        }
        self.trial = Trial(setup)

    def do(self, name: str, **arguments: Any) -> None:
        assert self.trial is not None
        steps = [*self.trial.steps, (name, arguments)]
        with replayable({"setup": self.trial.setup, "steps": steps}):
            self.trial.do(name, **arguments)

    @property
    def going(self) -> bool:
        return self.trial is not None and not self.trial.over

    @precondition(lambda self: self.going)
    @rule(seconds=SHORT)
    def advance(self, seconds: float) -> None:
        self.do("advance", seconds=seconds)

    @precondition(lambda self: self.going)
    @rule(
        kind=st.sampled_from(sorted(LINK_FAULTS)),
        node=NODE,
        peers=st.lists(NODE, min_size=1, unique=True),
        seconds=SHORT,
    )
    def strike(self, kind: str, node: int, peers: list[int], seconds: float) -> None:
        self.do("strike", kind=kind, node=node, peers=sorted(peers))
        self.do("advance", seconds=seconds)

    @precondition(lambda self: self.going and self.trial.broken)
    @rule(number=st.integers(0, 9))
    def heal(self, number: int) -> None:
        self.do("heal", number=number)

    @precondition(lambda self: self.going)
    @rule(node=NODE, gap_s=SHORT)
    def swizzle(self, node: int, gap_s: float) -> None:
        self.do("swizzle", node=node, gap_s=gap_s)

    @precondition(lambda self: self.going and len(self.trial.dead) < 2)
    @rule(node=NODE)
    def kill(self, node: int) -> None:
        self.do("kill", node=node)

    @precondition(lambda self: self.going and len(self.trial.dead) < 2)
    @rule(node=NODE, sends=st.integers(0, 5), seconds=SHORT)
    def kill_between_sends(self, node: int, sends: int, seconds: float) -> None:
        self.do("kill_between_sends", node=node, sends=sends)
        self.do("advance", seconds=seconds)

    @precondition(lambda self: self.going and self.trial.dead)
    @rule(place=st.integers(0, 1), lose_state=st.booleans())
    def restart(self, place: int, lose_state: bool) -> None:
        assert self.trial is not None
        node = self.trial.dead[place % len(self.trial.dead)]
        self.do("restart", node=node, lose_state=lose_state)

    @precondition(lambda self: self.going)
    @rule(node=NODE, seconds=SHORT)
    def pause(self, node: int, seconds: float) -> None:
        self.do("pause", node=node)
        self.do("advance", seconds=seconds)

    @precondition(lambda self: self.going and self.trial.paused)
    @rule(place=st.integers(0, NODES))
    def resume(self, place: int) -> None:
        assert self.trial is not None
        paused = sorted(self.trial.paused)
        self.do("resume", node=paused[place % len(paused)])

    @precondition(lambda self: self.going)
    @rule()
    def calm(self) -> None:
        self.do("calm")

    @precondition(lambda self: not self.going)
    @rule()
    def rest(self) -> None:
        """The run is over before the schedule is."""

    def teardown(self) -> None:
        if self.trial is None:
            return
        try:
            # after a failure there is no more to see
            if sys.exc_info()[0] is None:
                self.do("finish")
        finally:
            self.trial.close()


TestMachine = Machine.TestCase
TestMachine.settings = SETTINGS


class Leaking(Machine):
    """With a protocol that has a fault of its own."""

    protocols: ClassVar[list[str]] = ["leaking_swap"]


def test_what_fails_prints_one_command_that_fails_the_same_way() -> None:
    with pytest.raises(AssertionError, match="the sum of all is") as caught:
        run_state_machine_as_test(Leaking, settings=settings(SETTINGS, max_examples=5))
    (told,) = [note for note in caught.value.__notes__ if "to see it again: " in note]
    program, *arguments = shlex.split(told.partition(": ")[2])
    assert program == "python"
    again = subprocess.run(
        [sys.executable, *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 1
    assert str(caught.value).splitlines()[0] in again.stderr.splitlines()[-1]


def test_what_was_held_back_does_not_pass_a_cut() -> None:
    setup = {"protocol": "d_psgd", "topology": "ring", "wait_for": 1, "loss": 0.0, "seed": 2}
    all_ = list(range(NODES))
    late = [("strike", {"kind": "late", "node": node, "peers": all_}) for node in all_]
    cut = [("strike", {"kind": "cut", "node": node, "peers": all_}) for node in all_]
    carry_out(setup, [*late, ("advance", {"seconds": 0.015}), *cut, ("advance", {"seconds": 0.05})])


def test_a_schedule_survives_its_way_into_a_command() -> None:
    schedule = {"setup": {"seed": 1}, "steps": [["advance", {"seconds": 0.01}]]}
    assert unpacked(packed(schedule)) == schedule
