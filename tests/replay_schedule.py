"""``python tests/replay_schedule.py WORD``: a schedule of faults that has failed, once more.

The word is what the failed test has printed. Ends with the same error, or says that there is none.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "node"), str(ROOT / "coordinator")]


def main(word: str) -> None:
    """Do what the word says."""
    from support import experiments, trial
    from support.schedules import unpacked

    schedule = unpacked(word)
    if "steps" in schedule:
        for name, arguments in schedule["steps"]:
            print(name, arguments)
        trial.carry_out(schedule["setup"], schedule["steps"])
    else:
        print(experiments.as_text(schedule))
        experiments.check(schedule)
    print("nothing went wrong")


if __name__ == "__main__":
    main(sys.argv[1])
