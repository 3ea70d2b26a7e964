"""How quickly many node processes are ready, and what memory each takes.

``local`` forks nodes from a server that has torch and grpc imported. The baseline in the same run
are nodes spawned one by one, each importing for itself (launcher ``external``). Ready means:
joined, planned, and connected to all neighbours. Memory is what a node adds to the machine: the
private part (USS), which shared pages of the fork server are no part of.

    python benchmarks/start_up.py [--nodes 100] [--spawned 16]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

EXPERIMENT = """
nodes: {nodes}
network: {{rate: 10Mbit/s, delay: 20ms, probe: false}}
problem: {{kind: digits, partition: iid}}
protocol: {{kind: d_psgd, lr: 0.1}}
stop: {{rounds: 1000000}}
launcher: {launcher}
"""
DEADLINE_S = 300.0


@contextmanager
def running(place: Path, nodes: int, launcher: str) -> Iterator[tuple[Path, int]]:
    """A run that goes on until the block ends: its directory, and the coordinator's process."""
    file, out = place / "many.yaml", place / "run"
    file.write_text(EXPERIMENT.format(nodes=nodes, launcher=launcher))
    command = [sys.executable, "-m", "tidings_coordinator.cli", "run", str(file), "--quiet"]
    with subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.DEVNULL) as run:
        try:
            yield out, run.pid
        finally:
            run.terminate()


def wait_for(directory: Path, event: str) -> dict[str, str]:
    """The run's first event of that name."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        file = directory / "events.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        for found in map(json.loads, lines):
            if found["event"] == event:
                return found
        time.sleep(0.02)
    raise TimeoutError(f"no event '{event}'")


def children(pid: int) -> list[int]:
    """Processes whose parent that is."""
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def private_bytes(pid: int) -> int:
    """Memory that would be free if the process ended."""
    rows = (row.split() for row in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
    return 1024 * sum(int(row[1]) for row in rows if row[0].startswith("Private_"))


def forked(nodes: int) -> tuple[float, float]:
    """(seconds until all are ready, private bytes of the median node) with the fork server."""
    with tempfile.TemporaryDirectory() as place:
        began = time.monotonic()
        with running(Path(place), nodes, "local") as (out, pid):
            wait_for(out, "connected")
            ready_s = time.monotonic() - began
            (server,) = children(pid)
            sizes = [private_bytes(node) for node in children(server)]
            assert len(sizes) == nodes
            return ready_s, statistics.median(sizes)


def spawned(nodes: int) -> tuple[float, float]:
    """The same for nodes that are spawned."""
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        began = time.monotonic()
        launcher = "{kind: external, port: 0}"
        out, _ = stack.enter_context(running(Path(place), nodes, launcher))
        address = wait_for(out, "launching")["coordinator"]
        command = [sys.executable, "-m", "tidings.runtime.main", "--coordinator", address]
        processes = []
        for node in range(nodes):
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            process = subprocess.Popen([*command, "--node", str(node)], **quiet)
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        wait_for(out, "connected")
        ready_s = time.monotonic() - began
        return ready_s, statistics.median(private_bytes(process.pid) for process in processes)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--spawned", type=int, default=16, help="how many to spawn; 0: none")
    options = parser.parse_args(argv)
    report: dict[str, object] = {"benchmark": "start_up"}
    counts = {"forked": (forked, options.nodes), "spawned": (spawned, options.spawned)}
    per_node = {}
    for name, (measure, nodes) in counts.items():
        if not nodes:
            continue
        ready_s, size_bytes = measure(nodes)
        per_node[name] = ready_s / nodes
        print(
            f"{name}: {nodes} nodes ready after {ready_s:.1f} s ({1e3 * ready_s / nodes:.0f} ms"
            f" each), {size_bytes / 1e6:.1f} MB private each"
        )
        report[name] = {"nodes": nodes, "ready_s": ready_s, "private_bytes": size_bytes}
    if len(per_node) == 2:
        report["time_ratio"] = per_node["forked"] / per_node["spawned"]
        print(f"a forked node takes {report['time_ratio']:.3f} of the time of a spawned one")
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
