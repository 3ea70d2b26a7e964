"""Plug-ins and parameters that cannot work are the user's mistake, said before anything runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tidings.api import Protocol
from tidings.errors import ConfigError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("raise SystemExit(3)", "Own", r"cannot be imported: SystemExit\(3\)"),
        ("class Own(Protocol):\n    lr: float = 1.0", "Own", "does not define run"),
        (
            "class Own(Protocol):\n    lr: 'Unknown' = 1.0\n    async def run(self, node): ...",
            "Own",
            "the type of a parameter: name 'Unknown' is not defined",
        ),
        (
            "class Own(Protocol):\n    lr: type(print) = 1\n    async def run(self, node): ...",
            "Own",
            "of a type that no file can give",
        ),
        (
            "class Own(Protocol):\n    lr: int = 1\n    async def run(self, node): ...\n"
            "    def __post_init__(self): raise TypeError('no')",
            "Own",
            "Own': no",
        ),
    ],
)
def test_a_file_that_defines_no_usable_plugin_is_the_users_mistake(
    tmp_path: Path, source: str, kind: str, message: str
) -> None:
    file = tmp_path / "own.py"
    head = "from dataclasses import dataclass\nfrom tidings.api import Protocol\n"
    body = source.replace("class Own", "@dataclass(frozen=True)\nclass Own")
    file.write_text(head + body + "\n")
    with pytest.raises(ConfigError, match=message):
        Protocol.parse({"kind": f"{file}:{kind}", "lr": 1})


@pytest.mark.parametrize("lr", [math.nan, math.inf, -0.5])
def test_numbers_of_parameters_are_finite_and_step_sizes_not_negative(lr: float) -> None:
    for kind in ("d_psgd", "choco_sgd", "fed_avg", "ad_psgd"):
        with pytest.raises(ConfigError, match=r"finite number|lr must not be negative"):
            Protocol.parse({"kind": kind, "lr": lr})


@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "fed_avg", "lr": 1, "local_steps": 0},
        {"kind": "fed_avg", "lr": 1, "participation": 0},
        {"kind": "choco_sgd", "lr": 1, "gamma": 0},
        {"kind": "dadao", "unit": "0s"},
        {"kind": "dadao", "mu": -1},
    ],
)
def test_protocols_refuse_parameters_that_would_stop_them(spec: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        Protocol.parse(spec)
