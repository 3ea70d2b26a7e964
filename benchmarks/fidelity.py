"""How close links come to what was asked of them, over gRPC between processes on this machine.

Rate: 1 MiB messages over one shaped link, timed at the receiver, against the rate asked for. Delay:
small messages there and back, against twice the delay asked for. Incast: eight senders into one
network card: their sum against the card's rate, and the smallest share against the largest.

    python benchmarks/fidelity.py [--quick]

Every figure is a ratio to what was asked, or an error against it; the baseline is the request.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys

import numpy as np
from peers import Peer, Setup, run

from tidings.links.shape import LinkShape, NicShape

MIB = 1 << 20
RATES_MBIT = (1, 10, 100, 500)
DELAYS_MS = (0, 1, 20, 100)
SENDERS = 8


async def send_many(peer: Peer, target: int, count: int) -> None:
    frame = peer.frame()
    for _ in range(count):
        await peer.transport.send(target, frame)
    await peer.transport.flush()


async def time_arrivals(peer: Peer, count: int) -> float:
    """Bit/s between the first and the last arrival."""
    await peer.until(count)
    span_ns = peer.arrivals[-1][0] - peer.arrivals[0][0]
    return (count - 1) * peer.frame().size_bytes * 8e9 / span_ns


async def ping(peer: Peer, target: int, count: int) -> list[float]:
    """Round trips in ms."""
    frame = peer.frame()
    trips = []
    for number in range(count):
        began_ns = peer.clock.now_ns
        await peer.transport.send(target, frame)
        await peer.until(number + 1)
        trips.append((peer.clock.now_ns - began_ns) / 1e6)
    return trips


async def echo(peer: Peer, target: int, count: int) -> None:
    frame = peer.frame()
    for number in range(count):
        await peer.until(number + 1)
        await peer.transport.send(target, frame)
    await peer.transport.flush()


async def shares(peer: Peer, count: int) -> tuple[float, float]:
    """(bit/s into the card, smallest share / largest share) until the first sender is done.

    The rate is the slope of a line through the arrivals, for fair shares arrive in groups.
    """
    await peer.until(SENDERS * count)
    per_source = {
        s: [t for t, source in peer.arrivals if source == s] for s in range(1, SENDERS + 1)
    }
    until_ns = min(times[-1] for times in per_source.values())
    inside = [sum(t <= until_ns for t in times) for times in per_source.values()]
    times = np.array([t for t, _ in peer.arrivals if t <= until_ns])[SENDERS:]
    slope = np.polyfit((times - times[0]) / 1e9, np.arange(len(times)), 1)[0]
    return float(slope) * peer.frame().size_bytes * 8, min(inside) / max(inside)


def chunk_bytes(rate_bit_per_s: float, shared: bool) -> int:
    return max(16 << 10, min(256 << 10, int(rate_bit_per_s * (0.005 if shared else 0.02) / 8)))


def measure_rate(mbit: float, seconds: float) -> float:
    """Achieved / asked."""
    rate = mbit * 1e6
    count = max(3, int(seconds * rate / 8 / MIB)) + 1
    links = {0: {1: LinkShape(rate_bit_per_s=rate)}, 1: {}}
    setup = Setup(MIB, links, {}, chunk_bytes(rate, False))
    return float(run(setup, [(send_many, (1, count)), (time_arrivals, (count,))])[1]) / rate


def measure_delay(ms: float, count: int) -> list[float]:
    """One-way errors in ms."""
    shape = LinkShape(rate_bit_per_s=1e9, delay_ns=int(ms * 1e6))
    setup = Setup(1024, {0: {1: shape}, 1: {0: shape}}, {}, chunk_bytes(1e9, False))
    trips = run(setup, [(ping, (1, count)), (echo, (0, count))])[0]
    asked = 2 * (ms + 8 * 1050 / 1e6)
    return [(trip - asked) / 2 for trip in trips]


def measure_incast(mbit: float, count: int) -> tuple[float, float]:
    """(total / asked, fairness) of senders into one card."""
    rate = mbit * 1e6
    links = {0: {}} | {i: {0: LinkShape(rate_bit_per_s=rate)} for i in range(1, SENDERS + 1)}
    nics = {0: NicShape(ingress_bit_per_s=rate)}
    setup = Setup(256 << 10, links, nics, chunk_bytes(rate, True))
    scripts = [(shares, (count,))] + [(send_many, (0, count))] * SENDERS
    total, fairness = run(setup, scripts)[0]
    return total / rate, fairness


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a fraction of the time")
    quick = parser.parse_args(argv).quick
    report: dict[str, object] = {"benchmark": "fidelity"}
    for mbit in RATES_MBIT:
        ratio = measure_rate(mbit, 2 if quick else 8)
        print(f"rate {mbit:4d} Mbit/s: achieved/asked {ratio:.4f}")
        report[f"rate_{mbit}_mbit"] = ratio
    for ms in DELAYS_MS:
        errors = sorted(measure_delay(ms, 20 if quick else 100))
        p50, p99 = statistics.median(errors), errors[int(0.99 * (len(errors) - 1))]
        print(f"delay {ms:3d} ms: one-way error p50 {p50:+.2f} ms, p99 {p99:+.2f} ms")
        report[f"delay_{ms}_ms"] = {"p50_ms": p50, "p99_ms": p99}
    total, fairness = measure_incast(100, 8 if quick else 24)
    print(f"incast of {SENDERS} into 100 Mbit/s: total/asked {total:.4f}, min/max {fairness:.2f}")
    report["incast"] = {"total": total, "fairness": fairness}
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
