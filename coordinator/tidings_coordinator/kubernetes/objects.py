"""The objects of a run on a cluster: made in order, and deleted by label, whoever made them."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterable, Sequence

from tidings.errors import RunError
from tidings_coordinator.kubernetes.api import KINDS, Api, ApiError
from tidings_coordinator.kubernetes.release import INSTANCE, MANAGED, Object

_GONE_S, _LOOK_S = 60.0, 0.2
_ABSENT = (http.client.FORBIDDEN, http.client.NOT_FOUND)
#: owners first, pods last: those that are left have lost their owner
_ORDER = ("Job", "JobSet", "MPIJob", "Service", "NetworkPolicy", "ConfigMap", "Secret", "Pod")


def selector(instance: str | None = None) -> str:
    """Label selector of one run's objects, or of all that Tidings has made."""
    labels = MANAGED | ({} if instance is None else {INSTANCE: instance})
    return ",".join(f"{key}={value}" for key, value in labels.items())


def create(api: Api, manifests: Sequence[Object]) -> None:
    """Create all. The first owns the others: when it is deleted or has outlived its time, so have
    they, even if we are long dead."""
    owner: Object | None = None
    for manifest in manifests:
        made = api.create(manifest if owner is None else _owned(manifest, owner))
        owner = owner or made


def _owned(manifest: Object, owner: Object) -> Object:
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    metadata = manifest["metadata"] | {"ownerReferences": [reference]}
    return manifest | {"metadata": metadata}


def delete(
    api: Api,
    instance: str | None = None,
    kinds: Iterable[str] = KINDS,
    grace_s: int | None = None,
    within_s: float = _GONE_S,
) -> list[str]:
    """Delete the objects of one run (of all runs: ``instance`` None) by their labels, and wait
    until they are gone; what was deleted, as kind/name.

    Kinds that the cluster does not have, or does not show us, hold nothing of ours. ApiError where
    the API fails; RunError where something is still there after ``within_s``.
    """
    wanted = [kind for kind in _ORDER if kind in set(kinds) | {"Pod"}]
    deleted: dict[str, None] = {}
    deadline = time.monotonic() + within_s
    while True:
        left = []
        for kind in wanted:
            for name, going in _present(api, kind, selector(instance)):
                left.append(f"{kind}/{name}")
                if f"{kind}/{name}" not in deleted and not going:
                    api.delete(kind, name, grace_s if kind == "Pod" else None)
                deleted[f"{kind}/{name}"] = None
        if not left:
            return list(deleted)
        if time.monotonic() > deadline:
            raise RunError(
                f"still in namespace {api.namespace} {within_s:g} s after they were deleted: "
                + ", ".join(left)
            )
        time.sleep(_LOOK_S)


def _present(api: Api, kind: str, labels: str) -> list[tuple[str, bool]]:
    """Names of the objects, and whether each is being deleted already."""
    try:
        items = api.list(kind, labels)["items"]
    except ApiError as error:
        if error.status in _ABSENT:
            return []
        raise
    return [(i["metadata"]["name"], "deletionTimestamp" in i["metadata"]) for i in items]
