"""The live page in a real browser while a real run goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import urlsplit

import matplotlib.image
import numpy as np
import pytest
from support.browser import browser
from support.runs import finish, lines, result, started, wait_for_event

from tidings_coordinator.report import palette

pytestmark = pytest.mark.deploy

#: two rows of nodes, an attacker, a slow link; long enough to be looked at
WATCHED = """
name: looked-at
seed: 3
nodes: 8
topology: {kind: torus, rows: 2, cols: 4}
network:
  rate: 20Mbit/s
  delay: 5ms
  links: [{on: 0<->1, rate: 1Mbit/s}]
  probe: false
problem: {kind: digits, hidden: 16}
protocol: {kind: robust_d_psgd, lr: 0.2, aggregator: {kind: median}}
byzantine: {on: [5], attack: {kind: sign_flip}}
compute: {time: 50ms}
stop: {rounds: 120}
evaluate: {every: 10}
target: {accuracy: 30%}
"""

#: a number in the table of nodes, by row
ROUNDS = "[...document.querySelectorAll('#nodes tbody tr')].map(row => +row.cells[2].textContent)"
#: how wide and how dark the links are
LOADS = "[...document.querySelectorAll('#network path')].map(path => path.className.baseVal)"
TEXT = "document.body.innerText"


def test_the_page_shows_a_run_while_it_goes_on(tmp_path: Path) -> None:
    file, out = tmp_path / "experiment.yaml", tmp_path / "run"
    file.write_text(WATCHED)
    with started("run", str(file), "--out", str(out)) as run, browser(tmp_path) as page:
        url = wait_for_event(out, "discovery")[0]["page"]
        page.resize(1200, 900)
        page.open(url)
        # 1. nodes and their states, from the beginning on
        page.until("document.querySelectorAll('#network g').length === 8")
        states = "[...document.querySelectorAll('#network g')].map(g => g.classList[1])"
        page.until(f"{states}.some(s => s === 'computing' || s === 'waiting')")
        assert page.value("document.querySelector('#network .byzantine text').textContent") == "5"
        # 2. rounds grow, links carry bytes, and the slow link is the busiest
        early = page.until(f"Math.min(...{ROUNDS}) > 2 && {ROUNDS}")
        page.until(f"Math.min(...{ROUNDS}) > {max(early)}")
        page.until(f"{LOADS}.every(load => /load[1-6]/.test(load))")
        arcs = json.loads((out / "graph.json").read_text())["arcs"]
        assert len(page.value(LOADS)) == len(arcs)
        busiest = "document.querySelector('#links div span').textContent"
        page.until(f"['0 → 1', '1 → 0'].includes({busiest})")
        # 3. the curve grows
        page.until(
            "document.querySelector('#accuracy .mean').getAttribute('d').split('L').length > 3"
        )
        # 4. what happened
        assert page.value("document.querySelector('#events').innerText").startswith("seconds")
        assert "started" in page.value(TEXT)
        # 5. both sizes are drawn, and nothing sticks out
        for width in (1200, 500):
            page.resize(width, 900)
            shot = tmp_path / f"live-{width}.png"
            page.until(f"innerWidth === {width}")
            assert page.value("document.documentElement.scrollWidth") <= width
            page.screenshot(shot)
            check_drawn(shot, width)
        # 6. the end is told too
        page.until("run.result !== null")
        page.until(f"{TEXT}.includes('the run is over')")
        page.until(f"{TEXT}.includes('completed')")
        page.until("document.querySelectorAll('#network .finished').length === 8")
        code, _, err = finish(run)
        assert code in (0, 1)
        assert f"live page: {url}" in err
        found = result(out)
        assert found["run"] == "completed", err
        # what it shows at the end is what was written down
        assert (
            page.value("run.points[run.points.length - 1].metrics.accuracy[0]") == found["accuracy"]
        )
        assert page.value("run.cost") == found["to_target"]
        assert page.value("run.loads.reduce((a, b) => a + b)") == found["bytes"]["total"]
        by_link = {(link["source"], link["target"]): link for link in lines(out, "links")}
        loads = page.value("run.loads")
        shown = {(source, target): load for (source, target), load in zip(arcs, loads, strict=True)}
        assert shown == {arc: link["bytes"]["total"] for arc, link in by_link.items()}
        # nobody was asked but the coordinator, and nothing was wrong
        assert {urlsplit(asked).netloc for asked in page.requests} == {urlsplit(url).netloc}
        assert [urlsplit(asked).path for asked in page.requests] == ["/", "/events"]
        assert page.complaints == []
    # TIDINGS_KEEP_SHOTS: a folder for people who want to look
    if keep := os.environ.get("TIDINGS_KEEP_SHOTS"):
        for shot in tmp_path.glob("live-*.png"):
            (Path(keep) / shot.name).write_bytes(shot.read_bytes())


def check_drawn(shot: Path, width: int) -> None:
    """Mostly paper, some ink, and lines in the colour of the first series."""
    image = matplotlib.image.imread(shot)[..., :3]
    assert image.shape[1] == width
    assert image.shape[0] > 1500
    paper, ink = image.max(axis=2) > 0.99, image.max(axis=2) < 0.4
    assert 0.7 < paper.mean() < 0.99
    assert ink.mean() > 0.002
    color = np.array([int(palette.series(0)[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    assert (np.abs(image - color).max(axis=2) < 0.02).sum() > 500


def test_a_page_that_asks_elsewhere_is_noticed_and_stopped(tmp_path: Path) -> None:
    file, out = tmp_path / "experiment.yaml", tmp_path / "run"
    file.write_text(WATCHED)
    with started("run", str(file), "--out", str(out)), browser(tmp_path) as page:
        url = wait_for_event(out, "discovery")[0]["page"]
        page.open(url)
        page.until("typeof run !== 'undefined' && run.facts")
        # even if its own script wanted to: the policy that it is served with forbids it
        page.value("new Image().src = 'http://127.0.0.1:9/pixel.png'")
        page.value("fetch('http://127.0.0.1:9/').catch(() => { window.refused = true })")
        page.until("window.refused")
        assert any("Content Security Policy" in complaint for complaint in page.complaints)
        # what comes in is text, whatever is in it
        page.value(
            "takes.happened({time_s: 1, node: 0, event: '<img src=x>', text: '<b id=bad>'}), draw()"
        )
        assert page.value("document.querySelector('#bad')") is None
        assert "<b id=bad>" in page.value(TEXT)
