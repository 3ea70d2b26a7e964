"""The live page's stream: every change once, in order, and nobody can hold up the run."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.runs import SMALL
from support.streams import events

from tidings_coordinator.control.watch import NodeView, RunView
from tidings_coordinator.experiment.load import loads
from tidings_coordinator.monitoring.server import Monitor
from tidings_coordinator.monitoring.stream import MAX_CLIENTS, Client, Hub
from tidings_coordinator.planning import RunPlan, plan

pytestmark = pytest.mark.unit

RUN = plan(loads(SMALL, "small"), "small-1")


def parsed(message: bytes | None) -> tuple[str, Any]:
    assert message
    kind, data = message.decode().strip().split("\n")
    return kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))


class Counted:
    """A hub over a number."""

    def __init__(self) -> None:
        self.value = 0
        self.hub = Hub(lambda: {"value": self.value})

    def count(self) -> None:
        with self.hub.lock:
            self.value += 1
            self.hub.publish("value", {"value": self.value})


def joined(hub: Hub, limit: int = 256) -> Client:
    client = hub.join(limit)
    assert client is not None
    return client


def test_a_client_begins_with_how_things_stand() -> None:
    counted = Counted()
    counted.count()
    client = joined(counted.hub)
    assert parsed(client.next(0)) == ("state", {"value": 1})
    assert client.next(0) == b""
    counted.count()
    assert parsed(client.next(0)) == ("value", {"value": 2})


@given(st.integers(1, 8), st.lists(st.integers(0, 12), max_size=12))
@settings(max_examples=200, deadline=None)
def test_whoever_falls_behind_is_told_how_things_stand(limit: int, bursts: list[int]) -> None:
    counted = Counted()
    client = joined(counted.hub, limit)
    seen, offered = 0, 0
    for burst in bursts:
        for _ in range(burst):
            counted.count()
            offered += 1
        # what is kept for it never exceeds its limit, however much happens
        assert client._queue.qsize() <= limit
        while message := client.next(0):
            _, data = parsed(message)
            # in order, each change once or in a snapshot
            assert data["value"] > seen or data["value"] == seen == counted.value
            seen = data["value"]
        assert seen == counted.value
    assert client.dropped == counted.hub.dropped <= offered


def test_one_slow_client_costs_the_others_nothing() -> None:
    counted = Counted()
    slow, quick = joined(counted.hub, 4), joined(counted.hub, 4)
    parsed(quick.next(0)), parsed(slow.next(0))
    for number in range(1, 100):
        counted.count()
        assert parsed(quick.next(0)) == ("value", {"value": number})
    assert quick.dropped == 0
    assert slow.dropped == counted.hub.dropped == 95
    # what was kept, then how things stand now
    assert [parsed(slow.next(0)) for _ in range(5)] == [
        *(("value", {"value": number}) for number in range(1, 5)),
        ("state", {"value": 99}),
    ]


def test_the_end_comes_after_what_is_queued() -> None:
    counted = Counted()
    client = joined(counted.hub)
    client.next(0)
    counted.count()
    counted.hub.close()
    assert parsed(client.next(0)) == ("value", {"value": 1})
    assert client.next(0) is None
    assert client.next(0) is None
    assert counted.hub.join() is None


def test_there_is_a_limit_to_clients() -> None:
    hub = Counted().hub
    clients = [joined(hub) for _ in range(MAX_CLIENTS)]
    assert hub.join() is None
    hub.leave(clients[0])
    assert hub.join() is not None


# -- over HTTP -------------------------------------------------------------------------------------


def view_of(run: RunPlan, sent_bytes: int) -> RunView:
    nodes = {
        node.node: NodeView("computing", 1, sent_bytes, link_bytes=dict.fromkeys(node.links, 7))
        for node in run.nodes
    }
    return RunView("small", "running", nodes=nodes, honest=run.honest)


def test_clients_that_do_not_read_or_say_nothing_hold_up_nothing() -> None:
    monitor = Monitor(RUN, [])
    url = monitor.serve("127.0.0.1", 0)
    address = ("127.0.0.1", int(url.rpartition(":")[2]))
    got: list[tuple[str, Any]] = []

    def read() -> None:
        for event in events(f"{url}/events"):
            got.append(event)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    deaf = socket.create_connection(address)
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
    silent = socket.create_connection(address)
    rude = socket.create_connection(address)
    rude.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
    try:
        deadline = time.monotonic() + 20
        while monitor.live.hub.clients < 3:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        rude.close()
        text = "x" * 20_000
        worst = 0.0
        while not monitor.live.hub.dropped:
            began = time.monotonic()
            monitor.live.line("events", {"time_s": 1.0, "node": 0, "event": "e", "text": text})
            worst = max(worst, time.monotonic() - began)
            assert time.monotonic() < deadline
        assert worst < 2.0
        monitor.show(view_of(RUN, 5))
        monitor.live.finish({"run": "completed"})
        began = time.monotonic()
        monitor.close()
        assert time.monotonic() - began < 5
        reader.join(20)
        assert not reader.is_alive()
        # whoever reads has the end, as a message or in a snapshot
        assert got[0][0] == "state"
        kind, last = got[-1]
        assert kind in ("end", "state")
        assert (last if kind == "end" else last["result"])["run"] == "completed"
    finally:
        monitor.close()
        for client in (deaf, silent, rude):
            client.close()


def test_events_are_kept_up_to_a_limit_and_names_are_counted_up_to_one() -> None:
    monitor = Monitor(RUN, [])
    for number in range(1000):
        monitor.live.line("events", {"time_s": 0.0, "node": 0, "event": f"made-up-{number}"})
    state = monitor.live._snapshot()
    assert len(state["events"]) == 200
    assert state["events"][-1]["event"] == "made-up-999"
    assert len(monitor.live.happened) == 51
    assert monitor.live.happened["other"] == 950


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    from tidings_coordinator.monitoring.page import page

    body, policy = page("<name>")
    text = body.decode()
    assert "&lt;name&gt;" in text
    assert "{{" not in text.split("<script>")[0]
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.split("script-src")[1]
