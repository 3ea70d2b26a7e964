"""The report in a real browser: it shows what it should and asks for nothing but itself."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from support.runs import command

from tidings_coordinator.report import palette

pytestmark = pytest.mark.deploy

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: beginning to end, on a busy machine
_DEADLINE_S = 120.0
_EXPERIMENT = """
name: in-a-browser
nodes: 8
topology: {kind: star}
network: {rate: 20Mbit/s, delay: 5ms}
problem: {kind: digits, hidden: 16}
protocol: {kind: fed_avg, lr: 0.2}
stop: {rounds: 12}
evaluate: {every: 2}
target: {accuracy: 20%}
"""


@dataclass(frozen=True)
class Browser:
    """Headless Chromium; every call is a process group of its own that does not outlive it."""

    program: str
    directory: Path

    def show(self, page: Path, *options: str) -> tuple[str, str]:
        """Open a page; what was written to standard output, and to standard error."""
        number = len(list(self.directory.glob("profile-*")))
        process = subprocess.Popen(
            [
                self.program,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--disable-sync",
                "--disable-background-networking",
                "--disable-component-update",
                "--no-first-run",
                "--hide-scrollbars",
                "--enable-logging=stderr",
                f"--user-data-dir={self.directory / f'profile-{number}'}",
                *options,
                page.as_uri(),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=_DEADLINE_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert process.returncode == 0, err
        return out, err


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    """Chromium with a new profile."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(_NAMES)} is on the path")
    return Browser(program, tmp_path)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a simulated run, made by the command line."""
    root = tmp_path_factory.mktemp("run")
    (root / "experiment.yaml").write_text(_EXPERIMENT)
    subprocess.run(
        command("simulate", "experiment.yaml", "--out", "out", "--quiet"),
        cwd=root,
        check=True,
        timeout=_DEADLINE_S,
        stdout=subprocess.DEVNULL,
    )
    return root / "out" / "report.html"


def complaints(log: str) -> list[str]:
    """What pages wrote to the console."""
    return [line for line in log.splitlines() if "CONSOLE" in line]


def test_the_page_is_complete_and_asks_for_nothing(browser: Browser, report: Path) -> None:
    dom, log = browser.show(report, "--dump-dom")
    assert complaints(log) == []
    text = re.sub(r"<[^>]+>", " ", dom)
    for said in (
        "in-a-browser",
        "fed_avg",
        "star of 8 nodes",
        "Cost to target",
        "reached",
        "sent, all nodes",
        "resolved.yaml",
        "Time was virtual",
    ):
        assert said in text, said
    # nine figures and the network
    assert dom.count('class="panel"') == 9
    assert dom.count('class="network"') == 1
    assert dom.count('class="timeline"') == 1
    targets = re.findall(r"""(?:src|href|action|data)=["']([^"']*)""", dom)
    targets += re.findall(r"url\(([^)]*)\)", dom)
    assert targets
    assert [target for target in targets if not target.strip("\"'&quot;").startswith("#")] == []


@pytest.mark.parametrize(("width", "height"), [(1200, 2600), (500, 4000)])
def test_the_page_is_drawn(browser: Browser, report: Path, width: int, height: int) -> None:
    shot = browser.directory / "shot.png"
    size = f"--window-size={width},{height}"
    _, log = browser.show(report, f"--screenshot={shot}", size)
    assert complaints(log) == []
    image = matplotlib.image.imread(shot)[..., :3]
    assert image.shape == (height, width, 3)
    paper, ink = image.max(axis=2) > 0.99, image.max(axis=2) < 0.4
    assert 0.7 < paper.mean() < 0.99
    assert ink.mean() > 0.002
    # curves and links, in the colour that the page's variable stands for
    color = np.array([int(palette.series(0)[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    assert (np.abs(image - color).max(axis=2) < 0.02).sum() > 500


def test_a_page_that_does_complain_is_noticed(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    policy = "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\">"
    page.write_text(f"<html><head>{policy}</head><body><img src='x.png'></body></html>")
    _, log = browser.show(page, "--dump-dom")
    assert any("Content Security Policy" in line for line in complaints(log))
