"""How fast the simulator is: gossip of 1,000 nodes on a ring, 50 rounds, a model of 1,000 numbers.

The baseline in the same run is the bare arithmetic of the same rounds: gradient and mixing of all
nodes, without messages, codec, links or event loop.

    python benchmarks/simulator.py [--nodes 1000] [--rounds 50]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch

from tidings.api import Problem
from tidings.runtime.plan import derive_rng
from tidings_coordinator.control.watch import Watcher
from tidings_coordinator.experiment.load import loads
from tidings_coordinator.running import run_experiment

EXPERIMENT = """
name: gossip
nodes: {nodes}
network: {{rate: 100Mbit/s, delay: 10ms}}
problem: {{kind: quadratic, dim: 1000, structure: diagonal}}
protocol: {{kind: d_psgd, lr: 0.05}}
stop: {{rounds: {rounds}}}
evaluate: {{every: {rounds}}}
launcher: simulator
"""


def bare(nodes: int, rounds: int) -> float:
    """Seconds of CPU for the arithmetic alone."""
    problem = Problem.parse({"kind": "quadratic", "dim": 1000, "structure": "diagonal"})
    local = [problem.local(i, nodes, 0) for i in range(nodes)]
    rngs = [derive_rng(0, i) for i in range(nodes)]
    began = time.process_time()
    x = [p.initial() for p in local]
    for _ in range(rounds):
        half = [x[i] - 0.05 * local[i].gradient(x[i], rngs[i]) for i in range(nodes)]
        x = [
            half[i].clone().add_(half[i - 1] - half[i], alpha=1 / 3).add_(
                half[(i + 1) % nodes] - half[i], alpha=1 / 3
            )
            for i in range(nodes)
        ]  # fmt: skip
    return time.process_time() - began


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    arithmetic_s = bare(options.nodes, options.rounds)
    text = EXPERIMENT.format(nodes=options.nodes, rounds=options.rounds)
    experiment = loads(text, "gossip")
    hashes = set()
    for _ in range(2):
        with tempfile.TemporaryDirectory() as place:
            began, cpu = time.monotonic(), time.process_time()
            outcome = run_experiment(experiment, text, Path(place, "run"), Watcher(), Path(place))
            wall_s, cpu_s = time.monotonic() - began, time.process_time() - cpu
            hashes.add(outcome.result["trace_hash"])
            messages = outcome.result["messages"]
    print(
        f"{options.nodes} nodes, {options.rounds} rounds, {messages} messages: {wall_s:.1f} s, "
        f"{messages / wall_s:.0f} messages/s, CPU {cpu_s / arithmetic_s:.1f} times the arithmetic; "
        f"trace {'the same' if len(hashes) == 1 else 'DIFFERS'} both times"
    )
    print(
        json.dumps(
            {
                "benchmark": "simulator",
                "wall_s": wall_s,
                "messages_per_s": messages / wall_s,
                "cpu_ratio": cpu_s / arithmetic_s,
                "same_trace": len(hashes) == 1,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
