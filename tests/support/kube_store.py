"""The objects of the test's Kubernetes API, their history, and the collection of garbage."""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Object = dict[str, Any]

#: plural, and the version in which the kind is listed
PLURALS = {
    "Job": "jobs",
    "JobSet": "jobsets",
    "Pod": "pods",
    "Service": "services",
    "ConfigMap": "configmaps",
    "Secret": "secrets",
    "NetworkPolicy": "networkpolicies",
}
#: seconds between two looks of a watch at whether its client should still be served
_TICK_S = 0.05


class Refused(Exception):
    """A Status object with a message, a code and a reason."""

    def __init__(self, message: str, code: int, reason: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason


class Store:
    """Objects by kind and name. ``changed`` is notified of everything; listeners are told first."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self._objects: dict[tuple[str, str], Object] = {}
        self._history: list[tuple[int, str, str, Object]] = []
        self._version = 100
        #: versions up to here are forgotten
        self._forgotten = 0
        self._hung_up = 0
        self._closed = False
        self.listeners: list[Callable[[str, Object], None]] = []

    # -- for controllers -----------------------------------------------------------------------

    def names(self) -> list[tuple[str, str]]:
        """Kind and name of all objects."""
        with self.changed:
            return sorted(self._objects)

    def get(self, kind: str, name: str) -> Object | None:
        """A copy of an object."""
        with self.changed:
            return copy.deepcopy(self._objects.get((kind, name)))

    def all(self, kind: str) -> list[Object]:
        """Copies of all objects of a kind."""
        with self.changed:
            found = [value for (k, _), value in sorted(self._objects.items()) if k == kind]
            return copy.deepcopy(found)

    def create(self, manifest: Object) -> Object:
        """Enter a new object; Refused where its name is taken."""
        key = (manifest["kind"], manifest["metadata"]["name"])
        with self.changed:
            if key in self._objects:
                text = f'{self.plural(key[0])} "{key[1]}" already exists'
                raise Refused(text, 409, "AlreadyExists")
            self._note("ADDED", manifest)
            made = copy.deepcopy(manifest)
        for listener in self.listeners:
            listener("ADDED", copy.deepcopy(made))
        return made

    def status(self, kind: str, name: str, status: Object) -> None:
        """Replace an object's status; nothing where it is gone."""
        with self.changed:
            found = self._objects.get((kind, name))
            if found is None:
                return
            found = found | {"status": status}
            self._note("MODIFIED", found)
        for listener in self.listeners:
            listener("MODIFIED", copy.deepcopy(found))

    def remove(self, kind: str, name: str) -> None:
        """Take an object out, and all that it owns."""
        with self.changed:
            found = self._objects.get((kind, name))
            if found is None:
                return
            self._note("DELETED", found)
            owned = [
                (k, n)
                for (k, n), other in self._objects.items()
                for owner in other["metadata"].get("ownerReferences", ())
                if owner["uid"] == found["metadata"].get("uid")
            ]
        for listener in self.listeners:
            listener("DELETED", copy.deepcopy(found))
        for owned_kind, owned_name in owned:
            self.delete(self.plural(owned_kind), owned_name, None)

    def expire(self) -> None:
        """As if all times to live had passed."""
        for kind in ("Job", "JobSet"):
            for found in self.all(kind):
                over = any(
                    c["type"] in ("Complete", "Failed")
                    for c in found.get("status", {}).get("conditions", ())
                )
                if over and "ttlSecondsAfterFinished" in found["spec"]:
                    self.remove(kind, found["metadata"]["name"])

    # -- for the API ---------------------------------------------------------------------------

    def plural(self, kind: str) -> str:
        """'jobs' for 'Job'; empty for what is unknown."""
        return PLURALS.get(kind, "")

    def kind(self, plural: str) -> str:
        """'Job' for 'jobs'; Refused for what is unknown."""
        for kind, known in PLURALS.items():
            if known == plural:
                return kind
        raise Refused("the server could not find the requested resource", 404, "NotFound")

    def list(self, plural: str, selector: str) -> Object:
        """A List of those with the labels."""
        kind = self.kind(plural)
        with self.changed:
            items = [item for item in self.all(kind) if selected(item, selector)]
            version = str(self._version)
        return {"kind": f"{kind}List", "metadata": {"resourceVersion": version}, "items": items}

    def delete(self, plural: str, name: str, grace_s: int | None) -> None:
        """Mark a pod for deletion, which its machine then ends; remove anything else."""
        kind = self.kind(plural)
        with self.changed:
            found = self._objects.get((kind, name))
            if found is None:
                raise Refused(f'{plural} "{name}" not found', 404, "NotFound")
            if kind == "Pod":
                spec_s = found["spec"].get("terminationGracePeriodSeconds", 30)
                grace = spec_s if grace_s is None else grace_s
                found = copy.deepcopy(found)
                found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
                found["metadata"]["deletionGracePeriodSeconds"] = grace
                self._note("MODIFIED", found)
        if kind != "Pod":
            self.remove(kind, name)
            return
        for listener in self.listeners:
            listener("MODIFIED", copy.deepcopy(found))

    def forget(self) -> None:
        """Compact: a watch from an older version is told 410, and open ones are hung up on."""
        with self.changed:
            self._forgotten = self._version = self._version + 1
            self._history.clear()
        self.hang_up()

    def hang_up(self) -> None:
        """End all streams that are open now."""
        with self.changed:
            self._hung_up += 1
            self.changed.notify_all()

    def close(self) -> None:
        """End all streams, and all that begin."""
        self._closed = True
        self.hang_up()

    def open(self) -> Callable[[], bool]:
        """Whether a stream that begins now should go on."""
        mark = self._hung_up
        return lambda: not self._closed and self._hung_up == mark

    def watch(self, plural: str, query: Mapping[str, str]) -> Iterator[str]:
        """Lines of a watch: what happens after a version."""
        kind, selector = self.kind(plural), query.get("labelSelector", "")
        version = int(query.get("resourceVersion") or 0)
        until = time.monotonic() + float(query.get("timeoutSeconds", 300))
        live = self.open()
        if version < self._forgotten:
            status = {"kind": "Status", "code": 410, "reason": "Expired"}
            yield json.dumps({"type": "ERROR", "object": status}) + "\n"
            return
        while live() and time.monotonic() < until:
            with self.changed:
                news = [entry for entry in self._history if entry[0] > version]
                if not news:
                    self.changed.wait(_TICK_S)
                    continue
            for number, what, changed_kind, found in news:
                version = number
                if changed_kind == kind and selected(found, selector):
                    yield json.dumps({"type": what, "object": found}) + "\n"

    def _note(self, what: str, found: Object) -> None:
        kind, name = found["kind"], found["metadata"]["name"]
        self._version += 1
        found["metadata"]["resourceVersion"] = str(self._version)
        if what == "DELETED":
            del self._objects[kind, name]
        else:
            self._objects[kind, name] = copy.deepcopy(found)
        self._history.append((self._version, what, kind, copy.deepcopy(found)))
        self.changed.notify_all()


def selected(found: Object, selector: str) -> bool:
    """Whether an object has the labels ``a=b,c=d``."""
    labels = found["metadata"].get("labels", {})
    wanted = dict(part.split("=", 1) for part in selector.split(",") if part)
    return all(labels.get(key) == value for key, value in wanted.items())
