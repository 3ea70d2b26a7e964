"""Manifests for people who apply them themselves: one YAML stream, or a directory for kustomize."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tidings.errors import ConfigError, UserError
from tidings_coordinator.experiment.model import Experiment
from tidings_coordinator.kubernetes.release import Object
from tidings_coordinator.kubernetes.render import as_yaml, render
from tidings_coordinator.launchers.kubernetes import Kubernetes
from tidings_coordinator.planning import plan


def manifests(experiment: Experiment, instance: str) -> list[Object]:
    """All objects of a run whose id is made of the experiment's name and ``instance``."""
    if not instance.isalnum() or instance != instance.lower() or len(instance) > 20:
        raise UserError(f"'{instance}' is no instance: write at most 20 small letters and digits")
    if not isinstance(experiment.launcher, Kubernetes):
        raise ConfigError("only 'kubernetes' has manifests", ("launcher",))
    run = plan(experiment, f"{experiment.name}-{instance}")
    return render(experiment.launcher.release(run, instance))


def only(kind: str, objects: Sequence[Object]) -> list[Object]:
    """The objects of a kind, or all where it is empty; UserError where there are none of it."""
    found = [manifest for manifest in objects if kind in ("", manifest["kind"])]
    if not found:
        kinds = ", ".join(dict.fromkeys(manifest["kind"] for manifest in objects))
        raise UserError(f"--kind: this run has no '{kind}'; it has {kinds}")
    return found


def write(objects: Sequence[Object], out: Path | None) -> None:
    """To standard output, or as one file an object beside a kustomization."""
    if out is None:
        sys.stdout.write(as_yaml(objects))
        return
    names = [f"{file_name(manifest)}.yaml" for manifest in objects]
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": names,
    }
    try:
        out.mkdir(parents=True)
        for name, manifest in zip(names, objects, strict=True):
            (out / name).touch(0o600 if manifest["kind"] == "Secret" else 0o666)
            (out / name).write_text(as_yaml([manifest]), encoding="utf-8")
        (out / "kustomization.yaml").write_text(as_yaml([kustomization]), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write manifests to {out}: {error.strerror}") from error


def file_name(manifest: Object) -> str:
    """'job-node' for Job tidings-node: the kind, and what of its name tells it from others."""
    name = manifest["metadata"]["name"]
    labels = manifest["metadata"]["labels"]
    prefix = labels["app.kubernetes.io/instance"]
    rest = name.removeprefix("tidings-").removeprefix(prefix).strip("-")
    return f"{manifest['kind'].lower()}-{rest}".strip("-")
