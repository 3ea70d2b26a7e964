"""Figures and the drawing of the network."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from tidings_coordinator.report import palette
from tidings_coordinator.report.drawing import draw
from tidings_coordinator.report.figures import Line, Target, finite, panel
from tidings_coordinator.topology import layouts

pytestmark = pytest.mark.unit


def graph(n: int, arcs: list[tuple[int, int]], **more: object) -> dict[str, object]:
    return {"layout": layouts.circle(n).tolist(), "arcs": arcs} | more


def both(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [*pairs, *((b, a) for a, b in pairs)]


def classes(svg: str) -> list[str]:
    return [element.get("class", "") for element in ET.fromstring(svg).iter()]


def test_every_node_has_its_number_and_says_what_it_sent() -> None:
    ring = both([(i, (i + 1) % 8) for i in range(8)])
    drawing = draw(graph(8, ring), dict.fromkeys(ring, 1000), {3: {"total": 2000}})
    assert drawing is not None
    assert re.findall(r">(\d+)</text>", drawing.svg) == [str(node) for node in range(8)]
    assert "<title>node 3, peer, sent 2.0 kB</title>" in drawing.svg
    # each direction has its half of the line: from the node at (500, 0) to half way to the next
    assert "M500 0L677 73" in drawing.svg
    # all links alike: nothing to tell apart
    assert drawing.scale == []


def test_width_grows_with_the_bytes_of_each_direction() -> None:
    arcs = both([(0, 1), (1, 2)])
    loads = {(0, 1): 600, (1, 0): 300, (1, 2): 100, (2, 1): 0}
    drawing = draw(graph(3, arcs), loads, {})
    assert drawing is not None
    paths = [e for e in ET.fromstring(drawing.svg) if e.tag == "path"]
    widths = {e.get("class"): float(e.get("stroke-width", "0")) for e in paths}
    assert set(widths) == {"load0", "load1", "load3", "load6"}
    assert widths["load1"] < widths["load3"] < widths["load6"]
    assert [text for _, text in drawing.scale] == ["nothing", "up to 300 B", "600 B"]


def test_one_way_links_have_heads_and_others_have_none() -> None:
    arcs = [(0, 1), (1, 0), (1, 2)]
    drawing = draw(graph(3, arcs), dict.fromkeys(arcs, 1), {})
    assert drawing is not None
    (head,) = [e for e in ET.fromstring(drawing.svg) if "head" in e.get("class", "")]
    assert head.get("d", "").count("M") == 1


def test_byzantine_nodes_and_the_server_stand_out() -> None:
    arcs = both([(0, 1), (0, 2)])
    drawing = draw(graph(3, arcs, byzantine=[2], roles=["server", "client", "client"]), {}, {})
    assert drawing is not None
    assert [name for name in classes(drawing.svg) if name in ("server", "honest", "byzantine")] == [
        "server",
        "honest",
        "byzantine",
    ]
    assert "client, Byzantine</title>" in drawing.svg


def test_a_line_bends_around_a_node_in_between() -> None:
    row = {"layout": layouts.row(3).tolist(), "arcs": both([(0, 1), (1, 2), (0, 2)])}
    drawing = draw(row, {}, {})
    assert drawing is not None
    # both halves of 0 - 2 are curves; the rest is straight
    assert drawing.svg.count("Q") == 2
    low, height = re.findall(r'viewBox="\S+ (\S+) \S+ (\S+)"', drawing.svg)[0]
    # the bow (a tenth of the row's length) lies within the canvas
    assert float(height) - abs(float(low)) >= 100


@pytest.mark.parametrize("broken", [{}, {"layout": []}, {"layout": [0.5, 0.5], "arcs": []}])
def test_a_graph_that_says_too_little_is_not_drawn(broken: dict[str, object]) -> None:
    assert draw(broken, {}, {}) is None


def test_a_large_dense_graph_stays_small() -> None:
    arcs = [(a, b) for a in range(128) for b in range(128) if a != b]
    drawing = draw(graph(128, arcs), dict.fromkeys(arcs, 10), {})
    assert drawing is not None
    assert len(drawing.svg) < 500_000


# -- panels ------------------------------------------------------------------------------------


def test_a_panel_is_text_in_the_page_s_own_colours() -> None:
    x = np.array([0.0, 2e6, 4e6])
    line = Line(x, np.array([0.1, 0.6, 0.9]), np.array([0.1, 0.5, 0.8]), np.array([0.1, 0.7, 1.0]))
    target = Target(0.85, [(4e6, 0.9, 0)], "4.0 MB")
    svg = panel([line], "bytes", 'accuracy "<', scale="percent", target=target)
    assert svg is not None
    root = ET.fromstring(svg.replace("xlink:href", "href"))
    texts = ["".join(text.itertext()) for text in root.iter("text")]
    assert {"MB sent, all nodes", "4.0 MB", "100%"} <= set(texts)
    assert root.get("aria-label") == 'accuracy "< over bytes'
    assert "var(--s0)" in svg
    assert not re.search(r"#[0-9a-f]{6}\b|https?://|font-family", svg)
    assert len(svg) < 12_000


def test_values_over_decades_get_a_logarithmic_axis_and_gaps_where_they_end() -> None:
    x = np.arange(6.0)
    svg = panel([Line(x, finite([1.0, 1e-2, 1e-4, 1e-6, np.nan, np.inf]))], "rounds", "loss")
    assert svg is not None
    texts = re.findall(r">([^<]+)</text>", svg)
    assert "10⁻⁵" in texts or "10⁻⁶" in texts
    assert "rounds" in texts


@pytest.mark.parametrize("values", [[], [np.nan, np.nan]])
def test_nothing_finite_is_nothing_to_draw(values: list[float]) -> None:
    assert panel([Line(np.arange(float(len(values))), finite(values))], "rounds", "loss") is None


def test_a_single_point_is_a_dot() -> None:
    svg = panel([Line(np.array([0.0]), np.array([2.5]))], "seconds", "loss")
    assert svg is not None
    assert "<use" in svg


def test_a_diverging_line_does_not_hide_the_others() -> None:
    x = np.arange(3.0)
    lines = [Line(x, np.array([2.0, 1.0, 0.5])), Line(x, np.array([2.0, 1e20, 1e40]), series=1)]
    svg = panel(lines, "rounds", "loss")
    assert svg is not None
    assert "10²⁰" not in svg
    assert {"1", "10"} <= set(re.findall(r">([^<]+)</text>", svg))


def test_lines_that_begin_at_zero_are_drawn() -> None:
    """As the distance of models that begin as one does; warnings are errors here."""
    x = np.arange(4.0)
    lines = [Line(x, finite([0.0, 0.1, 2.0, 0.01])), Line(x, finite([0.0, 0.2, 0.2, 0.1]))]
    assert panel(lines, "rounds", "consensus distance", scale="log") is not None


def test_colours_differ_and_both_schemes_name_the_same() -> None:
    light, dark = palette.css().split("@media")
    names = re.findall(r"--([\w-]+):(#[0-9a-f]{6})", light)
    assert [name for name, _ in names] == re.findall(r"--([\w-]+):", dark)
    assert len({color for _, color in names}) == len(names)
    assert palette.by_name("fill: #123456") == "fill: #123456"
