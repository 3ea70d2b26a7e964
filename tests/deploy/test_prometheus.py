"""A real Prometheus, configured as shipped, follows a run: what it has equals the records."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.prometheus import SHIPPED, Prometheus, configuration, prometheus, tool, until
from support.runs import SMALL, finish, lines, result, started, wait_for_event

from tidings_coordinator.records.series import curve

pytestmark = pytest.mark.deploy

GRAFANA = Path(__file__).parents[2] / "deploy" / "grafana"
BOARDS = {name: GRAFANA / "dashboards" / f"{name}.json" for name in ("run", "network")}

#: the last sample of a series in this run's time
LATEST = "last_over_time({}[10m])"
#: panels that a healthy run leaves empty
EMPTY = {"Alerts": "no alert fires while all is well"}


@dataclass(frozen=True)
class Watched:
    """A run that is over, and the Prometheus that has watched it."""

    out: Path
    base: Prometheus
    #: the labels that every series of the run has
    run: str

    def latest(self, series: str) -> str:
        return LATEST.format(series)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A run of 20 s under the shipped configuration; only the URL is that of this run."""
    root = tmp_path_factory.mktemp("watched")
    file, out = root / "small.yaml", root / "run"
    file.write_text(SMALL)
    setting = ["--set", "metrics.linger=60s", "--set", "stop.rounds=400"]
    setting += ["--set", "network.loss=2%", "--set", "wait.timeout=100ms"]
    setting += ["--set", "evaluate.every=20", "--set", "compute.time=30ms"]
    with started("run", str(file), "--out", str(out), "--quiet", *setting) as run:
        url = wait_for_event(out, "discovery")[0]["url"]
        with prometheus(root / "prometheus", configuration(url)) as base:
            _, _, err = finish(run)
            # whether a busy machine gave it the network that it asked for is not the question here
            assert result(out)["run"] == "completed", err
            yield Watched(out, base, result(out)["run_id"])


def test_counters_equal_the_records(watched: Watched) -> None:
    base, total = watched.base, result(watched.out)["bytes"]
    sent = watched.latest("tidings_link_sent_bytes_total")
    base.until(f"sum({sent})", {(): total["total"]})
    assert base.query(f"sum by (kind) ({sent})") == {
        (kind,): count for kind, count in total.items() if kind != "total"
    }
    links = lines(watched.out, "links")
    assert base.query(f"sum by (node, peer) ({sent})") == {
        (str(link["source"]), str(link["target"])): link["bytes"]["total"] for link in links
    }
    gone = watched.latest('tidings_link_gone_bytes_total{result="lost"}')
    lost_bytes = sum(link["lost"]["bytes"] for link in links)
    assert lost_bytes > 0
    assert base.query(f"sum({gone})") == {(): lost_bytes}
    received = watched.latest("tidings_received_bytes_total")
    nodes = lines(watched.out, "nodes")
    assert base.query(f"sum by (node) ({received})") == {
        (str(node["node"]),): node["received"]["total"] for node in nodes
    }
    messages = watched.latest("tidings_link_messages_total")
    lost = sum(link["lost"]["messages"] for link in links)
    assert base.query(f"sum by (result) ({messages})") == {
        ("sent",): result(watched.out)["messages"],
        ("lost",): lost,
        ("undeliverable",): 0,
    }
    refused = watched.latest("tidings_refused_total")
    assert sum(node["refused"].get("missing", 0) for node in nodes) > 0
    by_reason = base.query(f"sum by (reason) ({refused}) > 0")
    assert by_reason == {
        (reason,): count
        for reason in {reason for node in nodes for reason in node["refused"]}
        if (count := sum(node["refused"].get(reason, 0) for node in nodes))
    }
    gradients = base.query(watched.latest("tidings_gradients_total"))
    assert sorted(gradients.values()) == [400.0] * 4


def test_every_series_of_the_run_says_whose_it_is(watched: Watched) -> None:
    sent = watched.latest("tidings_link_sent_bytes_total")
    labels = watched.base.query(f"count by (run, protocol, role, experiment) ({sent})")
    assert list(labels) == [("small", "d_psgd", "peer", watched.run)]
    own = watched.base.query(f"count by (role, run) ({watched.latest('tidings_run_round')})")
    assert list(own) == [("coordinator", watched.run)]


