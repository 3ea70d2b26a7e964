"""Commands by processes that have the command line imported already.

Importing takes some seconds of a core, and tests start some hundred commands. A fork server imports
once; each command is a process of its own all the same, with its own streams, folder, environment
and signals, and so is its node server (support.spare).
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.spare import Spare

#: what a run imports on its way
_IMPORTED = [
    "pytest",
    "tidings_coordinator.cli",
    "tidings_coordinator.running",
    "tidings.runtime.forkserver",
    "tidings.runtime.process",
    "tidings_coordinator.report.page",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
]


class Command:
    """``tidings ARGUMENTS``, begun; used as a subprocess.Popen is, with text for both streams."""

    def __init__(
        self,
        arguments: Sequence[str],
        cwd: Path | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_IMPORTED)
        self._folder = Path(tempfile.mkdtemp(prefix="tidings-command-"))
        # gone with this object, however its test ends
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        streams = [self._folder / name for name in ("out", "err")]
        for stream in streams:
            stream.touch()
        environment = dict(os.environ if variables is None else variables)
        paths = tuple(map(str, streams))
        given = (list(arguments), str(cwd or Path.cwd()), environment, paths)
        self._process = context.Process(target=become, args=given)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Of an ended command; minus the signal that ended it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The exit code, or None."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; subprocess.TimeoutExpired where it goes on."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("tidings", timeout or 0.0)
        return code

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait; what it has written."""
        self.wait(timeout)
        out, err = ((self._folder / name).read_text("utf-8") for name in ("out", "err"))
        return out, err


def become(
    arguments: list[str], cwd: str, environment: dict[str, str], streams: tuple[str, str]
) -> None:
    """Go on as that command, in the process that was forked for it."""
    for number, path in enumerate(streams, start=1):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    Spare().install()
    sys.argv = ["tidings", *arguments]
    from tidings_coordinator.cli import main

    main()
