"""Processes that have everything imported already: commands, and the containers of pods.

Importing takes some seconds of a core, and tests start some hundred of them. A fork server imports
once; each is a process of its own all the same, with its own streams, folder, environment and
signals, and so is a command's node server (support.spare).
"""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO

from support.spare import Spare

CLI, NODE = "tidings_coordinator.cli", "tidings.runtime.main"

#: families of plug-ins
_PLUGINS = [
    "tidings.aggregators",
    "tidings.attacks",
    "tidings.compressors",
    "tidings.faults",
    "tidings.participations",
    "tidings.partitions",
    "tidings.problems",
    "tidings.protocols",
    "tidings_coordinator.launchers",
    "tidings_coordinator.topology",
]
#: what a run imports on its way
_IMPORTED = [
    "pytest",
    CLI,
    "tidings.runtime.forkserver",
    "tidings.runtime.process",
    "tidings_coordinator.running",
    "tidings_coordinator.report.page",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "jinja2.ext",
    "jinja2.loaders",
]


#: whoever starts a process also looks which have ended, which no two threads may do at once
_LOCK = threading.Lock()


class Process:
    """A process that goes on as a program, ``MODULE.main()``; used as a subprocess.Popen is.

    ``streams`` are where its standard output and its standard error go: paths of files, or ends of
    pipes. With ``spare`` it has a node server at hand.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        cwd: Path | None,
        variables: Mapping[str, str] | None,
        streams: Sequence[str | Connection],
        spare: bool = False,
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_IMPORTED + _plugins())
        environment = dict(os.environ if variables is None else variables)
        given = (module, list(arguments), str(cwd or Path.cwd()), environment, streams, spare)
        self._process = context.Process(target=become, args=given)
        with _LOCK:
            self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Of an ended process; minus the signal that ended it."""
        with _LOCK:
            return self._process.exitcode

    def poll(self) -> int | None:
        """The exit code, or None."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; subprocess.TimeoutExpired where it goes on."""
        if self.returncode is None:
            wait([self._process.sentinel], timeout)
        code = self.returncode
        if code is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Nothing where it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)


class Command(Process):
    """``tidings ARGUMENTS``, begun, with text for both streams."""

    def __init__(
        self,
        arguments: Sequence[str],
        cwd: Path | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tidings-command-"))
        # gone with this object, however its test ends
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        streams = [self._folder / name for name in ("out", "err")]
        for stream in streams:
            stream.touch()
        super().__init__(CLI, arguments, cwd, variables, [*map(str, streams)], spare=True)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait; what it has written."""
        self.wait(timeout)
        out, err = ((self._folder / name).read_text("utf-8") for name in ("out", "err"))
        return out, err


class Container(Process):
    """A program with an environment of its own; what it writes, on both streams, is in ``stdout``
    as it comes."""

    def __init__(self, module: str, arguments: Sequence[str], variables: Mapping[str, str]) -> None:
        reader, writer = multiprocessing.Pipe(duplex=False)
        with reader, writer:
            self.stdout: IO[str] = open(os.dup(reader.fileno()), encoding="utf-8")  # noqa: SIM115
            super().__init__(module, arguments, None, variables, [writer, writer])


@cache
def _plugins() -> list[str]:
    return [
        module.name
        for family in _PLUGINS
        for module in pkgutil.walk_packages(import_module(family).__path__, f"{family}.")
    ]


def become(
    module: str,
    arguments: list[str],
    cwd: str,
    environment: dict[str, str],
    streams: Sequence[str | Connection],
    spare: bool,
) -> None:
    """Go on as that program, in the process that was forked for it."""
    for number, stream in enumerate(streams, start=1):
        if isinstance(stream, str):
            file = os.open(stream, os.O_WRONLY | os.O_APPEND)
            os.dup2(file, number)
            os.close(file)
        else:
            os.dup2(stream.fileno(), number)
    for stream in streams:
        if not isinstance(stream, str):
            stream.close()
    if environment.get("PYTHONUNBUFFERED"):
        sys.stdout.reconfigure(write_through=True)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    if spare:
        Spare().install()
    sys.argv = [module, *arguments]
    import_module(module).main()
