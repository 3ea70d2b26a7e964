"""A command's node server by a process that has imported it already.

``tidings run`` starts ``python -m tidings.runtime.forkserver``, which imports for some seconds. For
commands of tests a process that is forked as soon as they begin, before anything else is there,
waits to become that server: a child of the command, as it would be, with the streams, environment
and arguments that it would have.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import traceback
from collections.abc import Mapping
from typing import IO, Any

_SERVER = ("-m", "tidings.runtime.forkserver")
_JOB_BYTES = 1 << 20


class Spare:
    """The process that waits; used once."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair()
        #: whose child it is: a coordinator that another process attends to is not that one
        self._parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            self._line.close()
            _wait(theirs)
        theirs.close()
        self._used = False

    def install(self) -> None:
        """Be what asyncio starts in the place of the first node server."""
        execute = asyncio.create_subprocess_exec

        async def create(*command: str, **options: Any) -> Any:
            if command[1:3] != _SERVER or self._used or os.getpid() != self._parent:
                return await execute(*command, **options)
            self._used = True
            return await self._become(command[3:], **options)

        asyncio.create_subprocess_exec = create

    async def _become(
        self, arguments: tuple[str, ...], env: Mapping[str, str], stderr: IO[bytes], limit: int,
        **_: Any,
    ) -> Started:  # fmt: skip
        read_in, write_in = os.pipe()
        read_out, write_out = os.pipe()
        job = json.dumps({"arguments": arguments, "environment": dict(env)}).encode()
        socket.send_fds(self._line, [job], [read_in, write_out, stderr.fileno()])
        self._line.close()
        os.close(read_in)
        os.close(write_out)
        loop = asyncio.get_running_loop()
        out = asyncio.StreamReader(limit)
        await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(out), os.fdopen(read_out, "rb")
        )
        transport, flow = await loop.connect_write_pipe(
            asyncio.streams.FlowControlMixin, os.fdopen(write_in, "wb")
        )
        return Started(self._pid, asyncio.StreamWriter(transport, flow, None, loop), out)


class Started:
    """As an asyncio.subprocess.Process."""

    def __init__(self, pid: int, stdin: asyncio.StreamWriter, stdout: asyncio.StreamReader) -> None:
        self.pid, self.stdin, self.stdout = pid, stdin, stdout
        self._code: int | None = None

    @property
    def returncode(self) -> int | None:
        """None while it is there."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    async def wait(self) -> int:
        """Until it has ended."""
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        file = os.pidfd_open(self.pid) if self._code is None else None
        if file is not None:
            loop.add_reader(file, over.set)
            try:
                await over.wait()
            finally:
                loop.remove_reader(file)
                os.close(file)
        code = self.returncode
        assert code is not None
        return code

    def kill(self) -> None:
        """SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, 9)


def _wait(line: socket.socket) -> None:
    """In the process that waits: become the server, or end with the command."""
    code = 1
    try:
        data, files, *_ = socket.recv_fds(line, _JOB_BYTES, 3)
        if not data:
            os._exit(0)
        for number, file in enumerate(files):
            os.dup2(file, number)
        os.closerange(3, 1 << 12)
        os.setsid()
        job = json.loads(data)
        os.environ.clear()
        os.environ.update(job["environment"])
        sys.argv = ["forkserver", *job["arguments"]]
        from tidings.runtime.forkserver import main

        main()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
