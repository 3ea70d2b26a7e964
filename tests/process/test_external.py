"""Nodes that are started by hand, one by one, as a script or an orchestrator would."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.runs import (
    DEADLINE_S,
    SMALL,
    finish,
    lines,
    node,
    result,
    started,
    tidings,
    wait_for_event,
)
from support.warm import NODE

from tidings.runtime.main import ONE_THREAD

pytestmark = pytest.mark.process

EXTERNAL = ["--launcher", "external", "--set", "launcher.port=0"]


def test_nodes_that_are_started_by_hand(tmp_path: Path) -> None:
    file, out = tmp_path / "small.yaml", tmp_path / "run"
    file.write_text(SMALL)
    with ExitStack() as stack:
        run = stack.enter_context(started("run", str(file), *EXTERNAL, "--out", str(out)))
        address = wait_for_event(out, "launching")[0]["coordinator"]
        given = ["--coordinator", address, "--advertise", "localhost", "--node"]
        # the first one starts itself again, for its environment says nothing of threads
        variables = {key: value for key, value in os.environ.items() if key not in ONE_THREAD}
        by_hand = [sys.executable, "-m", NODE, *given, "0"]
        first = stack.enter_context(subprocess.Popen(by_hand, env=variables))
        stack.callback(first.kill)
        others = [node(stack, *given, str(i), log=tmp_path / f"{i}.log") for i in range(1, 4)]
        code, _, err = finish(run)
        assert code == 0, err
        assert f"waiting for 4 nodes at {address}" in err
        assert [each.wait(DEADLINE_S) for each in (first, *others)] == [0] * 4
    done = tidings("simulate", str(file), "--out", str(tmp_path / "simulated"), "--quiet")
    assert done.returncode == 0, done.stderr
    assert result(out)["weights_sha256"] == result(tmp_path / "simulated")["weights_sha256"]


def test_strangers_are_turned_away_and_those_who_do_not_come_are_named(tmp_path: Path) -> None:
    file, out = tmp_path / "small.yaml", tmp_path / "run"
    file.write_text(SMALL)
    setting = [*EXTERNAL, "--set", "launcher.join=8s", "--out", str(out)]
    with ExitStack() as stack:
        run = stack.enter_context(started("run", str(file), *setting))
        place = ["--coordinator", wait_for_event(out, "launching")[0]["coordinator"]]
        waiting, *strangers = (
            node(stack, *arguments, *place, log=tmp_path / f"{number}.log")
            for number, arguments in enumerate(
                (["--node", "1"], ["--node", "4"], ["--node", "0", "--run", "other"])
            )
        )
        assert [each.wait(DEADLINE_S) for each in strangers] == [3, 3]
        code, text, _ = finish(run)
        assert waiting.wait(DEADLINE_S) == 3
    assert code == 1
    assert "nodes 0, 2, 3 did not join within 8 s" in text
    assert [event["event"] for event in lines(out, "events")][-1] == "over"
