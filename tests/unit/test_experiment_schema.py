"""The JSON Schema of the experiment file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidings.registry import FAMILY_MARK, key_of
from tidings.units import Duration, Quantity, Rate, Ratio, Size
from tidings_coordinator.experiment.families import FAMILIES
from tidings_coordinator.experiment.schema import main, schema

pytestmark = pytest.mark.unit

SCHEMA = schema()
DEFINITIONS = SCHEMA["$defs"]
STORED = Path(__file__).parents[2] / "docs" / "experiment.schema.json"


def nodes_of(value: Any) -> Iterator[dict[str, Any]]:
    """All mappings inside ``value``, itself included."""
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from nodes_of(item)


def sections() -> list[dict[str, Any]]:
    """The schema of the file and of each of its sections."""
    return [SCHEMA, *(found for name, found in DEFINITIONS.items() if name[0].isupper())]


def pattern_of(name: str) -> str:
    definition = DEFINITIONS[name]
    return str(definition.get("pattern") or definition["anyOf"][0]["pattern"])


def test_the_stored_schema_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    how = "python -m tidings_coordinator.experiment.schema > docs/experiment.schema.json"
    assert capsys.readouterr().out == STORED.read_text(encoding="utf-8"), how


def test_it_is_plain_json_of_the_2020_12_dialect() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


def test_every_reference_leads_somewhere_and_no_mark_is_left() -> None:
    references = {node["$ref"] for node in nodes_of(SCHEMA) if "$ref" in node}
    assert references <= {f"#/$defs/{name}" for name in DEFINITIONS}
    assert references == {f"#/$defs/{name}" for name in DEFINITIONS}
    assert not [node for node in nodes_of(SCHEMA) if FAMILY_MARK in node]


def test_faults_are_offered_by_name() -> None:
    # an event writes their parameters beside the name
    names, _ = DEFINITIONS["faults"]["anyOf"]
    assert names["enum"] == list(FAMILIES["faults"].registry)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "faults"])
def test_every_kind_is_offered_with_its_parameters(family: str) -> None:
    registry, tag = FAMILIES[family].registry, FAMILIES[family].tag
    names, *members_, file, own = DEFINITIONS[family]["anyOf"]
    members = {choice["properties"][tag]["const"]: choice for choice in members_}
    assert names["enum"] == list(members) == list(registry)
    assert own["properties"][tag] == file
    assert own["required"] == [tag]
    for name, member in members.items():
        parameters = set(map(key_of, registry.get(name).__dataclass_fields__.values()))
        assert set(member["properties"]) - {tag} <= parameters
        assert member["additionalProperties"] is False


def test_families_contain_each_other() -> None:
    def parameter(family: str, kind: str, name: str) -> Any:
        choices = DEFINITIONS[family]["anyOf"][1:-2]
        member = next(c for c in choices if c["properties"]["kind"].get("const") == kind)
        return member["properties"][name]

    topologies = {"$ref": "#/$defs/topologies"}
    assert parameter("topologies", "sequence", "of")["items"] == topologies
    assert parameter("topologies", "ring", "mixing")["$ref"] == "#/$defs/mixings"
    assert parameter("protocols", "choco_sgd", "compressor")["$ref"] == "#/$defs/compressors"
    assert parameter("problems", "mnist_5k", "partition")["$ref"] == "#/$defs/partitions"
    assert {"$ref": "#/$defs/aggregators"} in parameter("aggregators", "nnm", "then")["anyOf"]


def test_required_keys() -> None:
    assert SCHEMA["required"] == ["nodes", "problem", "protocol", "stop"]
    required = {name: found.get("required", []) for name, found in DEFINITIONS.items()}
    assert required["Byzantine"] == ["on", "attack"]
    assert required["Slow"] == ["on", "factor"]
    assert required["LinkOverride"] == ["on"]
    assert required["Network"] == []


def test_every_section_is_closed_and_every_key_documented() -> None:
    assert len(sections()) > 10
    for section in sections():
        assert section["additionalProperties"] is False
        assert section["description"]
        for name, key in section["properties"].items():
            target = DEFINITIONS[key["$ref"].rpartition("/")[2]] if "$ref" in key else {}
            assert key.get("description") or target.get("description"), name


def test_keys_and_defaults_are_those_of_the_file() -> None:
    assert "for" in DEFINITIONS["Wait"]["properties"]
    properties = SCHEMA["properties"]
    assert properties["topology"]["default"]["kind"] == "ring"
    assert properties["topology"]["default"]["mixing"] == {"kind": "metropolis_hastings"}
    assert properties["launcher"]["default"]["kind"] == "local"
    network = DEFINITIONS["Network"]["properties"]
    assert network["rate"] | {"description": ""} == {
        "$ref": "#/$defs/rate",
        "default": "unlimited",
        "description": "",
    }
    assert network["queue"]["default"] == "16MiB"


QUANTITIES: list[tuple[type[Quantity], list[str], list[str]]] = [
    (Duration, ["20ms", "1.5 s", "1e-3s", ".5h", "2m", "3µs"], ["20", "s", "20 sec", "-1s", ""]),
    (Rate, ["20Mbit/s", "1kbit", "unlimited"], ["20", "20Mbps", "20MBit/s", "Unlimited"]),
    (Size, ["64KiB", "1B", "3MB", "2kB"], ["64", "64K", "64kiB"]),
    (Ratio, ["5%", "0.05", "1"], ["5 percent", "%", "-1%"]),
]


@pytest.mark.parametrize(("quantity", "good", "bad"), QUANTITIES, ids=lambda part: str(part))
def test_patterns_take_what_is_read(
    quantity: type[Quantity], good: list[str], bad: list[str]
) -> None:
    pattern = pattern_of(quantity.name)
    for text in good:
        quantity.parse(text)
        assert re.search(pattern, text), text
    for text in bad:
        with pytest.raises(ValueError):
            quantity.parse(text)
        assert not re.search(pattern, text), text


@given(st.floats(0, 1e12))
@settings(deadline=None, max_examples=50)
def test_patterns_take_what_is_written(value: float) -> None:
    assert re.search(pattern_of("duration"), str(Duration(value)))
    assert re.search(pattern_of("rate"), str(Rate(value)))
    assert re.search(pattern_of("ratio"), str(Ratio(value / 1e12)))


def test_a_ratio_may_be_a_number() -> None:
    assert {"type": "number", "minimum": 0, "maximum": 1} in DEFINITIONS["ratio"]["anyOf"]
