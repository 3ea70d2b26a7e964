"""What becomes of a node that its launcher freezes, thaws and kills."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support import signalled
from support.runs import DEADLINE_S

#: the others go on without the node that does not answer, and every round is written down
FILE = """
name: signalled
nodes: 4
network: {{probe: false}}
problem: {{kind: quadratic, dim: 50}}
protocol: {{kind: d_psgd, lr: 0.1}}
compute: {{time: 10ms}}
wait: {{timeout: 200ms}}
stop: {{rounds: 1000000}}
evaluate: {{every: 1}}
launcher: {launcher}
"""


def seen(launcher: str, folder: Path, python: str, variables: Mapping[str, str]) -> dict[str, Any]:
    """What becomes of a node that is frozen, thawed and killed."""
    file = folder / "signalled.yaml"
    file.write_text(FILE.format(launcher=launcher))
    done = subprocess.run(
        [python, signalled.__file__, str(file), str(folder / "run")],
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_S,
        env=dict(variables),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def judge(found: dict[str, Any], who: str = "1") -> None:
    """It stood still, went on, and died; ``who`` may be said to have died first."""
    assert re.match(f"node [{who}] died in round ", found.pop("error"))
    assert found == {"stood still": True, "went on": True}


def here() -> dict[str, str]:
    """The environment of this process, with the modules that it has found."""
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
