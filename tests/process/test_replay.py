"""A real asynchronous run is done again on virtual time and ends with the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.runs import lines, result, tidings

from tidings.errors import RunError
from tidings_coordinator.replaying import replay

pytestmark = pytest.mark.process

FILE = """
name: order
nodes: 5
topology: TOPOLOGY
network: {rate: 50Mbit/s, delay: 2ms, loss: 2%, probe: false, tolerance: {delay: 200ms, rate: 90%}}
problem: {kind: digits, hidden: 16}
protocol: PROTOCOL
compute: {time: native, slow: [{on: [2], factor: 4}]}
wait: {timeout: 1s}
stop: STOP
evaluate: {every: 20}
records: {order: true}
monitor: {serve: false}
"""
STEPS, TIME = "{rounds: 40}", "{time: 1500ms}"
#: real processes are stopped, and messages lost, at moments that nobody knows beforehand
STRUCK = """
faults:
  - {id: still, fault: node.pause, on: 3, at: 300ms, for: 200ms}
  - {id: lossy, fault: link.loss, on: all, at: 100ms, with: {p: 0.2}}
"""
RUNS = [
    ("star", "{kind: fed_async, lr: 0.1}", STEPS, ""),
    ("star", "{kind: fed_fix, lr: 0.1, window: 20ms}", STEPS, STRUCK),
    ("ring", "{kind: ad_psgd, lr: 0.1}", TIME, STRUCK),
    ("ring", "{kind: dadao, mu: 0.1, smoothness: 10, unit: 10ms}", STEPS, ""),
    ("ring", "{kind: a2cid2, lr: 0.1, unit: 10ms}", TIME, ""),
]


@pytest.mark.parametrize(("topology", "protocol", "stop", "faults"), RUNS)
def test_a_real_run_is_replayed_to_the_same_weights(
    tmp_path: Path, topology: str, protocol: str, stop: str, faults: str
) -> None:
    file, out = tmp_path / "f.yaml", tmp_path / "run"
    text = FILE.replace("TOPOLOGY", topology).replace("PROTOCOL", protocol)
    file.write_text(text.replace("STOP", stop) + faults)
    done = tidings("run", str(file), "--out", str(out), "--quiet")
    assert done.returncode == 0, done.stdout + done.stderr
    again = tidings("replay", str(out))
    assert again.returncode == 0, again.stdout + again.stderr
    assert "the same: 5 nodes" in again.stdout
    if "fed_async" in protocol:
        check_that_the_order_decides(out)


def check_that_the_order_decides(out: Path) -> None:
    """The server is made to take another client's update first."""
    assert replay(out).replayed == tuple(result(out)["weights_sha256"])
    events = [event for event in lines(out, "events") if event["event"] == "turn"]
    fields = {i: json.loads(event["fields"]) for i, event in enumerate(events)}
    took = [i for i, turn in fields.items() if turn["what"] == "recv" and events[i]["node"] == 0]
    sources = [fields[i].get("sources") for i in took]
    k = next(k for k in range(len(took)) if sources[k] and sources[k] != sources[k + 1])
    i, j = took[k], took[k + 1]
    for key in ("sources", "digest"):
        fields[i][key], fields[j][key] = fields[j].get(key), fields[i].get(key)
    for k in (i, j):
        events[k]["fields"] = fields[k]
    (out / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    # with another model, what it sends is not what the clients had taken
    with pytest.raises(RunError, match="no longer the run that was recorded"):
        replay(out)
