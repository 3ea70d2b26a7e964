"""Starts many node processes quickly: import once, fork per node.

The server has torch, grpc and the data set loaded and no gRPC object made, so a fork is a few
milliseconds and the children share that memory. It talks JSON lines with its launcher:

    stdin   {"start": [{"node": 0, "log": "/path", "host": "127.0.0.1"}, ...]}
            {"signal": 9, "node": 3}
            {"stop": true}
    stdout  {"ready": true}     {"started": 0, "pid": 123}     {"exited": 0, "code": -9}

A child whose start names a "netns" (a file) enters that network namespace before it opens anything.
When it is told to stop, or stdin closes, or the launcher dies, the children are killed and the
server ends. Children die with the server.

With ``grace_s`` the children outlive the launcher, whose end closes stdin: for so many seconds
another one can come to the socket in the directory ``door``. It is told what there is, and talks
as the first one did.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tidings.runtime.doors import listen, remove

_PR_SET_PDEATHSIG = 1
_CLONE_NEWNET = 0x40000000


def die_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Get a signal when the parent process ends; end at once, if it already has."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def enter_network(path: str) -> None:
    """Move this thread into the network namespace whose file is at ``path``; raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # os.setns came with Python 3.12
        if libc.setns(file, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(file)


class ForkServer:
    """The server; ``options`` are the launcher's: run, coordinator, protocol, problem, parent."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._children: dict[int, int] = {}
        #: by node, how the last process ended
        self._ended_by: dict[int, int] = {}
        self._in, self._out = 0, os.dup(1)
        self._pending = b""
        self._told_to_stop = False
        self._directory = Path(options.get("door", ""))
        self._door = listen(self._directory) if options.get("grace_s", 0) > 0 else None
        #: when the time of grace is over (monotonic), while nobody is there
        self._until_s: float | None = None
        # nothing else may write between the lines
        os.dup2(2, 1)

    def serve(self) -> None:
        """Until it is told to stop, or left alone."""
        self._preload()
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        selector = selectors.DefaultSelector()
        selector.register(self._in, selectors.EVENT_READ)
        selector.register(wake_read, selectors.EVENT_READ)
        if self._door is not None:
            selector.register(self._door, selectors.EVENT_READ)
        self._say(ready=True)
        try:
            while not self._over:
                for key, _ in selector.select(self._left_s):
                    if key.fileobj is self._door:
                        self._welcome(selector)
                    elif not (data := os.read(key.fd, 1 << 16)):
                        self._left_alone(selector)
                    elif key.fd == self._in:
                        *lines, self._pending = (self._pending + data).split(b"\n")
                        for line in lines:
                            self._obey(json.loads(line), (wake_read, wake_write))
                self._reap()
        finally:
            self._end()

    @property
    def _over(self) -> bool:
        nobody = self._until_s is not None and not self._children
        return self._told_to_stop or nobody or self._left_s == 0

    @property
    def _left_s(self) -> float | None:
        return None if self._until_s is None else max(0.0, self._until_s - time.monotonic())

    def _left_alone(self, selector: selectors.BaseSelector) -> None:
        """The launcher is gone."""
        selector.unregister(self._in)
        self._pending = b""
        if self._door is None:
            self._told_to_stop = True
        self._until_s = time.monotonic() + self._options.get("grace_s", 0.0)

    def _welcome(self, selector: selectors.BaseSelector) -> None:
        """Another launcher has come; it is told what there is."""
        assert self._door is not None
        line, _ = self._door.accept()
        if self._until_s is None:
            # there is one
            line.close()
            return
        self._until_s = None
        os.close(self._out)
        self._in = self._out = line.detach()
        selector.register(self._in, selectors.EVENT_READ)
        self._say(ready=True)
        for pid, node in self._children.items():
            self._say(started=node, pid=pid)
        for node in self._ended_by.keys() - set(self._children.values()):
            self._say(exited=node, code=self._ended_by[node])

    def _end(self) -> None:
        for pid in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in self._children:
            os.waitpid(pid, 0)
        if self._door is not None:
            remove(self._directory)

    def _preload(self) -> None:
        import torch

        import tidings.runtime.process  # noqa: F401 - for the children
        from tidings.api import Problem, Protocol
        from tidings.runtime import enrolment

        torch.set_num_threads(1)
        if enrolment.TOKEN in os.environ:
            # only imported: what the library draws at random it draws in the children
            enrolment.preload()
        Protocol.parse(self._options["protocol"])
        Problem.parse(self._options["problem"]).preload()
        # keep the garbage collector from touching, and so copying, what the children share
        gc.collect()
        gc.freeze()

    def _obey(self, command: dict[str, Any], wake: tuple[int, int]) -> None:
        self._told_to_stop = self._told_to_stop or "stop" in command
        for child in command.get("start", ()):
            self._fork(child, wake)
        if "signal" in command:
            for pid, node in self._children.items():
                if node == command["node"]:
                    os.kill(pid, command["signal"])

    def _fork(self, child: dict[str, Any], wake: tuple[int, int]) -> None:
        server, node = os.getpid(), child["node"]
        pid = os.fork()
        if pid:
            self._children[pid] = node
            self._say(started=node, pid=pid)
            return
        code = 1
        try:
            die_with_parent(server)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            mine = {*wake, self._out, self._in} - {0}
            for descriptor in mine if self._door is None else {*mine, self._door.fileno()}:
                os.close(descriptor)
            self._redirect(child["log"])
            if "netns" in child:
                enter_network(child["netns"])
            from tidings.runtime.main import run_node
            from tidings.runtime.process import Seat

            options = self._options
            seat = Seat(options["run"], node, options["coordinator"], child["host"])
            code = run_node(seat)
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _redirect(self, log: str) -> None:
        """Standard input from nowhere, output into the node's log."""
        nothing = os.open(os.devnull, os.O_RDONLY)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(nothing, 0)
        os.dup2(file, 1)
        os.dup2(file, 2)

    def _reap(self) -> None:
        for pid, status in self._ended():
            node, code = self._children.pop(pid), os.waitstatus_to_exitcode(status)
            self._ended_by[node] = code
            self._say(exited=node, code=code)

    def _ended(self) -> Iterator[tuple[int, int]]:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            yield pid, status

    def _say(self, **message: Any) -> None:
        # nobody may be there; whoever comes is told how things stand
        with contextlib.suppress(OSError):
            os.write(self._out, json.dumps(message).encode() + b"\n")


def main() -> None:
    """``python -m tidings.runtime.forkserver OPTIONS`` with the options as JSON."""
    options = json.loads(sys.argv[1])
    if options.get("grace_s", 0) == 0:
        die_with_parent(options["parent"])
    # the launcher hears of Ctrl-C and decides
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ForkServer(options).serve()


if __name__ == "__main__":
    main()
