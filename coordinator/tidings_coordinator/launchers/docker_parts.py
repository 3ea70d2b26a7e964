"""What this machine's Docker holds of Tidings runs: containers and networks, by label."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from typing import Any

from tidings.errors import ConfigError, MissingExtra, RunError, UserError
from tidings_coordinator.launchers.compose_render import OWNER_LABEL, RUN_LABEL
from tidings_coordinator.launchers.owner import Owner

#: how long removing is tried while nothing goes, and how long between tries
_REMOVE_S, _AGAIN_S = 60.0, 0.1


def client() -> Any:
    """A client of the Docker daemon. MissingExtra without SDK, ConfigError without daemon."""
    try:
        import docker
    except ImportError:
        raise MissingExtra("the launcher 'compose'", "docker") from None
    try:
        found = docker.from_env(timeout=120)
        found.ping()
    except docker.errors.DockerException as error:
        raise ConfigError(f"Docker does not answer: {error}", ("launcher",)) from error
    return found


def compose_command() -> list[str]:
    """Compose version 2 if the docker command has it, else version 1; ConfigError for neither."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) is None:
            continue
        asked = subprocess.run([*command, "version"], capture_output=True, check=False)
        if asked.returncode == 0:
            return command
    message = "'compose' needs 'docker compose' (version 2) or docker-compose"
    raise ConfigError(message, ("launcher",))


def project_of(run: str) -> str:
    """The Compose project of a run, which names its containers and networks."""
    return "tidings-" + run.rpartition("-")[2][:8]


def found() -> dict[str, tuple[Owner | None, list[str]]]:
    """By run: who made it, and what is there; nothing where there is no Docker to ask."""
    left: dict[str, tuple[Owner | None, list[str]]] = {}
    with contextlib.suppress(UserError):
        docker = client()
        for kind, part in _parts(docker):
            labels = part.attrs.get("Config", part.attrs)["Labels"]
            owner, names = left.setdefault(
                labels[RUN_LABEL], (Owner.parse(labels.get(OWNER_LABEL, "")), [])
            )
            left[labels[RUN_LABEL]] = (owner, [*names, f"{kind} {part.name}"])
        docker.close()
    return left


def remove(run: str) -> None:
    """Take down all containers and networks of a run; RunError for what will not go."""
    import docker as sdk

    docker = client()
    deadline = time.monotonic() + _REMOVE_S
    try:
        # what was still being made when its maker was stopped appears late
        while parts := _parts(docker, run):
            try:
                for kind, part in parts:
                    _remove(kind, part)
                    # a busy machine takes its time, for each of them
                    deadline = time.monotonic() + _REMOVE_S
            except sdk.errors.APIError as error:
                if time.monotonic() > deadline:
                    text = f"cannot remove what {run} has left in Docker: {error}"
                    raise RunError(text) from error
                time.sleep(_AGAIN_S)
    finally:
        docker.close()


def _remove(kind: str, part: Any) -> None:
    import docker as sdk

    with contextlib.suppress(sdk.errors.NotFound):
        if kind == "container":
            part.remove(force=True, v=True)
        else:
            part.remove()


def _parts(docker: Any, run: str | None = None) -> list[tuple[str, Any]]:
    """Containers, then the networks that they are in."""
    label = {"label": RUN_LABEL if run is None else f"{RUN_LABEL}={run}"}
    containers = docker.containers.list(all=True, filters=label, ignore_removed=True)
    networks = docker.networks.list(filters=label)
    return [("container", part) for part in containers] + [("network", part) for part in networks]
