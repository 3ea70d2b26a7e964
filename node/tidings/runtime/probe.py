"""Measuring links before a run, over the same path as the run's messages.

Round trip: the fastest of a few small frames there and back, so it is the asked delay of both ways
plus what the machine adds. Rate: a burst of frames, timed at the receiver between the first and the
last arrival. Both in emulated time.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from tidings.transports.base import Transport
from tidings.transports.io_thread import WallClock
from tidings.v1 import control_pb2 as control
from tidings.v1 import data_pb2 as pb
from tidings.wire.codec import Codec

_PINGS = 5
_BURST = 8
#: emulated seconds that a burst is to take
_BURST_S = 0.4
_MAX_FILLER_BYTES = 4 << 20
_MIN_FILLER_BYTES = 2 << 10


@dataclass
class _Burst:
    count: int
    first_ns: int
    arrived: int = 0


class Prober:
    """One node's measuring of its own outgoing links, and its answers to others' probes."""

    def __init__(self, node: int, codec: Codec, transport: Transport, clock: WallClock) -> None:
        self._node = node
        self._codec = codec
        self._transport = transport
        self._clock = clock
        self._answers: dict[tuple[int, int], asyncio.Future[pb.Probe]] = {}
        self._bursts: dict[tuple[int, int], _Burst] = {}
        self._replies: set[asyncio.Task[None]] = set()
        self._number = 0

    async def measure(
        self, target: int, rate_bit_per_s: float, timeout_s: float
    ) -> control.ProbeResult:
        """What the link to ``target`` achieves; ``error`` is set where it does not answer."""
        result = control.ProbeResult(source=self._node, target=target)
        try:
            async with asyncio.timeout(timeout_s):
                trips_ns = [await self._round_trip_ns(target) for _ in range(_PINGS)]
                result.round_trip_s = min(trips_ns) / 1e9
                if math.isfinite(rate_bit_per_s):
                    result.rate_bit_per_s = await self._rate(target, rate_bit_per_s)
        except TimeoutError:
            result.error = f"no answer within {timeout_s:g} s"
        return result

    async def _round_trip_ns(self, target: int) -> int:
        began_ns = self._clock.now_ns
        await self._ask(target, pb.Probe(kind=pb.Probe.PING), 0)
        return self._clock.now_ns - began_ns

    async def _rate(self, target: int, rate_bit_per_s: float) -> float:
        filler = int(rate_bit_per_s * _BURST_S / 8 / _BURST)
        limit = min(_MAX_FILLER_BYTES, self._codec.max_frame_bytes - 1024)
        filler = max(min(filler, limit), min(_MIN_FILLER_BYTES, limit))
        number = self._next_number()
        answer = self._expect(target, number)
        size_bytes = 0
        for _ in range(_BURST):
            probe = pb.Probe(kind=pb.Probe.BURST, number=number, count=_BURST)
            frame = self._codec.probe(probe, filler)
            size_bytes = frame.size_bytes
            await self._transport.send(target, frame)
        report = await answer
        if report.span_ns == 0:
            return 0.0
        return (report.count - 1) * size_bytes * 8e9 / report.span_ns

    async def _ask(self, target: int, probe: pb.Probe, filler: int) -> pb.Probe:
        probe.number = self._next_number()
        answer = self._expect(target, probe.number)
        await self._transport.send(target, self._codec.probe(probe, filler))
        return await answer

    def arrived(self, source: int, probe: pb.Probe) -> None:
        """A probe, or the answer to one, has come."""
        now_ns = self._clock.now_ns
        if probe.kind == pb.Probe.PING:
            self._reply(source, pb.Probe(kind=pb.Probe.PONG, number=probe.number))
        elif probe.kind == pb.Probe.BURST:
            key = (source, probe.number)
            burst = self._bursts.setdefault(key, _Burst(probe.count, now_ns))
            burst.arrived += 1
            if burst.arrived == burst.count:
                del self._bursts[key]
                span_ns = now_ns - burst.first_ns
                self._reply(
                    source,
                    pb.Probe(
                        kind=pb.Probe.REPORT,
                        number=probe.number,
                        count=burst.count,
                        span_ns=span_ns,
                    ),
                )
        else:
            answer = self._answers.pop((source, probe.number), None)
            if answer is not None and not answer.done():
                answer.set_result(probe)

    def _reply(self, target: int, probe: pb.Probe) -> None:
        if target not in self._transport.links:
            return
        task = asyncio.create_task(self._transport.send(target, self._codec.probe(probe)))
        self._replies.add(task)
        task.add_done_callback(self._replies.discard)

    def _expect(self, target: int, number: int) -> asyncio.Future[pb.Probe]:
        answer = asyncio.get_running_loop().create_future()
        self._answers[target, number] = answer
        return answer

    def _next_number(self) -> int:
        self._number += 1
        return self._number
