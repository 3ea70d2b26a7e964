"""A Docker daemon for tests, and the image that they run, built as the docs say."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import tidings
from tidings_coordinator.launchers.docker_parts import compose_command

ROOT = Path(__file__).parents[2]
IMAGE = f"tidings:{tidings.__version__}"
_READY_S = 60.0
#: the daemon makes it wherever its other files are
_KEY = Path("/etc/docker/key.json")


@contextmanager
def dockerd() -> Iterator[None]:
    """A daemon of our own while the block lasts; DOCKER_HOST leads to it.

    TIDINGS_DOCKER_ROOT is a folder that keeps images from one time to the next.
    """
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip("needs root and dockerd")
    for program in ("debootstrap", "iptables-save"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    before = os.environ.get("DOCKER_HOST")
    chains, key = "DOCKER" in _iptables(), _KEY.exists()
    with tempfile.TemporaryDirectory(prefix="tidings-dockerd-") as name:
        folder = Path(name)
        socket = f"unix://{folder}/docker.sock"
        command = ["dockerd", "--bridge=none", "--ip-forward=false", f"--host={socket}"]
        command += [f"--exec-root={folder}/exec", f"--pidfile={folder}/pid"]
        command += [f"--data-root={os.environ.get('TIDINGS_DOCKER_ROOT') or folder / 'data'}"]
        with (folder / "log").open("wb") as log:
            daemon = subprocess.Popen(command, stdout=log, stderr=log)
        os.environ["DOCKER_HOST"] = socket
        try:
            _wait_until_ready(daemon, folder / "log")
            yield
        finally:
            daemon.terminate()
            daemon.wait(60)
            os.environ.pop("DOCKER_HOST")
            if before is not None:
                os.environ["DOCKER_HOST"] = before
            if not chains:
                _remove_chains()
            if not key:
                _KEY.unlink(missing_ok=True)


def build_image(tag: str = IMAGE, *options: str) -> str:
    """The image, built from packages and wheels; quick where nothing has changed."""
    script, base = ROOT / "deploy" / "docker", _base()
    if not docker("images", "-q", base).strip():
        cached = os.environ.get("TIDINGS_DOCKER_ROOT")
        tarball = [f"{cached}.base.tar"] if cached else []
        _run([str(script / "base-from-debootstrap.sh"), base, *tarball])
    _run([str(script / "wheelhouse.sh")])
    build = ["docker", "build", "--network=none", "-f", str(script / "Dockerfile"), "-t", tag]
    _run([*build, *options, str(ROOT)], DOCKER_BUILDKIT="0")
    return tag


def prometheus_image(tag: str, folder: Path) -> None:
    """This machine's Prometheus, which is Debian's, as the image that cannot be pulled."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed")
    shutil.copy(program, folder / "prometheus")
    text = f'FROM {_base()}\nCOPY prometheus /bin/\nUSER 65534\nENTRYPOINT ["/bin/prometheus"]\n'
    (folder / "Dockerfile").write_text(text)
    _run(["docker", "build", "--network=none", "-t", tag, str(folder)], DOCKER_BUILDKIT="0")


def compose_v2() -> Path:
    """A DOCKER_CONFIG in which the docker command has version 2 of Compose."""
    folder = ROOT / "build" / "compose-v2"
    _run([str(ROOT / "deploy" / "compose" / "plugin-from-debian.sh"), str(folder)])
    return folder


def compose(*arguments: str, **variables: str) -> str:
    """What Compose prints."""
    return _run([*compose_command(), *arguments], **variables)


def docker(*arguments: str) -> str:
    """What a docker command prints."""
    return _run(["docker", *arguments])


def parts(run: str = "") -> list[str]:
    """Containers, networks and volumes of a run, or of all runs."""
    label = ["--filter", f"label=tidings.run{'=' if run else ''}{run}", "--format"]
    found = docker("ps", "-a", *label, "{{.Names}}") + docker("network", "ls", *label, "{{.Name}}")
    return (found + docker("volume", "ls", "-q")).split()


def _base() -> str:
    """The tag of the image that the Dockerfile starts from."""
    with (ROOT / "deploy" / "docker" / "Dockerfile").open() as file:
        return next(line for line in file if line.startswith("ARG BASE=")).strip()[9:]


def _run(command: list[str], **variables: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | variables
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
    return done.stdout


def _wait_until_ready(daemon: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        assert daemon.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.01)


def _iptables() -> str:
    return subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout


def _remove_chains() -> None:
    """The daemon leaves its chains behind when it ends."""
    kept = [line for line in _iptables().splitlines() if "DOCKER" not in line]
    subprocess.run(["iptables-restore"], input="\n".join(kept) + "\n", text=True, check=True)
