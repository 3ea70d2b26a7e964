"""Goodput and message rate of a Tidings link against a raw grpc.aio stream in the same run.

Both ends are processes of their own, on loopback. Raw: processes that import nothing but grpc, one
client stream, 16 MiB messages written in slices of 1 MiB and joined at the receiver; 1 KiB messages
written one by one. Tidings: the same
payloads as ``Weights`` messages through codec, pacer and transport, on a link without shaping.

    python benchmarks/transport.py [--repeats 5]
    python benchmarks/transport.py --tls          # the same link under TLS against in the clear
    python benchmarks/transport.py --mpi          # over MPI against raw mpi4py (transport_mpi.py)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from multiprocessing.connection import Connection
from typing import Any

MIB = 1 << 20
RAW_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
#: (name, payload bytes, messages)
CASES = (("16 MiB", 16 * MIB, 40), ("1 KiB", 1024, 20_000))


# -- raw ---------------------------------------------------------------------------------------


async def raw_receiver(pipe: Connection, size: int, messages: int) -> None:
    import grpc
    from grpc import aio

    done = asyncio.Event()

    async def link(chunks: AsyncIterator[bytes], context: Any) -> bytes:
        began, parts, held, whole = 0.0, [], 0, 0
        async for chunk in chunks:
            began = began or time.perf_counter()
            parts.append(chunk)
            held += len(chunk)
            if held >= size:
                assert len(b"".join(parts)) == size
                parts, held, whole = [], 0, whole + 1
        pipe.send(messages / (time.perf_counter() - began) if whole == messages else 0.0)
        done.set()
        return b""

    server = aio.server(options=RAW_OPTIONS)
    handler = grpc.stream_unary_rpc_method_handler(link)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("raw", {"L": handler}),))
    pipe.send(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    await server.start()
    await done.wait()
    await server.stop(1)


async def raw_sender(address: str, size: int, messages: int) -> None:
    from grpc import aio

    payload = memoryview(os.urandom(size))
    async with aio.insecure_channel(address, options=RAW_OPTIONS) as channel:
        call = channel.stream_unary("/raw/L")()
        for _ in range(messages):
            for start in range(0, size, MIB):
                await call.write(bytes(payload[start : start + MIB]))
        await call.done_writing()
        await call


# -- Tidings -----------------------------------------------------------------------------------


def run_credentials() -> list[Any]:
    """Credentials of both ends, from an authority of their own."""
    from tidings.runtime.enrolment import make_request
    from tidings.transports.credentials import Credentials
    from tidings_coordinator.control.authority import Authority

    authority, made = Authority(), []
    for node in range(2):
        key, request = make_request(node)
        made.append(Credentials(authority.certificate, authority.certify(node, request)[0], key))
    return made


def make(node: int, size: int, credentials: Any) -> tuple[Any, Any, Any, Any]:
    from tidings.api import Protocol
    from tidings.links.shape import LinkShape, NicShape
    from tidings.transports.endpoint import Endpoint
    from tidings.transports.grpc import GrpcTransport
    from tidings.transports.identity import Identity
    from tidings.transports.io_thread import IoThread, WallClock
    from tidings.wire.codec import Codec

    codec = Codec(Protocol.parse({"kind": "d_psgd", "lr": 0.1}), size // 4)
    io, peer = IoThread(), 1 - node
    transport = GrpcTransport(
        Endpoint(
            Identity("benchmark", node, codec.digest),
            {peer: LinkShape()},
            NicShape(),
            frozenset({peer}),
            0,
            WallClock(),
            io,
            codec.check_length,
            codec.chunk_bytes,
        ),
        credentials,
    )
    transport.suspect = lambda peer, dead: None
    transport.receive = lambda source, frame: None
    return transport, codec, io, peer


async def tidings_receiver(pipe: Connection, size: int, messages: int, credentials: Any) -> None:
    transport, codec, io, peer = make(1, size, credentials)
    seen, began, done = [0], [0.0], asyncio.Event()

    def receive(source: int, frame: Any) -> None:
        began[0] = began[0] or time.perf_counter()
        assert codec.decode(frame).message.x.numel() == size // 4
        seen[0] += 1
        if seen[0] == messages:
            pipe.send(messages / (time.perf_counter() - began[0]))
            done.set()

    transport.receive = receive
    pipe.send(await transport.listen("127.0.0.1"))
    assert not await transport.connect({peer: pipe.recv()}, 10)
    await done.wait()
    await transport.close()
    io.stop()


async def tidings_sender(
    pipe: Connection, address: str, size: int, messages: int, credentials: Any
) -> None:
    import torch

    from tidings.api import Weights

    transport, codec, io, peer = make(0, size, credentials)
    pipe.send(await transport.listen("127.0.0.1"))
    assert not await transport.connect({peer: address}, 10)
    x = torch.randn(size // 4)
    for number in range(messages):
        await transport.send(peer, codec.encode(Weights(x), number))
    await transport.flush()
    await transport.close()
    io.stop()


# -- both --------------------------------------------------------------------------------------


def _receive(kind: str, pipe: Connection, size: int, messages: int, credentials: Any) -> None:
    if kind == "raw":
        asyncio.run(raw_receiver(pipe, size, messages))
    else:
        asyncio.run(tidings_receiver(pipe, size, messages, credentials))


def _send(
    kind: str, pipe: Connection, address: str, size: int, messages: int, credentials: Any
) -> None:
    if kind == "raw":
        asyncio.run(raw_sender(address, size, messages))
    else:
        asyncio.run(tidings_sender(pipe, address, size, messages, credentials))


def measure(kind: str, size: int, messages: int) -> float:
    """Messages per second as the receiver saw them; ``kind``: raw, tidings or tls."""
    first, second = run_credentials() if kind == "tls" else (None, None)
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    out_here, out_there = spawn.Pipe()
    receiver = spawn.Process(target=_receive, args=(kind, there, size, messages, second))
    receiver.start()
    address = here.recv()
    sender = spawn.Process(target=_send, args=(kind, out_there, address, size, messages, first))
    sender.start()
    if kind != "raw":
        here.send(out_here.recv())
    rate = float(here.recv())
    sender.join()
    receiver.join()
    return rate


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--mpi", action="store_true", help="over MPI; needs mpiexec")
    parser.add_argument("--tls", action="store_true", help="TLS against the same in the clear")
    parser.add_argument(
        "--fabric", choices=("shm", "tcp"), default="shm", help="what MPI is to use here"
    )
    options = parser.parse_args(argv)
    repeats = options.repeats
    base, ours_name = ("tidings", "tls") if options.tls else ("raw", "tidings")
    # as node processes are started: one thread each, and no idle BLAS threads that spin
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if options.mpi:
        from transport_mpi import compare

        print(json.dumps({"benchmark": "transport over MPI", **compare(repeats, options.fabric)}))
        return 0
    report: dict[str, Callable[..., Any] | Any] = {}
    for name, size, messages in CASES:
        pairs = [(measure(base, size, messages), measure(ours_name, size, messages))
                 for _ in range(repeats)]  # fmt: skip
        ratio = statistics.median(ours / raw for raw, ours in pairs)
        raw, ours = (statistics.median(values) for values in zip(*pairs, strict=True))
        print(
            f"{name:>7}: {base} {raw:9.1f} msg/s {raw * size / 1e6:7.1f} MB/s   "
            f"{ours_name} {ours:9.1f} msg/s {ours * size / 1e6:7.1f} MB/s   ratio {ratio:.2f}"
        )
        report[name] = {f"{base}_per_s": raw, f"{ours_name}_per_s": ours, "ratio": ratio}
    print(json.dumps({"benchmark": "transport_tls" if options.tls else "transport", **report}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
