"""A real Prometheus with the configuration that we ship."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.runs import DEADLINE_S

SHIPPED = Path(__file__).parents[2] / "deploy" / "prometheus"

Series = dict[tuple[str, ...], float]


class Prometheus:
    """Its API."""

    def __init__(self, base: str) -> None:
        self.base = base

    def ask(self, path: str, **parameters: Any) -> Any:
        """The data of an answer; the request must be one that it understands."""
        found = json.loads(fetch(f"{self.base}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))
        assert found["status"] == "success", found
        return found["data"]

    def query(self, promql: str) -> Series:
        """An instant query; values by the labels' values in order of the labels' names."""
        return {
            tuple(value for _, value in sorted(series["metric"].items())): float(series["value"][1])
            for series in self.ask("query", query=promql)["result"]
        }

    def until(self, promql: str, expected: Series) -> None:
        """Wait until a query gives that: the last samples may still be on their way to it."""
        found: Series = {}

        def there() -> bool:
            nonlocal found
            found = self.query(promql)
            return found == expected

        until(there, lambda: f"{promql} gives {found}, not {expected}")


def fetch(url: str) -> bytes:
    """The body of an answer."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        return error.read()


def until(condition: Callable[[], bool], complaint: Callable[[], str] = lambda: "") -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, complaint()
        time.sleep(0.01)


def tool(name: str) -> str:
    """The path of a program of Prometheus; skips where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def configuration(discovery: str, file: str = "prometheus.yml") -> dict[str, Any]:
    """A configuration that we ship, with targets from ``discovery``; all else as it is."""
    config: dict[str, Any] = yaml.safe_load((SHIPPED / file).read_text())
    config["rule_files"] = [str(SHIPPED / name) for name in config["rule_files"]]
    (job,) = config["scrape_configs"]
    job.pop("kubernetes_sd_configs", None)
    (source,) = job.get("http_sd_configs") or [{"refresh_interval": "2s"}]
    job["http_sd_configs"] = [source | {"url": discovery}]
    return config


@contextmanager
def prometheus(directory: Path, config: dict[str, Any]) -> Iterator[Prometheus]:
    """A Prometheus that is ready; gone with the block."""
    binary = tool("prometheus")
    directory.mkdir()
    file = directory / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    arguments = [f"--config.file={file}", f"--storage.tsdb.path={directory / 'data'}"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [binary, *arguments, f"--web.listen-address={address}"], stdout=log, stderr=log
        )
    try:
        until(lambda: _ready(address), lambda: (directory / "log").read_text())
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=5):
            return True
    except OSError:
        return False
