"""The director against hands that only take down what they are told to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from support.faults import BASE, fired

from tidings.runtime.plan import ArmedFault
from tidings.v1 import records_pb2 as records
from tidings_coordinator.faults.director import Director
from tidings_coordinator.faults.hands import Done, Hands, View
from tidings_coordinator.faults.successor import Successor
from tidings_coordinator.faults.verdict import applied, verdict

pytestmark = pytest.mark.unit

FOREVER = BASE.replace("time: 60s", "time: 600s")


class Told(Hands):
    def __init__(self) -> None:
        self.done: list[tuple[Any, ...]] = []

    def begin(self, node: int, armed: ArmedFault) -> None:
        self.done.append(("begin", node, armed.event, armed.targets))

    def heal(self, node: int, event: str, occurrence: int) -> None:
        self.done.append(("heal", node, event))

    def kill(self, node: int, comes_back: bool) -> None:
        self.done.append(("kill", node))

    def pause(self, node: int, event: str) -> None:
        self.done.append(("pause", node))

    def resume(self, node: int, event: str) -> None:
        self.done.append(("resume", node))

    def restart(self, node: int, lose_state: bool) -> None:
        self.done.append(("restart", node, lose_state))

    def tell(self, node: int, present: bool) -> None:
        self.done.append(("tell", node, present))

    def hang_up(self, done: Done) -> None:
        self.done.append(("hang_up",))
        self.answer = done

    def listen(self, done: Done) -> None:
        self.done.append(("listen",))
        self.answer = done

    def crash(self, after_s: float) -> None:
        self.done.append(("crash", after_s))

    def take(self) -> list[tuple[Any, ...]]:
        done, self.done = self.done, []
        return done


class Scene:
    def __init__(self, *events: str) -> None:
        self.firings = fired(*events, base=FOREVER)
        self.hands = Told()
        self.lines: list[Mapping[str, Any]] = []
        self.rows: list[Mapping[str, Any]] = []
        self.director = Director(self.firings, range(8), self.hands, self.lines.append)

    def succeeded(self) -> list[tuple[Any, ...]]:
        """Another director knows what is written down; what it does at once."""
        self.hands = Told()
        self.director = successor = Successor(self.firings, range(8), self.hands, self.lines.append)
        successor.recall(list(self.lines), self.rows)
        assert self.hands.done == []
        successor.settle(self.view)
        return self.hands.take()

    def at(self, time_s: float, rounds: int = 0, sent_bytes: int = 0) -> list[tuple[Any, ...]]:
        """Let the run be there; what the director does."""
        self.view = View(time_s, dict.fromkeys(range(8), rounds), sent_bytes)
        self.director.tick(self.view)
        return self.hands.take()

    def measured(self, node: int, **metrics: float) -> list[tuple[Any, ...]]:
        self.rows.append({"node": node, "time_s": self.view.time_s, "metrics": metrics})
        self.director.row(records.Evaluation(node=node, metrics=metrics), self.view)
        return self.hands.take()

    def states(self) -> list[tuple[str, str, str]]:
        return [(line["event"], line["target"], line["state"]) for line in self.lines]


def test_crash_and_restart() -> None:
    scene = Scene("{id: a, fault: node.crash, on: 2, at: 3s, with: {restart_after: 2s}}")
    assert scene.director.next_s() == 3
    assert scene.at(2.9) == []
    assert scene.at(3.0) == [("kill", 2)]
    assert scene.director.dead == {2}
    assert scene.director.next_s() == 5
    assert scene.at(4.9) == []
    assert scene.at(5.1) == [("restart", 2, False)]
    assert scene.director.dead == set()
    assert scene.states() == [("a", "2", "active"), ("a", "2", "recovered")]
    assert verdict(applied(scene.firings, scene.lines)) == "all"


def test_a_crash_without_return_is_applied_when_it_has_happened() -> None:
    scene = Scene("{id: a, fault: node.crash, on: 2, at: 3s}")
    assert verdict(applied(scene.firings, scene.lines)) == "none"
    scene.at(3.0)
    assert verdict(applied(scene.firings, scene.lines)) == "all"


def test_what_a_node_does_to_itself_ends_with_its_death() -> None:
    scene = Scene(
        "{id: cut, fault: link.cut, on: [2->3, 4->5], from: 1s, to: 4s}",
        "{id: dead, fault: node.crash, on: 2, at: 3s, with: {restart_after: 2s}}",
    )
    for node, target in ((2, "2->3"), (4, "4->5")):
        begun = records.FaultChange(
            node=node, event="cut", fault="link.cut", target=target, state="active", time_s=1.0
        )
        scene.director.change(begun, View(1.0, {}, 0))
    scene.at(3.0)
    assert ("cut", "2->3", "recovered") in scene.states()
    assert ("cut", "4->5", "recovered") not in scene.states()
    # node 2 is back when the cut is over, and has nothing to say of it
    scene.at(5.0)
    (cut, _) = applied(scene.firings, scene.lines)
    assert (cut["active"], cut["recovered"], cut["failed"]) == (2, 1, 1)


def test_pause_for_a_while_and_at_the_end() -> None:
    scene = Scene(
        "{id: a, fault: node.pause, on: [1, 2], at: 3s, for: 2s}",
        "{id: b, fault: node.pause, on: 3, at: 3s}",
    )
    assert scene.at(3.0) == [("pause", 1), ("pause", 2), ("pause", 3)]
    assert scene.at(5.0) == [("resume", 1), ("resume", 2)]
    scene.director.end(scene.view, "the end of the run")
    assert scene.hands.take() == [("resume", 3)]
    assert verdict(applied(scene.firings, scene.lines)) == "all"


def test_what_is_awaited_is_done_when_the_node_is_there() -> None:
    scene = Scene("{id: a, fault: node.pause, on: 2, at: {round: 5}, for: 2s}")
    assert scene.at(100.0, rounds=50) == []
    scene.director.arrived(2, "a", 0, 5, scene.view)
    assert scene.hands.take() == [("pause", 2)]
    assert scene.at(102.0) == [("resume", 2), ("heal", 2, "a")]


@pytest.mark.parametrize(
    ("of", "expected"),
    [("any", 9), ("median", 5), ("min", 1)],
)
def test_whose_round_counts(of: str, expected: int) -> None:
    scene = Scene(
        f"{{id: a, fault: node.slow, on: 7, with: {{factor: 2}}, at: {{round: 9, of: {of}}}}}"
    )
    rounds = {0: 1, 1: 2, 2: 3, 3: 5, 4: 5, 5: 6, 6: 8, 7: 9}
    view = View(1.0, {node: r + 9 - expected for node, r in rounds.items()}, 0)
    behind = View(1.0, {node: r + 8 - expected for node, r in rounds.items()}, 0)
    scene.director.tick(behind)
    assert scene.hands.take() == []
    scene.director.tick(view)
    assert scene.hands.take() == [("begin", 7, "a", (7,))]


def test_bytes() -> None:
    scene = Scene("{id: a, fault: link.cut, on: 0<->1, at: {bytes: 1MB}, for: {bytes: 2MB}}")
    assert scene.at(1.0, sent_bytes=999_999) == []
    assert scene.at(2.0, sent_bytes=1_500_000) == [("begin", 0, "a", (1,)), ("begin", 1, "a", (0,))]
    assert scene.at(3.0, sent_bytes=3_400_000) == []
    assert scene.at(3.0, sent_bytes=3_500_000) == [("heal", 0, "a"), ("heal", 1, "a")]


def test_a_condition_must_hold() -> None:
    scene = Scene("{id: a, fault: node.crash, on: 2, when: {metric: accuracy, '>=': 60%, hold: 2}}")
    scene.at(1.0)
    for node in range(8):
        assert scene.measured(node, accuracy=0.7) == []
    # a second evaluation of everyone, better still
    assert scene.measured(0, accuracy=0.7) == [("kill", 2)]


def test_a_condition_is_about_the_living() -> None:
    scene = Scene(
        "{id: dead, fault: node.crash, on: 2, at: 2s}",
        "{id: a, fault: node.crash, on: 3, when: {metric: accuracy, '>=': 65%}}",
    )
    scene.at(1.0)
    for node in range(8):
        scene.measured(node, accuracy=0.1)
    assert scene.at(2.0) == [("kill", 2)]
    for node in (0, 1, 3, 4, 5, 6):
        assert scene.measured(node, accuracy=0.7) == []
    assert scene.measured(7, accuracy=0.7) == [("kill", 3)]


def test_a_condition_that_was_not_held() -> None:
    scene = Scene("{id: a, fault: node.crash, on: 2, when: {metric: accuracy, '>=': 60%, hold: 3}}")
    scene.at(1.0)
    for node in range(8):
        scene.measured(node, accuracy=0.7)
    assert scene.measured(0, accuracy=0.7) == []
    assert scene.measured(1, accuracy=-9.0) == []
    assert scene.measured(1, accuracy=0.7) == []
    assert scene.measured(2, accuracy=0.7) == []
    assert scene.measured(3, accuracy=0.7) == [("kill", 2)]


def test_after_another_event() -> None:
    scene = Scene(
        "{id: a, fault: link.cut, on: 0->1, at: {round: 3}, for: {rounds: 2}}",
        "{id: b, fault: node.crash, on: 5, after: {event: a, state: recovered, delay: 1s}}",
    )
    scene.at(1.0)
    for state, time_s in (("active", 1.0), ("recovered", 2.0)):
        change = records.FaultChange(
            node=0, event="a", fault="link.cut", target="0->1", state=state, time_s=time_s
        )
        scene.director.change(change, View(time_s, {}, 0))
    assert scene.hands.take() == []
    assert scene.at(2.9) == []
    assert scene.at(3.0) == [("kill", 5)]


def test_the_dead_are_left_in_peace_and_it_is_written_down() -> None:
    scene = Scene(
        "{id: a, fault: node.crash, on: 2, at: 1s}",
        "{id: b, fault: node.crash, on: 2, at: 2s}",
        "{id: c, fault: link.cut, on: [2->1, 1->2], at: {round: 3, of: min}}",
    )
    assert scene.at(1.0) == [("kill", 2)]
    assert scene.at(2.0) == []
    assert scene.at(3.0, rounds=3) == [("begin", 1, "c", (2,))]
    assert ("b", "2", "skipped") in scene.states()
    assert ("c", "2->1", "skipped") in scene.states()
    assert verdict(applied(scene.firings, scene.lines)) == "partial"


def test_who_is_not_back_at_the_end_is_written_down() -> None:
    scene = Scene("{id: a, fault: node.crash, on: 2, at: 3s, with: {restart_after: 2s}}")
    scene.at(3.0)
    scene.at(5.0)
    assert verdict(applied(scene.firings, scene.lines)) == "all"
    scene.director.missing(2, scene.view, "the end")
    scene.director.missing(3, scene.view, "the end")
    assert scene.lines[-1]["detail"] == {"reason": "it was not back before the end"}
    assert verdict(applied(scene.firings, scene.lines)) == "partial"


def test_what_never_came_is_written_down() -> None:
    scene = Scene(
        "{id: a, fault: link.cut, on: 0->1, at: 50s}", "{id: b, fault: node.crash, on: 1, at: 50s}"
    )
    scene.at(1.0)
    scene.director.end(scene.view, "the end")
    assert scene.states() == [("a", "0->1", "skipped"), ("b", "1", "skipped")]
    assert verdict(applied(scene.firings, scene.lines)) == "none"


def test_who_leaves_is_known_to_its_neighbours() -> None:
    scene = Scene("{id: a, fault: node.leave, on: 3, at: 1s, for: 2s}")
    scene.at(1.0)
    for state in ("active", "recovered"):
        change = records.FaultChange(
            node=3, event="a", fault="node.leave", target="3", state=state, time_s=1.0
        )
        scene.director.change(change, scene.view)
    assert scene.hands.take() == [("tell", 3, False), ("tell", 3, True)]


def test_a_mark_is_a_line() -> None:
    scene = Scene("{id: a, fault: mark, with: {text: now}, at: 2s}")
    scene.at(2.0)
    assert scene.states() == [("a", "run", "active")]
    assert verdict(applied(scene.firings, scene.lines)) == "all"


def test_who_is_isolated_does_nothing_and_hears_of_all_of_it_later() -> None:
    scene = Scene(
        "{id: away, fault: coord.isolate, at: 2s, for: 3s}",
        "{id: dead, fault: node.crash, on: 2, at: 4s}",
        "{id: b, fault: mark, when: {metric: loss, '<=': 0.5, hold: 2}}",
    )
    assert scene.at(2.0) == [("hang_up",)]
    assert scene.states() == []
    # it lasts from when it is so
    scene.hands.answer(2.5, {"nodes": 8})
    assert scene.states() == [("away", "run", "active")]
    assert scene.director.next_s() == 5.5
    assert scene.at(4.0) == []
    for node in range(8):
        assert scene.measured(node, loss=0.4) == []
    assert scene.measured(0, loss=0.4) == []
    scene.director.arrived(3, "dead", 0, 5, scene.view)
    assert scene.at(5.4) == []
    assert scene.at(5.5) == [("listen",)]
    # until all can be heard
    assert scene.at(6.0) == []
    scene.hands.answer(6.1, {"nodes": 8, "control_bytes": 0})
    assert scene.at(6.2) == [("kill", 2), ("kill", 3)]
    assert [line["time_s"] for line in scene.lines] == [2.5, 6.1, 6.2, 6.2, 6.2]
    assert scene.states()[1] == ("away", "run", "recovered")
    assert ("b", "run", "active") in scene.states()
    (away, dead, _) = applied(scene.firings, scene.lines)
    assert (away["active"], away["recovered"], away["late_s"]) == (1, 1, 0.5)
    assert dead["late_s"] == 2.2


def test_the_end_of_the_run_ends_the_isolation_first() -> None:
    scene = Scene(
        "{id: ice, fault: node.pause, on: 1, at: 1s}",
        "{id: away, fault: coord.isolate, at: 2s, for: 300s}",
    )
    scene.at(1.0)
    scene.at(2.0)
    scene.hands.answer(2.0, {})
    scene.director.mend("the end")
    scene.hands.answer(3.0, {})
    scene.hands.take()
    scene.director.end(scene.view, "the end")
    assert scene.hands.take() == [("resume", 1)]
    assert scene.lines[2]["detail"] == {"why": "the end"}
    assert verdict(applied(scene.firings, scene.lines)) == "all"


def test_a_successor_sees_to_the_end_of_what_another_one_has_begun() -> None:
    scene = Scene(
        "{id: back, fault: node.crash, on: 2, at: 1s, with: {restart_after: 4s}}",
        "{id: dead, fault: node.crash, on: 3, at: 1s}",
        "{id: ice, fault: node.pause, on: [4, 5], at: 1s, for: 5s}",
        "{id: cut, fault: link.cut, on: 0<->1, at: {bytes: 1MB}, for: {bytes: 2MB}}",
        "{id: later, fault: node.crash, on: 6, after: {event: ice, state: recovered, delay: 1s}}",
        "{id: note, fault: mark, at: 1s}",
    )
    scene.at(1.0, sent_bytes=1_500_000)
    begun = records.FaultChange(
        node=0, event="cut", fault="link.cut", target="0->1", state="active", time_s=1.01
    )
    scene.director.change(begun, scene.view)
    scene.at(2.0, sent_bytes=2_000_000)
    # who should be dead or frozen is so, and whom the order may not have reached has it again
    assert scene.succeeded() == [
        ("kill", 2), ("kill", 3), ("pause", 4), ("pause", 5), ("begin", 1, "cut", (0,)),
    ]  # fmt: skip
    # a node that says again what the other one has heard says nothing new
    written = len(scene.lines)
    scene.director.change(begun, scene.view)
    assert len(scene.lines) == written
    assert scene.director.dead == {2, 3}
    assert scene.director.next_s() == 5
    assert scene.at(5.0, sent_bytes=3_400_000) == [("restart", 2, False)]
    assert scene.at(6.0, sent_bytes=3_500_000) == [
        ("resume", 4), ("resume", 5), ("heal", 0, "cut"), ("heal", 1, "cut"),
    ]  # fmt: skip
    assert scene.at(7.0, sent_bytes=3_500_000) == [("kill", 6)]
    states = scene.states()
    assert len(states) == len(set(states))


def test_a_successor_goes_on_counting() -> None:
    scene = Scene(
        "{id: a, fault: node.crash, on: 2, when: {metric: accuracy, '>=': 60%, hold: 4}}",
        "{id: b, fault: node.pause, on: 3, at: {round: 5}, for: 2s}",
    )
    scene.at(1.0)
    for node in range(8):
        scene.measured(node, accuracy=0.7)
    scene.measured(0, accuracy=0.7)
    scene.director.arrived(3, "b", 0, 5, scene.view)
    assert scene.hands.take() == [("pause", 3)]
    scene.at(2.0)
    assert scene.succeeded() == [("pause", 3)]
    # it says again that it is there
    scene.director.arrived(3, "b", 0, 5, scene.view)
    assert scene.measured(1, accuracy=0.7) == []
    assert scene.measured(2, accuracy=0.7) == [("kill", 2)]
    assert scene.at(3.0) == [("resume", 3), ("heal", 3, "b")]
    # and what the node may not have heard is said again
    assert scene.succeeded() == [("kill", 2), ("heal", 3, "b")]


def test_a_killed_coordinator_is_back_when_another_one_has_settled() -> None:
    scene = Scene(
        "{id: gone, fault: coord.crash, at: 2s, with: {restart_after: 3s}}",
        "{id: due, fault: mark, at: 3s}",
    )
    assert scene.at(2.0) == [("crash", 3.0)]
    scene.view = View(5.5, {}, 0)
    assert scene.succeeded() == []
    assert scene.states() == [
        ("gone", "run", "active"), ("gone", "run", "recovered"), ("due", "run", "active"),
    ]  # fmt: skip
    assert scene.lines[1]["detail"] == {"away_s": 3.5}
    assert verdict(applied(scene.firings, scene.lines)) == "all"
