"""One experiment on virtual time and with real processes: predicted against measured.

Bytes and final weights must be equal. Time must agree within 10 % where the network dominates;
computing costs in the simulator what a gradient takes here, measured first.

    python benchmarks/sim_vs_real.py [--rounds 60]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tidings_coordinator.control.watch import Watcher
from tidings_coordinator.experiment.load import load
from tidings_coordinator.running import run_experiment

EXAMPLES = Path(__file__).parents[1] / "examples"
_CHOCO = "protocol={kind: choco_sgd, lr: 0.1, gamma: 0.4, compressor: {kind: top_k, ratio: 10%}}"
#: (name, whether the network dominates, settings); the last shows what happens where it does not
CASES = (
    ("d_psgd", True, ("protocol={kind: d_psgd, lr: 0.1}",)),
    ("choco_sgd, 2 Mbit/s", True, (_CHOCO, "network.rate=2Mbit/s")),
    ("choco_sgd", False, (_CHOCO,)),
)


def run(out: Path, *overrides: str) -> dict[str, Any]:
    file = EXAMPLES / "quickstart.yaml"
    experiment = load(file, overrides)
    outcome = run_experiment(experiment, file.read_text(), out, Watcher(), EXAMPLES)
    assert outcome.result["run"] == "completed", outcome.result["reason"]
    return outcome.result


def gradient_s(directory: Path) -> float:
    """What a gradient took in a real run, waiting for a core included."""
    lines = (directory / "nodes.jsonl").read_text().splitlines()
    nodes = [json.loads(line) for line in lines]
    return float(sum(n["compute_s"] for n in nodes) / sum(n["gradients"] for n in nodes))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args(argv).rounds
    report: dict[str, Any] = {"benchmark": "sim_vs_real"}
    for name, network_dominates, case in CASES:
        settings = [*case, f"stop.rounds={rounds}", "metrics.serve=false"]
        with tempfile.TemporaryDirectory() as place:
            real = run(Path(place, "real"), *settings)
            cost = f"compute.simulated={1e3 * gradient_s(Path(place, 'real')):.3f}ms"
            simulated = run(Path(place, "sim"), *settings, cost, "launcher=simulator")
        ratio = real["time_s"] / simulated["time_s"]
        same = {key: simulated[key] == real[key] for key in ("bytes", "weights_sha256")}
        print(
            f"{name:>20}: predicted {simulated['time_s']:.2f} s, measured {real['time_s']:.2f} s,"
            f" ratio {ratio:.3f}; {real['bytes']['total']} bytes"
            f" {'as' if same['bytes'] else 'NOT as'} predicted;"
            f" weights {'equal' if same['weights_sha256'] else 'DIFFER'}"
        )
        report[name] = {
            "network_dominates": network_dominates,
            "time_ratio": ratio,
            "bytes_equal": same["bytes"],
            "weights_equal": same["weights_sha256"],
            "lag_p50_s": real["fidelity"]["lag_p50_s"],
        }
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
