"""Network namespaces in tests: whether they can be had here, and what is left of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest


def need_namespaces() -> None:
    """Skip where network namespaces cannot be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("tc") is None:
        pytest.skip("network namespaces need root and iproute2")
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let us make network namespaces")


def parts(run_id: str) -> set[str]:
    """Namespaces and devices that belong to a run."""
    key = run_id.rpartition("-")[2]
    folder = Path("/run/netns")
    names = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    shown = subprocess.run(["ip", "-j", "link"], capture_output=True, check=True).stdout
    return {name for name in names | {link["ifname"] for link in json.loads(shown)} if key in name}
