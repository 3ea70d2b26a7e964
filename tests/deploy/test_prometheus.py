"""A real Prometheus finds the nodes of a run by service discovery and scrapes them."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.runs import DEADLINE_S, SMALL, finish, lines, result, started, wait_for_event

pytestmark = pytest.mark.deploy

CONFIG = """
global: {{scrape_interval: 500ms, scrape_timeout: 400ms}}
scrape_configs:
  - job_name: tidings
    http_sd_configs: [{{url: "{url}", refresh_interval: 1s}}]
"""


@contextmanager
def prometheus(directory: Path, discovery: str) -> Iterator[str]:
    """A Prometheus that follows a run's service discovery; its base URL."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("prometheus is not installed")
    directory.mkdir()
    (directory / "prometheus.yml").write_text(CONFIG.format(url=discovery))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        until(lambda: fetch(f"http://{address}/-/ready") is not None)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(10)


def fetch(url: str) -> bytes | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bytes(answer.read())
    except OSError:
        return None


def until(condition: Any) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def query(base: str, promql: str) -> dict[tuple[str, ...], float]:
    """An instant query; values by the labels' values in order of the labels' names."""
    answer = fetch(f"{base}/api/v1/query?" + urllib.parse.urlencode({"query": promql}))
    assert answer is not None
    found = json.loads(answer)
    assert found["status"] == "success", found
    return {
        tuple(value for _, value in sorted(series["metric"].items())): float(series["value"][1])
        for series in found["data"]["result"]
    }


def test_the_counters_that_prometheus_scrapes_equal_the_records(tmp_path: Path) -> None:
    file, out = tmp_path / "small.yaml", tmp_path / "run"
    file.write_text(SMALL)
    setting = ["--set", "metrics.linger=60s", "--set", "stop.rounds=40"]
    with started("run", str(file), "--out", str(out), "--quiet", *setting) as run:
        url = wait_for_event(out, "discovery")[0]["url"]
        with prometheus(tmp_path / "prometheus", url) as base:
            code, _, err = finish(run)
            assert code == 0, err
            latest = "last_over_time({}[10m])"
            sent = latest.format("tidings_link_sent_bytes_total")
            total = result(out)["bytes"]
            # the last samples may still be on their way into its storage
            until(lambda: query(base, f"sum({sent})") == {(): total["total"]})
            by_kind = query(base, f"sum by (kind) ({sent})")
            assert by_kind == {
                (kind,): total[kind] for kind in ("payload", "metadata", "header", "control")
            }
            by_link = query(base, f"sum by (node, peer) ({sent})")
            assert by_link == {
                (str(link["source"]), str(link["target"])): link["bytes"]["total"]
                for link in lines(out, "links")
            }
            received = query(base, f"sum({latest.format('tidings_received_bytes_total')})")
            assert received == {(): total["total"]}
            messages = latest.format('tidings_link_messages_total{result="sent"}')
            assert query(base, f"sum({messages})") == {(): result(out)["messages"]}
            gradients = query(base, latest.format("tidings_gradients_total"))
            assert set(gradients.values()) == {40.0}
            accuracy = latest.format('tidings_evaluation{metric="accuracy"}')
            mean = query(base, f"avg({accuracy})")[()]
            assert mean == pytest.approx(result(out)["accuracy"])
            labels = query(base, f"count by (run, protocol, role, experiment) ({sent})")
            assert list(labels) == [("small", "d_psgd", "peer", result(out)["run_id"])]
