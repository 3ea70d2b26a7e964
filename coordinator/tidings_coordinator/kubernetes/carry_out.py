"""One run on a cluster from here: apply, follow, collect, delete."""

from __future__ import annotations

import http.client
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidings.errors import RecordError, RunError, UserError
from tidings_coordinator.control import fidelity
from tidings_coordinator.control.watch import RunView, Watcher
from tidings_coordinator.kubernetes import objects
from tidings_coordinator.kubernetes.api import Api, ApiError
from tidings_coordinator.kubernetes.config import find_cluster
from tidings_coordinator.kubernetes.follow import Follower, save_log
from tidings_coordinator.kubernetes.render import render
from tidings_coordinator.planning import RunPlan
from tidings_coordinator.records.directory import RunDirectory, read_json
from tidings_coordinator.records.keeping import Commission, finish, kept
from tidings_coordinator.records.result import Ending

if TYPE_CHECKING:
    from tidings_coordinator.launchers.kubernetes import Kubernetes

#: what a coordinator gets to write down a run that is called off, and its log to arrive
_WIND_UP_S = 45.0
#: what we know better than the pod does
_OURS = {"experiment.yaml", "resolved.yaml"}


def carry_out(launcher: Kubernetes, commission: Commission) -> tuple[Path, dict[str, Any]]:
    """Carry a run out; the run directory and its result.

    UserError, and nothing is left, where the cluster refuses the run.
    """
    run, watcher = commission.run, commission.watcher
    with kept(commission) as directory:
        ending = _carry_out(launcher, run, directory, watcher)
        if ending is None:
            return directory.path, read_json(directory.path, "result.json") or {}
        return directory.path, finish(run, ending, directory, watcher)


def _carry_out(
    launcher: Kubernetes, run: RunPlan, directory: RunDirectory, watcher: Watcher
) -> Ending | None:
    """None where the run directory came back with its result in it."""
    instance = run.run.rpartition("-")[2]
    manifests = render(launcher.release(run, instance))
    cluster = find_cluster(launcher.kubeconfig, launcher.context, launcher.namespace)
    api = Api(cluster)
    kinds = {manifest["kind"] for manifest in manifests}
    follower = Follower(api, instance, directory, watcher, float(launcher.pending))
    began = time.monotonic()
    with _signals() as aborts:
        try:
            _apply(api, manifests)
            watcher.say(f"created in namespace {api.namespace}: {_list(manifests)}")
            watcher.show(RunView(run.experiment.name, "waiting for pods"))
            error = _follow(follower, aborts)
            return _collected(follower, run, error, bool(aborts), time.monotonic() - began)
        finally:
            follower.close()
            if not launcher.keep:
                _clean_up(api, instance, kinds, watcher, grace_s=0 if aborts else None)


def _apply(api: Api, manifests: list[dict[str, object]]) -> None:
    try:
        objects.create(api, manifests)
    except ApiError as error:
        raise UserError(str(error)) from error


def _list(manifests: list[dict[str, object]]) -> str:
    names = [f"{m['kind']}/{m['metadata']['name']}" for m in manifests]  # type: ignore[index]
    return ", ".join(names)


def _follow(follower: Follower, aborts: list[str]) -> RunError | None:
    """Until the run is over; what kept it from coming to an end, if anything did."""
    follower.start()
    try:
        follower.until_over(lambda: bool(aborts))
    except RunError as error:
        return error
    pod = follower.coordinator
    if aborts and pod is not None:
        # by a SIGTERM, on which it ends the nodes in order; its Job makes no second one
        follower.watcher.say("ending the run; once more to end it at once")
        with suppress(ApiError):
            follower.api.delete("Pod", pod.name)
        follower.until_log_ends(_WIND_UP_S, lambda: len(aborts) > 1)
    return RunError(f"aborted by {aborts[0]}") if aborts else None


def _collected(
    follower: Follower, run: RunPlan, error: RunError | None, aborted: bool, wall_s: float
) -> Ending | None:
    directory = follower.directory
    _save_node_logs(follower)
    if follower.collector.complete:
        _unpack(follower, run)
        if read_json(directory.path, "result.json") is not None:
            return None
    view = follower.collector.view
    return Ending(
        run="aborted" if aborted else "failed",
        reason=str(error or _why(follower)),
        finals=[],
        time_s=view.time_s if view else 0.0,
        wall_s=wall_s,
        fidelity=fidelity.report(run, [], []),
    )


def _why(follower: Follower) -> str:
    """What can be said of a coordinator that ended without giving us its run."""
    pod = follower.coordinator
    how = "with no word" if pod is None else pod.ending()
    try:
        follower.collector.unpack(follower.directory.path)
    except RecordError as error:
        last = f"; it said: {follower.said[-1]}" if follower.said else ""
        return f"the coordinator ended, {how}, and {error}{last}"
    return f"the coordinator ended, {how}, and its run holds no result"


def _unpack(follower: Follower, run: RunPlan) -> None:
    """The run directory as if the run had been here, under the name of our launcher."""
    directory = follower.directory
    ours = read_json(directory.path, "environment.json") or {}
    shipped = directory.path / ".shipped"
    follower.collector.unpack(shipped)
    for file in sorted(path for path in shipped.rglob("*") if path.is_file()):
        place = file.relative_to(shipped)
        if str(place) not in _OURS:
            (directory.path / place).parent.mkdir(parents=True, exist_ok=True)
            file.replace(directory.path / place)
    shutil.rmtree(shipped)
    theirs = read_json(directory.path, "environment.json") or {}
    directory.write_json("environment.json", theirs | {"git": ours.get("git"), "followed_by": ours})
    result = read_json(directory.path, "result.json")
    if result is not None:
        directory.write_json("result.json", result | {"launcher": run.experiment.launcher.kind})


def _save_node_logs(follower: Follower) -> None:
    for pod in follower.pods.values():
        # of those that were killed it was kept before
        if pod.node is not None and (pod.started or pod.over) and not pod.deleted:
            # it may be gone with its machine
            with suppress(ApiError):
                save_log(follower.api, pod, follower.directory)


def _clean_up(
    api: Api, instance: str, kinds: set[str], watcher: Watcher, grace_s: int | None
) -> None:
    try:
        objects.delete(api, instance, kinds, grace_s)
    except RunError as error:
        gone = isinstance(error, ApiError) and error.status != http.client.FORBIDDEN
        hint = "when it is back, " if gone else ""
        watcher.say(
            f"{error}; {hint}delete what is left with 'kubectl delete all,configmap,secret,"
            f"networkpolicy -n {api.namespace} -l app.kubernetes.io/instance={instance}'"
        )


@contextmanager
def _signals() -> Iterator[list[str]]:
    """Ctrl-C and SIGTERM as a list of their names, instead of what they usually do."""
    names: list[str] = []
    handled = (signal.SIGINT, signal.SIGTERM)
    before = [
        signal.signal(number, lambda n, _: names.append(signal.Signals(n).name))
        for number in handled
    ]
    try:
        yield names
    finally:
        for number, handler in zip(handled, before, strict=True):
            signal.signal(number, handler)
