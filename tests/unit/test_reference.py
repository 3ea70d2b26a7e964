"""The reference pages: up to date, complete, and readable Markdown."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from tidings.registry import key_of
from tidings_coordinator.experiment.families import FAMILIES
from tidings_coordinator.markdown import markdown
from tidings_coordinator.reference import main, pages

pytestmark = pytest.mark.unit

DOCS = Path(__file__).parents[2] / "docs"
PAGES = pages()
LINK = re.compile(r"\]\(([^)#]*)(?:#([^)]*))?\)")


def test_the_stored_pages_are_up_to_date() -> None:
    stored = {page.name: page.read_text("utf-8") for page in (DOCS / "reference").glob("*.md")}
    assert sorted(stored) == sorted(PAGES), "make reference"
    for name, text in PAGES.items():
        assert stored[name] == text, f"docs/reference/{name}: make reference"


def test_pages_that_are_no_longer_generated_are_removed(tmp_path: Path) -> None:
    (tmp_path / "old.md").write_text("# Old")
    main([str(tmp_path)])
    assert {page.name for page in tmp_path.iterdir()} == set(PAGES)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_member_and_every_parameter_is_there(family: str) -> None:
    registry = FAMILIES[family].registry
    for name in registry:
        section = PAGES[f"{family}.md"].partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert section, name
        for field in dataclasses.fields(registry.get(name)):
            assert f"| `{key_of(field)}` |" in section or not field.init


def test_a_protocols_messages_and_cost() -> None:
    section = PAGES["protocols.md"].partition("\n## d_psgd\n")[2].partition("\n## ")[0]
    assert "x_i <- sum_j W_ij (x_j - lr g_j(x_j))" in section
    assert "| `Weights` | `x` (vector) | all |" in section
    # 8 nodes send 10,000 floats and 16 bytes of header to two neighbours each
    assert "640,256 bytes in all" in section


@pytest.mark.parametrize("name", PAGES)
def test_no_restructured_text_is_left_and_links_lead_somewhere(name: str) -> None:
    text = PAGES[name]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert "``" not in prose
    # names of tests have it too
    assert "::" not in re.sub(r"`[^`]*`", "", prose)
    assert ":meth:" not in prose
    for page, anchor in LINK.findall(text):
        target = page or name
        if anchor:
            assert f"## {anchor}" in PAGES[target].lower()
        else:
            assert (DOCS / "reference" / target).resolve().exists(), target


def test_docstrings_become_markdown() -> None:
    text = """First line, see :meth:`~a.b`.

    As a formula::

        x <- ``y``
          and more

    Or ``so``.

    ::

        alone
    """
    assert markdown(text).splitlines() == [
        *("First line, see `a.b`.", "", "As a formula:", ""),
        *("```text", "x <- ``y``", "  and more", "```", "", "Or `so`.", ""),
        *("```text", "alone", "```"),
    ]
