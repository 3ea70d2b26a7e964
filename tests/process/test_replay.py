"""A real asynchronous run is done again on virtual time and ends with the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.runs import lines, result, tidings

from tidings.errors import UserError
from tidings_coordinator.replaying import replay

pytestmark = pytest.mark.process

FILE = """
name: order
nodes: 5
topology: star
network: {rate: 50Mbit/s, delay: 2ms, loss: 2%, probe: false, tolerance: {delay: 200ms, rate: 90%}}
problem: {kind: digits, hidden: 16}
protocol: PROTOCOL
compute: {time: native, slow: [{on: [2], factor: 4}]}
wait: {timeout: 1s}
stop: {rounds: 60}
evaluate: {every: 20}
records: {order: true}
monitor: {serve: false}
"""
PROTOCOLS = ["{kind: fed_async, lr: 0.1}", "{kind: fed_fix, lr: 0.1, window: 20ms}"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_real_run_is_replayed_to_the_same_weights(tmp_path: Path, protocol: str) -> None:
    file, out = tmp_path / "f.yaml", tmp_path / "run"
    file.write_text(FILE.replace("PROTOCOL", protocol))
    done = tidings("run", str(file), "--out", str(out), "--quiet")
    assert done.returncode == 0, done.stdout + done.stderr
    again = tidings("replay", str(out))
    assert again.returncode == 0, again.stdout + again.stderr
    assert "the same: 5 nodes" in again.stdout
    found = replay(out)
    assert found.replayed == tuple(result(out)["weights_sha256"])
    # the order is what decides: the server is made to take another client's update first
    events = lines(out, "events")
    took = [e for e in events if e["event"] == "took" and e["node"] == 0]
    first = [json.loads(event["fields"])["sources"] for event in took]
    i = next(
        i for i in range(len(took) - 1) if first[i] and first[i + 1] and first[i] != first[i + 1]
    )
    took[i]["fields"], took[i + 1]["fields"] = took[i + 1]["fields"], took[i]["fields"]
    (out / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    assert replay(out).differ


def test_what_cannot_be_replayed_is_refused(tmp_path: Path) -> None:
    text = FILE.replace("PROTOCOL", PROTOCOLS[0])

    def refused(changed: str) -> str:
        file = tmp_path / "f.yaml"
        out = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        file.write_text(changed)
        done = tidings("simulate", str(file), "--out", str(out), "--quiet")
        assert done.returncode == 0, done.stderr
        with pytest.raises(UserError) as caught:
            replay(out)
        return str(caught.value)

    assert "set records.order" in refused(text.replace("order: true", "order: false"))
    assert "by its number of rounds" in refused(text.replace("rounds: 60", "time: 500ms"))
    gossip = text.replace(PROTOCOLS[0], "{kind: ad_psgd, lr: 0.1}").replace("star", "ring")
    assert "atomic exchanges" in refused(gossip)
    fault = "faults:\n  - {id: slow, fault: node.slow, on: 1, at: 10ms, with: {factor: 2}}\n"
    assert "faults struck" in refused(text + fault)
