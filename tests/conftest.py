"""Shared set-up: tests/support is importable, torch keeps to one thread, skips can be asked for.

Or forbidden: by TIDINGS_FORBID_SKIPS.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)
# the processes that tests start
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


#: what is skipped where there is little time, a test (with its parameters) a line
SLOW = Path(__file__).with_name("slow.txt")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--quick``."""
    parser.addoption("--quick", action="store_true", help=f"skip the tests in {SLOW.name}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what takes long, where that is asked for."""
    if config.getoption("--quick"):
        slow = set(SLOW.read_text("utf-8").splitlines())
        for item in items:
            if item.nodeid in slow:
                item.add_marker(pytest.mark.skip(reason="takes long: make test-all"))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """With TIDINGS_FORBID_SKIPS a skipped test fails the session: CI has installed all parts."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if skipped and os.environ.get("TIDINGS_FORBID_SKIPS") and exitstatus == pytest.ExitCode.OK:
        print(f"\n{len(skipped)} tests were skipped, which TIDINGS_FORBID_SKIPS forbids")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


# CI tries the same examples every time, developers always others
settings.register_profile("ci", derandomize=True)
if os.environ.get("TIDINGS_FORBID_SKIPS"):
    settings.load_profile("ci")