def test_the_coordinator_was_scraped_after_the_end(watched: Watched) -> None:
    base = watched.base
    completed = watched.latest('tidings_run_verdict{verdict="completed"}')
    base.until(f"sum({completed})", {(): 1})
    verdict = base.query(f"sum by (verdict) ({watched.latest('tidings_run_verdict')})")
    assert verdict == {("completed",): 1, ("failed",): 0, ("aborted",): 0}
    events = base.query(f"sum by (event) ({watched.latest('tidings_run_events_total')})")
    written = [event["event"] for event in lines(watched.out, "events")]
    assert events == {(name,): written.count(name) for name in set(written)}
    control = base.query(watched.latest("tidings_run_control_plane_bytes_total"))
    (control_bytes,) = control.values()
    assert 0.9 < control_bytes / result(watched.out)["control_plane_bytes"] <= 1


def test_rules_say_what_the_records_say(watched: Watched) -> None:
    base, found, points = watched.base, result(watched.out), curve(watched.out)

    def said(name: str) -> list[float]:
        (series,) = base.ask("query", query=f"run:tidings_{name}[10m]")["result"]
        return [float(value) for _, value in series["values"]]

    def last_said(name: str, expected: float) -> None:
        until(lambda: said(name)[-1] == pytest.approx(expected), lambda: f"{name}: {said(name)}")

    def once_said(name: str, expected: float) -> None:
        # nodes do not leave at once; after the first has gone, the sums are without it
        assert pytest.approx(expected) in said(name)

    first, last = points[0], points[-1]
    gained = 100 * (last.metrics["accuracy"].mean - first.metrics["accuracy"].mean)
    assert gained > 30
    last_said("sent_bytes:sum", found["bytes"]["total"])
    last_said("bytes_per_accuracy_point", last.bytes["total"] / gained)
    last_said("cost_to_target:bytes", found["to_target"]["bytes"])
    last_said("cost_to_target:rounds", found["to_target"]["rounds"])
    last_said("cost_to_target:seconds", found["to_target"]["time_s"])
    last_said("accuracy:mean", found["accuracy"])
    last_said("loss:mean", found["loss"])
    others = sum(found["bytes"][kind] for kind in ("metadata", "header", "control"))
    once_said("overhead:ratio", others / found["bytes"]["total"])
    once_said("lost_messages:ratio", found["lost_messages"] / found["messages"])
    # eight links of 50 Mbit/s
    mean = found["bytes"]["total"] / found["time_s"] / (8 * 50e6 / 8)
    assert max(said("utilisation:mean")) == pytest.approx(mean, rel=0.3)
    goodput = (1 - 0.02) * found["bytes"]["total"] / found["time_s"]
    assert max(said("goodput_bytes:rate15s")) == pytest.approx(goodput, rel=0.3)


# -- Grafana ---------------------------------------------------------------------------------------


def board(name: str) -> dict[str, Any]:
    return dict(json.loads(BOARDS[name].read_text()))


def targets_of(name: str) -> list[tuple[str, str]]:
    """(panel, query) of a dashboard."""
    return [(p["title"], t["expr"]) for p in board(name)["panels"] for t in p["targets"]]


@pytest.mark.parametrize("name", BOARDS)
def test_every_query_of_the_dashboards_has_data(watched: Watched, name: str) -> None:
    began = watched.base.query("min(min_over_time(tidings_run_began_timestamp_seconds[10m]))")[()]
    empty = []
    for panel, query in targets_of(name):
        asked = {"$run": watched.run, "$node": ".*", "$__rate_interval": "15s"}
        for variable, value in asked.items():
            query = query.replace(variable, value)
        assert "$" not in query
        found = watched.base.ask(
            "query_range", query=query, start=began, end=began + 600, step=2
        )["result"]  # fmt: skip
        values = [value for series in found for _, value in series["values"]]
        if panel in EMPTY:
            assert values == [], f"{panel} has data after all: {EMPTY[panel]}"
        elif not values or all(value == "NaN" for value in values):
            empty.append((panel, query))
    assert empty == []


@pytest.mark.parametrize("name", BOARDS)
def test_the_annotations_of_the_dashboards_are_the_faults(watched: Watched, name: str) -> None:
    (faults,) = board(name)["annotations"]["list"]
    query = faults["expr"].replace("$run", watched.run)
    # this run has none; what there is of one with faults is in tests/unit/test_run_metrics.py
    assert watched.base.query(query) == {}
    assert re.findall(r"{{(.*?)}}", faults["titleFormat"] + faults["textFormat"]) == [
        "event",
        "fault",
    ]


@pytest.mark.parametrize("name", BOARDS)
def test_the_choices_of_the_dashboards_are_there(watched: Watched, name: str) -> None:
    for variable in board(name)["templating"]["list"]:
        asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
        assert asked is not None
        series, label = asked[1].replace("$run", watched.run), asked[2]
        found = watched.base.ask(f"label/{label}/values", **{"match[]": series})
        assert found == {"run": [watched.run], "node": ["0", "1", "2", "3"]}[label]


