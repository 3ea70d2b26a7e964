"""Writes the dashboards: ``python deploy/grafana/dashboards.py`` makes dashboards/*.json anew.

A dashboard is a list of rows of panels; here is what differs from panel to panel, and the JSON's
many words are made of it. The panels' queries use the metrics of nodes and coordinator and the
recording rules of deploy/prometheus/rules.yml.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
#: as in provisioning/datasources/prometheus.yml
SOURCE = {"type": "prometheus", "uid": "tidings-prometheus"}
SCHEMA_VERSION = 41
COLUMNS = 24

RUN = 'run="$run"'
LINK = 'run="$run", node=~"$node"'


#: shades every panel while a fault holds
FAULTS = {
    "name": "Faults",
    "datasource": SOURCE,
    "enable": True,
    "hide": False,
    "iconColor": "orange",
    "expr": f"tidings_fault_active{{{RUN}}} > 0",
    "step": "1s",
    "titleFormat": "{{event}}",
    "textFormat": "{{fault}}",
    "tagKeys": "fault",
    "useValueForTime": False,
}


@dataclass(frozen=True)
class Panel:
    """One panel: queries with their legends, and how to show them."""

    title: str
    #: PromQL -> legend
    queries: dict[str, str]
    width: int = 8
    height: int = 8
    kind: str = "timeseries"
    unit: str = "short"
    text: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    custom: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    transformations: list[dict[str, Any]] = field(default_factory=list)

    def json(self, number: int, x: int, y: int) -> dict[str, Any]:
        """The panel as Grafana has it."""
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.text,
            "datasource": SOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "targets": [
                {
                    "refId": chr(ord("A") + index),
                    "datasource": SOURCE,
                    "editorMode": "code",
                    "expr": expr,
                    "legendFormat": legend,
                    "range": True,
                    "instant": False,
                    "format": "heatmap" if self.kind == "heatmap" else "time_series",
                }
                for index, (expr, legend) in enumerate(self.queries.items())
            ],
            "fieldConfig": {
                "defaults": {"unit": self.unit, "custom": self.custom} | self.defaults,
                "overrides": [],
            },
            "options": self.options,
            "transformations": self.transformations,
        }


def curve(title: str, queries: dict[str, str], **more: Any) -> Panel:
    """Lines over time."""
    legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
    return Panel(
        title,
        queries,
        options={"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}},
        custom={"lineWidth": 1, "fillOpacity": more.pop("fill", 0), "spanNulls": True}
        | more.pop("draw", {}),
        **more,
    )


def stat(title: str, query: str, legend: str = "", **more: Any) -> Panel:
    """The latest value, also of a run that is over."""
    return Panel(
        title,
        {query: legend},
        width=more.pop("width", 3),
        height=4,
        kind="stat",
        options={
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "textMode": "name" if legend else "value",
            "colorMode": "none",
            "graphMode": more.pop("graph", "none"),
            "justifyMode": "auto",
            "orientation": "auto",
        },
        **more,
    )


STACK = {"stacking": {"mode": "normal", "group": "A"}}
RATIO = {"min": 0, "max": 1}
LOG = {"scaleDistribution": {"type": "log", "log": 10}}


def overview() -> list[list[Panel]]:
    """How the run is doing, and what it costs."""
    return [
        [
            stat("Phase", f"tidings_run_phase{{{RUN}}} == 1", "{{phase}}", width=4),
            stat("Rounds", f"tidings_run_round{{{RUN}}}"),
            stat("Accuracy", f"run:tidings_accuracy:mean{{{RUN}}}", unit="percentunit"),
            stat("Loss", f"run:tidings_loss:mean{{{RUN}}}"),
            stat("Bytes sent", f"run:tidings_sent_bytes:sum{{{RUN}}}", unit="decbytes"),
            stat("Cost to target", f"run:tidings_cost_to_target:bytes{{{RUN}}}", unit="decbytes",
                 width=4, text="Bytes that all nodes had sent when the target was reached."),
            stat("Bytes per accuracy point", f"run:tidings_bytes_per_accuracy_point{{{RUN}}}",
                 unit="decbytes", width=4, text="For each percentage point gained so far."),
        ],
        [
            curve("Accuracy", {
                f"run:tidings_accuracy:mean{{{RUN}}}": "mean of honest nodes",
                f'tidings_evaluation{{{RUN}, metric="accuracy"}}': "node {{node}}",
                f'tidings_run_target{{{RUN}, metric="accuracy"}}': "target",
            }, unit="percentunit", defaults=RATIO),
            curve("Loss", {
                f"run:tidings_loss:mean{{{RUN}}}": "mean of honest nodes",
                f'tidings_evaluation{{{RUN}, metric="loss"}}': "node {{node}}",
            }, draw=LOG),
            Panel("Accuracy against bytes", {
                f"tidings_run_evaluation_bytes{{{RUN}}}": "bytes sent",
                f'tidings_run_evaluation{{{RUN}, metric="accuracy"}}': "accuracy",
            }, kind="xychart", text="The records' own points, as often as they were scraped.",
                options={"mapping": "auto", "series": [],
                         "tooltip": {"mode": "single", "sort": "none"},
                         "legend": {"displayMode": "list", "placement": "bottom",
                                    "showLegend": False, "calcs": []}},
                custom={"show": "points+lines", "pointSize": {"fixed": 5}},
                transformations=[
                    {"id": "joinByField", "options": {"byField": "Time", "mode": "outer"}},
                    {"id": "organize", "options": {"excludeByName": {"Time": True}}},
                ]),
        ],
        [
            curve("Sent, by kind", {
                f"sum by (kind) (rate(tidings_link_sent_bytes_total{{{RUN}}}[$__rate_interval]))":
                    "{{kind}}",
            }, unit="Bps", fill=30, draw=STACK),
            curve("Rounds, by node", {f"tidings_rounds_completed{{{RUN}}}": "node {{node}}"}),
            curve("Nodes, by state", {f"tidings_run_nodes{{{RUN}}}": "{{state}}"}, fill=40,
                  draw=STACK),
        ],
        [
            curve("Staleness", {
                f"run:tidings_staleness_rounds:mean{{{RUN}}}": "messages, mean",
                f"run:tidings_staleness_rounds:p99{{{RUN}}}": "messages, 99 %",
                f"run:tidings_round:spread{{{RUN}}}": "fastest ahead of slowest node",
            }, text="In rounds."),
            curve("Consensus distance", {
                f"tidings_run_consensus_distance{{{RUN}}}": "mean squared",
            }, draw=LOG),
            curve("Computing", {
                f"rate(tidings_compute_seconds_total{{{RUN}}}[$__rate_interval])"
                " * on (run, node) group_left () tidings_time_scale": "node {{node}}",
            }, unit="percentunit", text="Share of emulated time that a node computes."),
        ],
    ]  # fmt: skip


def network() -> list[list[Panel]]:
    """What the links carry against what was asked, and what goes wrong."""
    gone = 'result!="sent"'
    return [
        [
            stat("Busiest link", f"run:tidings_utilisation:max{{{RUN}}}", unit="percentunit",
                 width=4),
            stat("Mean utilisation", f"run:tidings_utilisation:mean{{{RUN}}}", unit="percentunit",
                 width=4),
            stat("Goodput", f"run:tidings_goodput_bytes:rate15s{{{RUN}}}", unit="Bps", width=4),
            stat("Lost messages", f"run:tidings_lost_messages:ratio{{{RUN}}}", unit="percentunit",
                 width=4),
            stat("Overhead", f"run:tidings_overhead:ratio{{{RUN}}}", unit="percentunit", width=4,
                 text="Share of the bytes between nodes that are no model values."),
            stat("Control plane", f"run:tidings_control_plane:ratio{{{RUN}}}", unit="percentunit",
                 width=4, text="Bytes to and from the coordinator for each byte between nodes."),
        ],
        [
            curve("Utilisation, by link", {
                f"link:tidings_utilisation:ratio{{{LINK}}}": "{{node}} to {{peer}}",
            }, unit="percentunit", width=12, text="Of the rate that was asked for."),
            curve("Goodput, by link", {
                f"link:tidings_goodput_bytes:rate15s{{{LINK}}}": "{{node}} to {{peer}}",
                f"max by (run) (tidings_link_asked_bytes_per_second{{{LINK}}})": "asked, fastest",
                f"min by (run) (tidings_link_asked_bytes_per_second{{{LINK}}})": "asked, slowest",
            }, unit="Bps", width=12, text="What arrives, per emulated second."),
        ],
        [
            curve("Later than the model, 99 %", {
                f'tidings_link_lag_seconds{{{LINK}, quantile="0.99"}}': "{{node}} to {{peer}}",
            }, unit="s", text="How much later than asked for the links have delivered so far."),
            curve("Held back by full queues", {
                f"rate(tidings_link_blocked_seconds_total{{{LINK}}}[$__rate_interval])"
                " * on (run, node) group_left () tidings_time_scale": "{{node}} to {{peer}}",
            }, unit="percentunit", text="Share of emulated time."),
            Panel("Staleness of messages", {
                f"sum by (le) (increase(tidings_staleness_rounds_bucket{{{LINK}}}"
                "[$__rate_interval]))": "{{le}}",
            }, kind="heatmap", text="Rounds that a message was behind its receiver.",
                options={"calculate": False, "yAxis": {"axisPlacement": "left"},
                         "color": {"mode": "scheme", "scheme": "Blues", "steps": 64},
                         "cellGap": 1, "tooltip": {"mode": "single", "yHistogram": False}},
                custom={"scaleDistribution": {"type": "linear"}}),
        ],
        [
            curve("Messages that did not arrive", {
                f"sum by (result) (rate(tidings_link_messages_total{{{LINK}, {gone}}}"
                "[$__rate_interval]))": "{{result}}",
                f"sum by (run) (rate(tidings_link_reconnects_total{{{LINK}}}[$__rate_interval]))":
                    "reconnects",
            }, unit="ops"),
            curve("Messages that were not used, by reason", {
                f"sum by (reason) (rate(tidings_refused_total{{{LINK}}}[$__rate_interval]))":
                    "{{reason}}",
            }, unit="ops"),
            curve("Nodes that answer", {
                f'sum by (run) (up{{{RUN}, node!=""}})': "answer",
                f'count by (run) (up{{{RUN}, node!=""}})': "known",
            }, text="As Prometheus sees them.", defaults={"min": 0, "decimals": 0}),
        ],
        [
            curve("Events of the run", {
                f"sum by (event) (tidings_run_events_total{{{RUN}}})": "{{event}}",
            }, width=12, text="Lines of events.jsonl so far, by name: faults among them."),
            curve("Alerts", {
                f'count by (alertname, severity) (ALERTS{{{RUN}, alertstate="firing"}})':
                    "{{alertname}}",
            }, width=12, fill=40, defaults={"min": 0, "decimals": 0},
                text="Firing, from deploy/prometheus/alerts.yml. Injected faults fire them too."),
        ],
    ]  # fmt: skip


def variable(name: str, query: str, several: bool) -> dict[str, Any]:
    """A choice at the top of the dashboard."""
    made: dict[str, Any] = {
        "name": name,
        "label": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        # when the time range changes, for runs come and go
        "refresh": 2,
        "sort": 3 if several else 2,
        "multi": several,
        "includeAll": several,
        "hide": 0,
    }
    return made | ({"allValue": ".*"} if several else {})


def dashboard(
    uid: str, title: str, text: str, rows: list[list[Panel]], variables: list[dict[str, Any]]
) -> dict[str, Any]:
    """A dashboard as Grafana has it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        x = 0
        for panel in row:
            panels.append(panel.json(len(panels) + 1, x, y))
            x += panel.width
        assert x <= COLUMNS, title
        y += max(panel.height for panel in row)
    return {
        "uid": uid,
        "title": title,
        "description": text,
        "tags": ["tidings"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "fiscalYearStartMonth": 0,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "timezone": "browser",
        "links": [
            {
                "title": "Tidings",
                "type": "dashboards",
                "tags": ["tidings"],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "icon": "external link",
                "tooltip": "",
                "url": "",
            }
        ],
        "annotations": {"list": [FAULTS]},
        "templating": {"list": variables},
        "panels": panels,
    }


def dashboards() -> dict[str, dict[str, Any]]:
    """All of them, by file name."""
    run = variable("run", "label_values(tidings_run_info, run)", several=False)
    node = variable("node", 'label_values(tidings_node_honest{run="$run"}, node)', several=True)
    return {
        "run.json": dashboard(
            "tidings-run",
            "Tidings: run",
            "One run: learning against cost.",
            overview(),
            [run],
        ),
        "network.json": dashboard(
            "tidings-network",
            "Tidings: network and faults",
            "One run: what its links carry against what was asked of them, and what goes wrong.",
            network(),
            [run, node],
        ),
    }


def main() -> None:
    """Write the files."""
    for name, content in dashboards().items():
        text = json.dumps(content, indent=1) + "\n"
        (HERE / "dashboards" / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
