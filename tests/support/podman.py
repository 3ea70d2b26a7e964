"""Podman with a store of its own, and an image of Tidings: Debian's packages and this checkout.

Needs root, podman, runc and debootstrap; nothing is pulled. TIDINGS_BASE_TAR may name a tarball of
a Debian root file system with Python 3.11, which saves the minute of making one.
"""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
import site
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.runs import DEADLINE_S

ROOT = Path(__file__).parents[2]
IMAGE = "localhost/tidings:test"
_MPI_IMAGE = "localhost/tidings-mpi:test"
_PATH = "/opt/python/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin"
_TABLES = ("filter", "nat")
#: the same for all podmans of a machine
_LOCKS = Path("/dev/shm/libpod_lock")
#: files and processes of a container
_MOST = 4096
#: of the test environment, and not needed to run an experiment
_LEFT_OUT = (
    "*/torch/include", "*/torch/test", "site-packages/kubernetes_validate*", "site-packages/scs*",
    "site-packages/sparsediffpy*", "site-packages/mypy*", "*__mypyc*", "site-packages/cvxpy*",
    "site-packages/matplotlib*", "*/__pycache__",
)  # fmt: skip


def missing() -> str | None:
    """What this machine lacks for all of this."""
    if os.geteuid() != 0:
        return "needs root"
    if sys.version_info[:2] != (3, 11):
        return "the containers have Python 3.11, these packages are for another"
    tools = ["podman", "runc", "iptables", "tar"]
    if "TIDINGS_BASE_TAR" not in os.environ:
        tools.append("debootstrap")
    absent = [tool for tool in tools if shutil.which(tool) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


class Podman:
    """Podman on a directory; ``close`` leaves nothing of it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: list[str] = []
        directory.mkdir()
        self._had_rules = any(rules(table) for table in _TABLES)
        self._had_locks = _LOCKS.exists()
        files, processes = (
            _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
            for hard in (
                resource.getrlimit(which)[1]
                for which in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)
            )
        )
        # crun does not take a host with both kinds of cgroups; and the limits that podman would
        # set are above ours, which only a privileged process may raise
        (directory / "containers.conf").write_text(
            "[containers]\n"
            f'default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]\n'
            '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n'
        )
        self._options = [
            "--root", str(directory / "store"),
            "--runroot", str(directory / "run"),
            "--network-config-dir", str(directory / "networks"),
        ]  # fmt: skip

    def __call__(self, *arguments: str, stdin: Any = None) -> str:
        """Run podman; what it wrote to standard output, and all that is in a log."""
        done = subprocess.run(
            ["podman", *self._options, *arguments],
            env=os.environ | {"CONTAINERS_CONF": str(self._directory / "containers.conf")},
            stdin=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S + 300,
            check=False,
        )
        assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr}"
        return done.stdout + (done.stderr if arguments[0] == "logs" else "")

    def close(self) -> None:
        """Remove all pods, networks and images, and unmount the store."""
        self("pod", "rm", "--all", "--force", "--time", "0")
        self("rm", "--all", "--force", "--time", "0")
        for network in json.loads(self("network", "ls", "--format", "json")):
            if network["name"] != "podman":
                self("network", "rm", "--force", network["name"])
        self("volume", "rm", "--all", "--force")
        self("secret", "rm", "--all")
        self("rmi", "--all", "--force")
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            place = line.split()[1]
            if place.startswith(f"{self._directory}/"):
                subprocess.run(["umount", place], check=True)
        shutil.rmtree(self._directory)
        if not self._had_rules:
            remove_rules()
        if not self._had_locks:
            _LOCKS.unlink(missing_ok=True)

    def build(self) -> None:
        """The image: Debian, the packages of this environment, the code of this checkout."""
        files = self._directory / "files"
        files.mkdir()
        for name, module in (
            ("tidings", "tidings_coordinator.cli"),
            ("tidings-node", "tidings.runtime.main"),
        ):
            (files / name).write_text(f'#!/bin/sh\nexec python3 -m {module} "$@"\n')
            (files / name).chmod(0o755)
        # an environment at the same place as in the image of deploy/docker
        (files / "python" / "bin").mkdir(parents=True)
        for name in ("python", "python3"):
            (files / "python" / "bin" / name).symlink_to("/usr/bin/python3")
        (files / "python" / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11\n")
        packages = Path(site.getsitepackages()[0])
        moves = [
            "s,^python,./opt/python,S",
            "s,^site-packages,./opt/python/lib/python3.11/site-packages,",
            r"s,^tidings\(_coordinator\)*/,./opt/source/&,",
            r"s,^tidings\(-node\)*$,./usr/local/bin/&,",
        ]
        command = ["tar", "-c", "--transform", ";".join(moves)]
        command += [f"--exclude={pattern}" for pattern in _LEFT_OUT]
        command += ["-C", str(self._base()), "."]
        command += ["-C", str(packages.parent), packages.name]
        command += ["-C", str(files), "python", "tidings", "tidings-node"]
        for folder, package in (("node", "tidings"), ("coordinator", "tidings_coordinator")):
            inside = [f"{package}/{entry.name}" for entry in (ROOT / folder / package).iterdir()]
            command += ["-C", str(ROOT / folder), *inside]
        changes = [f"--change=ENV PATH={_PATH}", "--change=ENV PYTHONPATH=/opt/source"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as archive:
            self("import", "--quiet", *changes, "-", IMAGE, stdin=archive.stdout)
        assert archive.returncode == 0

    def build_mpi(self) -> str:
        """The image with MPICH and sshd, by deploy/docker; its tag."""
        folder = ROOT / "deploy" / "docker"
        subprocess.run([str(folder / "wheelhouse.sh"), sys.executable, "-mpi"], check=True)
        file, base = ["-f", str(folder / "mpi.Dockerfile")], f"IMAGE={IMAGE}"
        self("build", "--network=none", *file, "--build-arg", base, "-t", _MPI_IMAGE, str(ROOT))
        return _MPI_IMAGE

    def _base(self) -> Path:
        root = self._directory / "base"
        root.mkdir()
        if given := os.environ.get("TIDINGS_BASE_TAR"):
            subprocess.run(["tar", "-C", str(root), "-xf", given], check=True)
            return root
        command = [
            "debootstrap",
            "--variant=minbase",
            "--include=python3,openssh-server",
            "bookworm",
            str(root),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stdout[-2000:]
        return root


def rules(table: str) -> list[list[str]]:
    """Netavark's own chains in a table, and the rules that lead there, as iptables writes them."""
    done = subprocess.run(
        ["iptables", "-t", table, "-S"], capture_output=True, text=True, check=True
    )
    return [shlex.split(line) for line in done.stdout.splitlines() if "NETAVARK" in line]


def remove_rules() -> None:
    """Take netavark's empty chains away, which it leaves behind when its last network goes."""
    for table in _TABLES:
        found = rules(table)
        chains = [rule[1] for rule in found if rule[0] == "-N"]
        steps = [["-D", *rule[1:]] for rule in found if rule[0] == "-A"]
        steps += [["-F", chain] for chain in chains] + [["-X", chain] for chain in chains]
        for step in steps:
            subprocess.run(["iptables", "-t", table, *step], check=True)


def podman_or_skip(directory: Path) -> Podman:
    """Podman, or a skip that says what is missing."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    return Podman(directory)