@pytest.mark.parametrize("name", BOARDS)
def test_dashboards_are_what_grafana_takes(name: str) -> None:
    content = board(name)
    provisioned = yaml_of(GRAFANA / "provisioning" / "datasources" / "prometheus.yml")
    (source,) = provisioned["datasources"]
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,40}", content["uid"])
    # what Grafana 12 writes; later ones read it
    assert content["schemaVersion"] == 41
    panels = content["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(ids) == len(set(ids))
    squares = [
        (x, y)
        for panel in panels
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(squares) == len(set(squares)), "panels overlap"
    assert max(x for x, _ in squares) < 24
    for asks in [
        *panels,
        *(t for p in panels for t in p["targets"]),
        *content["templating"]["list"],
    ]:
        assert asks["datasource"] == {"type": source["type"], "uid": source["uid"]}
    for panel in panels:
        refs = [target["refId"] for target in panel["targets"]]
        assert refs
        assert len(refs) == len(set(refs))


def test_dashboards_are_generated() -> None:
    made = runpy.run_path(str(GRAFANA / "dashboards.py"))["dashboards"]()
    assert {name: board(name) for name in BOARDS} == {
        name.removesuffix(".json"): content for name, content in made.items()
    }, "python deploy/grafana/dashboards.py"
    assert len({content["uid"] for content in made.values()}) == len(made)


# -- the files themselves --------------------------------------------------------------------------


def yaml_of(file: Path) -> Any:
    return yaml.safe_load(file.read_text())


def promtool(*arguments: object) -> str:
    done = subprocess.run(
        [tool("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_configuration_and_rules(tmp_path: Path) -> None:
    assert "2 rule files found" in promtool("check", "config", SHIPPED / "prometheus.yml")
    assert "SUCCESS" in promtool("check", "rules", SHIPPED / "rules.yml", SHIPPED / "alerts.yml")
    assert "SUCCESS" in promtool("test", "rules", SHIPPED / "rules_test.yml")
    # Debian's build has no discovery of pods; all else of the file is as it is
    file = tmp_path / "kubernetes.yml"
    config = configuration("http://127.0.0.1:1/sd", "kubernetes.yml")
    file.write_text(yaml.safe_dump(config))
    assert "SUCCESS" in promtool("check", "config", file)


def test_every_rule_is_tested() -> None:
    tested = (SHIPPED / "rules_test.yml").read_text()
    for name in ("rules.yml", "alerts.yml"):
        for group in yaml_of(SHIPPED / name)["groups"]:
            for rule in group["rules"]:
                assert (rule.get("record") or rule["alert"]) in tested


def pod(**changes: str | None) -> dict[str, Any]:
    """A pod of a run as Kubernetes' discovery describes it; None leaves a label out."""
    about = "__meta_kubernetes_pod_"
    labels = {
        "ip": "127.0.0.7",
        "phase": "Running",
        "label_app_kubernetes_io_name": "tidings",
        "label_app_kubernetes_io_instance": "quick-1",
        "label_app_kubernetes_io_component": "node",
        "annotation_prometheus_io_scrape": "true",
        "annotation_prometheus_io_port": "7681",
        "annotation_batch_kubernetes_io_job_completion_index": "3",
    } | changes
    kept = {about + name: value for name, value in labels.items() if value is not None}
    return {"targets": ["127.0.0.7:80"], "labels": kept}


@contextmanager
def discovered(pods: list[dict[str, Any]]) -> Iterator[str]:
    """A service discovery that answers with those; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(pods).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


def test_pods_become_targets_with_the_labels_of_their_run(tmp_path: Path) -> None:
    coordinator = pod(
        ip="127.0.0.8",
        label_app_kubernetes_io_component="coordinator",
        annotation_batch_kubernetes_io_job_completion_index=None,
    )
    pods = [
        pod(),
        # a second port of the same pod
        pod() | {"targets": ["127.0.0.7:81"]},
        coordinator,
        pod(ip="127.0.0.9", label_app_kubernetes_io_name="other"),
        pod(ip="127.0.0.9", annotation_prometheus_io_scrape=None),
        pod(ip="127.0.0.9", phase="Succeeded"),
    ]
    with discovered(pods) as url:
        config = configuration(url, "kubernetes.yml")
        with prometheus(tmp_path / "prometheus", config) as base:
            until(lambda: bool(base.ask("targets", state="active")["activeTargets"]))
            found = base.ask("targets", state="active")["activeTargets"]
    labels = sorted((target["labels"] for target in found), key=lambda each: each["instance"])
    assert labels == [
        {"instance": "127.0.0.7:7681", "job": "tidings", "run": "quick-1", "node": "3"},
        {"instance": "127.0.0.8:7681", "job": "tidings", "run": "quick-1", "role": "coordinator"},
    ]
