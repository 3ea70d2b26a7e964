"""What ``make test`` leaves out is there, and CI leaves nothing out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

TESTS = Path(__file__).parents[1]
SLOW = (TESTS / "slow.txt").read_text("utf-8").splitlines()


def test_every_slow_test_is_there() -> None:
    assert sorted(set(SLOW)) == SLOW
    for line in SLOW:
        path, name = line.split("::")
        function = name.split("[")[0]
        assert re.search(rf"^(async )?def {function}\(", (TESTS.parent / path).read_text(), re.M), (
            line
        )


def test_where_skips_are_forbidden_nothing_is_left_out() -> None:
    script = (TESTS.parent / ".ci" / "run").read_text("utf-8")
    assert script.index("export TIDINGS_FORBID_SKIPS=1") < script.index("make test\n")
    assert (
        "QUICK := $(if $(TIDINGS_FORBID_SKIPS),,--quick)" in (TESTS.parent / "Makefile").read_text()
    )
