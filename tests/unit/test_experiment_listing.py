"""What ``tidings list`` knows of the plug-ins."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from pydantic import Field

from tidings.api import Compressor
from tidings.errors import UnknownKind
from tidings.registry import LocalPath
from tidings.units import Duration, Ratio, Size
from tidings_coordinator.experiment.families import FAMILIES
from tidings_coordinator.experiment.listing import _member, described, listing, text
from tidings_coordinator.topology.base import Topology

pytestmark = pytest.mark.unit


def test_the_families() -> None:
    assert list(FAMILIES) == [
        "protocols",
        "compressors",
        "aggregators",
        "attacks",
        "topologies",
        "mixings",
        "problems",
        "partitions",
        "participations",
        "launchers",
        "checks",
        "faults",
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_member_is_listed_and_says_what_it_is(family: str) -> None:
    members = listing(family)
    assert [member["name"] for member in members] == list(FAMILIES[family].registry)
    for member in members:
        # a dataclass without a docstring gets its signature for one
        assert member["summary"].endswith("."), member["name"]
    assert json.loads(json.dumps(members)) == members


def test_parameters_with_types_and_defaults() -> None:
    choco = next(member for member in listing("protocols") if member["name"] == "choco_sgd")
    assert choco == {
        "name": "choco_sgd",
        "summary": "CHOCO-SGD (Koloskova, Stich & Jaggi, ICML 2019, Algorithm 2).",
        "parameters": [
            {"name": "lr", "type": "number", "default": None, "required": True},
            {"name": "gamma", "type": "number", "default": 0.3, "required": False},
            {
                "name": "compressor",
                "type": "compressor",
                "default": {"kind": "top_k", "ratio": "5%"},
                "required": False,
            },
        ],
    }


def test_what_is_no_parameter_is_not_listed() -> None:
    sequence = next(member for member in listing("topologies") if member["name"] == "sequence")
    assert [parameter["name"] for parameter in sequence["parameters"]] == ["of", "every"]


def test_text_for_people() -> None:
    lines = text(listing("protocols")).splitlines()
    start = lines.index("choco_sgd: CHOCO-SGD (Koloskova, Stich & Jaggi, ICML 2019, Algorithm 2).")
    assert lines[start + 1 : start + 4] == [
        "    lr: number (required)",
        "    gamma: number = 0.3",
        "    compressor: compressor = {kind: top_k, ratio: 5%}",
    ]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "whole number"),
        (bool, "true or false"),
        (Duration, "duration"),
        (Ratio | None, "ratio or null"),
        (Compressor, "compressor"),
        (tuple[Topology, ...], "list of topology"),
        (tuple[tuple[float, ...], ...], "list of list of number"),
        (Literal["mlp", "cnn"], "'mlp' or 'cnn'"),
        (LocalPath, "file"),
        (LocalPath | None, "file or null"),
        (Annotated[str, Field(min_length=1)], "text"),
    ],
)
def test_types_in_words(annotation: object, words: str) -> None:
    assert described(annotation) == words


def test_an_unknown_family() -> None:
    with pytest.raises(UnknownKind, match=r"unknown family 'protocol'; did you mean 'protocols'"):
        listing("protocol")


def test_what_is_required_has_no_default_to_be_written() -> None:
    @dataclass(frozen=True)
    class Needs(Compressor):
        """Needs to be told."""

        size: Size

    (parameter,) = _member("needs", Needs)["parameters"]
    assert (parameter["default"], parameter["required"]) == (None, True)
