"""``tidings adopt``: the nodes of a coordinator that was killed find another one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

from tidings.errors import UserError
from tidings_coordinator import attending
from tidings_coordinator.control.entrance import uses_tls
from tidings_coordinator.control.watch import Watcher
from tidings_coordinator.experiment.load import load
from tidings_coordinator.launchers.external import External
from tidings_coordinator.launchers.local import Local
from tidings_coordinator.planning import plan
from tidings_coordinator.records.directory import RunDirectory, read_json, read_lines
from tidings_coordinator.running import Outcome, carry_out


def adopt(path: Path, watcher: Watcher) -> Outcome:
    """Take over the nodes of a run whose coordinator was killed, and see the run to its end.

    They go on by themselves for as long as the launcher's ``grace``, dial the address that they
    know, and say again what they have said. UserError where that cannot be.
    """
    file, environment = path / "resolved.yaml", read_json(path, "environment.json")
    if not file.exists() or environment is None:
        raise UserError(f"{path} holds no run")
    if read_json(path, "result.json") is not None:
        raise UserError(f"the run in {path} has ended: there is nobody to adopt")
    experiment = load(file)
    launcher = experiment.launcher
    if plan(experiment, environment["run_id"]).grace_s <= 0:
        raise UserError(
            f"the nodes of {path} do not outlive their coordinator: launcher.grace, which 'local' "
            "and 'external' have, was not asked for; 'tidings resume' starts them anew from "
            "checkpoints"
        )
    if uses_tls(experiment) and launcher.port == 0:
        raise UserError(f"the nodes of {path} do not know where to look: set launcher.port")
    address = next((e["coordinator"] for e in _events(path) if e["event"] == "launching"), None)
    if address is None or not any(event["event"] == "started" for event in _events(path)):
        raise UserError(f"the run in {path} had not begun: start it anew")
    there = replace(cast("Local | External", launcher), port=int(address.rpartition(":")[2]))
    run = plan(experiment.model_copy(update={"launcher": there}), environment["run_id"])
    attending.check(run)
    with RunDirectory.adopt(path) as directory:
        found = carry_out(run.kept_in(path), directory, watcher, adopting=True)
        return Outcome(path, found)


def _events(path: Path) -> list[dict[str, str]]:
    return list(read_lines(path, "events"))
