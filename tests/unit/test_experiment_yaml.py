"""The YAML that experiment files are written in."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tidings_coordinator.experiment import ExperimentError, loads
from tidings_coordinator.experiment.yaml_loader import Place, YamlError, parse

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("false", False),
        *[(word, word) for word in ("True", "yes", "no", "on", "off", "y", "N", "TRUE")],
        *[(word, None) for word in ("null", "~", "")],
        ("Null", "Null"),
        ("12", 12),
        ("-3", -3),
        ("010", 10),
        *[(word, word) for word in ("0o17", "0x1F", "0b11", "1_000", "12:30", "190:20:30")],
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-2.5e+1", -25.0),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        *[(word, word) for word in ("2026-11-22", "0..3", "1.2.3", "20Mbit/s", "5%", "=", "e3")],
        ("'12'", "12"),
        ('"true"', "true"),
        ("!!str 12", "12"),
    ],
)
def test_scalars(text: str, value: Any) -> None:
    found = parse(f"key: {text}").value["key"]
    assert found == value
    assert type(found) is type(value)


def test_nan_is_read() -> None:
    assert math.isnan(parse(".nan").value)


def test_keys_that_yaml_1_1_takes_for_booleans() -> None:
    assert parse("{on: 1, off: 2, yes: 3, n: 4}").value == {"on": 1, "off": 2, "yes": 3, "n": 4}


def test_places_of_keys_and_values() -> None:
    document = parse("a:\n  b: [1, {c: 2}]\n  d:\n    3\n")
    assert document.value == {"a": {"b": [1, {"c": 2}], "d": 3}}
    assert document.keys == {
        ("a",): Place(1, 1),
        ("a", "b"): Place(2, 3),
        ("a", "b", 1, "c"): Place(2, 11),
        ("a", "d"): Place(3, 3),
    }
    assert document.values[("a", "b", 0)] == Place(2, 7)
    assert document.values[("a", "b", 1)] == Place(2, 10)
    assert document.values[("a", "d")] == Place(4, 5)
    assert document.line(("a", "d", "not", "there")) == 3
    assert document.line(("b",)) is None


def test_anchors_and_merge_keys() -> None:
    text = """\
slow: &slow {rate: 1, delay: 2}
lossy: &lossy {delay: 3, loss: 4}
one: *slow
two: {<<: *slow, rate: 5}
three:
  <<: [*slow, *lossy]
"""
    document = parse(text)
    assert document.value["one"] == {"rate": 1, "delay": 2}
    assert document.value["two"] == {"rate": 5, "delay": 2}
    assert document.value["three"] == {"rate": 1, "delay": 2, "loss": 4}
    # an inherited key is written where it is inherited from
    assert document.line(("two", "rate")) == 4
    assert document.line(("three", "loss")) == 2
    # each use is a value of its own
    document.value["one"]["rate"] = 0
    assert document.value["slow"]["rate"] == 1


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: 2\na: 3", 3, "this key is here twice, first on line 1"),
        ("a:\n  b: 1\n  'b': 2", 3, "this key is here twice, first on line 2"),
        ("a: 1\nb: c: d", 2, "mapping values are not allowed"),
        ("a: 1\nb: [1, 2", 2, "expected ',' or ']'"),
        ("a:\n\t- 1", 2, "cannot start any token"),
        ("a: 1\nb: \x07", 2, "the character U+0007 is not text"),
        ("a: 1\n---\nb: 2", 2, "expected a single document"),
        ("a: 1\nb: *c", 2, "undefined alias 'c'"),
        ("b: 1\na: &a\n  - *a", 2, "an alias may not stand inside its own anchor"),
        ("a: &a\n  <<: *a", 2, "'<<' takes another mapping"),
        ("a: &a\n  <<: &b\n    <<: *b", 3, "'<<' takes another mapping"),
        ("a: 1\n<<: 3", 2, "'<<' takes another mapping"),
        ("a: 1\n? [b]\n: 2", 2, "a key must be text"),
        ("a: 1\ntrue: 2", 2, "a key must be text"),
        ("a: 1\n~: 2", 2, "a key must be text"),
        ("a: 1\n2: 2", 2, "a key must be text"),
        ("a: 1\nb: !!python/name:os.system x", 2, "the tag !!python/name:os.system has no"),
        ("a: 1\nb: !mine {}", 2, "the tag !mine has no meaning"),
        ("a: 1\nb: !!int x", 2, "'x' is not a number"),
    ],
)
def test_what_is_refused(text: str, line: int, message: str) -> None:
    with pytest.raises(YamlError) as caught:
        parse(text)
    assert message in caught.value.message
    assert caught.value.line == line


@given(st.text(alphabet="ab01 \n-:[]{}#&*!<'\"|>~.,?%", max_size=40))
@example("nodes: [")
@settings(deadline=None, max_examples=50)
def test_no_text_leads_to_another_error_than_ours(text: str) -> None:
    with pytest.raises(ExperimentError, match=r"^q\.yaml"):
        loads(text, "q.yaml")


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(YamlError, match="nested too deeply"):
        parse("a: " + "[" * 5_000 + "]" * 5_000)
