"""The few calls to the Kubernetes API that a run needs: create, list, delete, watch, read a log.

Plain HTTP: objects are the dictionaries that were rendered. Every method can be called from any
thread; each call opens its own connection.
"""

from __future__ import annotations

import http.client
import json
import socket
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tidings.errors import RunError
from tidings_coordinator.kubernetes.config import Cluster
from tidings_coordinator.kubernetes.release import Object

_TIMEOUT_S = 15.0
#: the server ends a watch after that long, and we begin another
_WATCH_S = 240
_MANAGER = "tidings"

#: path below /namespaces/NAME of each kind that a run can have
KINDS = {
    "Job": ("batch/v1", "jobs"),
    "JobSet": ("jobset.x-k8s.io/v1alpha2", "jobsets"),
    "MPIJob": ("kubeflow.org/v2beta1", "mpijobs"),
    "Pod": ("v1", "pods"),
    "Service": ("v1", "services"),
    "ConfigMap": ("v1", "configmaps"),
    "Secret": ("v1", "secrets"),
    "NetworkPolicy": ("networking.k8s.io/v1", "networkpolicies"),
}


class ApiError(RunError):
    """The API server refused, or could not be reached (``status`` 0)."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Change:
    """A line of a watch."""

    #: ADDED, MODIFIED, DELETED, BOOKMARK or ERROR
    what: str
    object: Object


class Api:
    """One namespace of a cluster. All methods raise ApiError."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._url = urllib.parse.urlsplit(cluster.server)
        self.namespace = cluster.namespace

    def create(self, manifest: Object) -> Object:
        """Create an object; as it is now."""
        path = self._path(manifest["kind"])
        return self._json("POST", path, {"fieldManager": _MANAGER}, manifest)

    def list(self, kind: str, selector: str) -> Object:
        """The objects of a kind with these labels: ``items``, ``metadata.resourceVersion``."""
        return self._json("GET", self._path(kind), {"labelSelector": selector})

    def delete(self, kind: str, name: str, grace_s: int | None = None) -> None:
        """Delete an object and what it owns; nothing where it is not there."""
        options: Object = {"kind": "DeleteOptions", "apiVersion": "v1"}
        options["propagationPolicy"] = "Background"
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        try:
            self._json("DELETE", f"{self._path(kind)}/{name}", {}, options)
        except ApiError as error:
            if error.status != http.client.NOT_FOUND:
                raise

    def evict(self, pod: str) -> None:
        """End a pod at once, so that its Job counts no failure and makes another one."""
        manifest: Object = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": self.namespace},
            "deleteOptions": {"gracePeriodSeconds": 0},
        }
        self._json("POST", f"{self._path('Pod')}/{pod}/eviction", {}, manifest)

    def watch(self, kind: str, selector: str, version: str) -> Iterator[Change]:
        """What changes after ``version``, until the server ends it."""
        query = {
            "labelSelector": selector,
            "watch": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(_WATCH_S),
            "allowWatchBookmarks": "true",
        }
        for line in self._lines(self._path(kind), query, _WATCH_S + _TIMEOUT_S):
            change = json.loads(line)
            yield Change(change["type"], change["object"])

    def log(self, pod: str, container: str, since: str = "") -> Iterator[str]:
        """The lines of a container's log with their times, from second ``since`` on, as they come,
        until it ends."""
        query = {"container": container, "follow": "true", "timestamps": "true"}
        if since:
            query["sinceTime"] = since
        # silence is no fault: whether the pod is alive is for its watch to say
        for line in self._lines(f"{self._path('Pod')}/{pod}/log", query, None):
            yield line.decode(errors="replace").rstrip("\n")

    def read_log(self, pod: str, container: str, most_bytes: int) -> str:
        """A container's log as it is now."""
        query = {"container": container, "limitBytes": str(most_bytes)}
        data = self._call("GET", f"{self._path('Pod')}/{pod}/log", query, None)
        return data.decode(errors="replace")

    # -- HTTP ----------------------------------------------------------------------------------

    def _path(self, kind: str) -> str:
        version, plural = KINDS[kind]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        return f"{root}/namespaces/{self.namespace}/{plural}"

    def _json(
        self, method: str, path: str, query: Mapping[str, str], body: Object | None = None
    ) -> Object:
        data = self._call(method, path, query, body)
        try:
            return dict(json.loads(data))
        except ValueError as error:
            raise ApiError(f"{self._cluster.server} is no Kubernetes API server") from error

    def _call(self, method: str, path: str, query: Mapping[str, str], body: Object | None) -> bytes:
        connection = self._connection(_TIMEOUT_S)
        try:
            return self._request(connection, method, path, query, body).read()
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

    def _lines(
        self, path: str, query: Mapping[str, str], timeout_s: float | None
    ) -> Iterator[bytes]:
        connection = self._connection(timeout_s)
        try:
            yield from self._request(connection, "GET", path, query, None)
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

    def _request(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | None,
    ) -> http.client.HTTPResponse:
        headers = {"Accept": "application/json, */*", "User-Agent": "tidings"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if token := self._cluster.bearer():
            headers["Authorization"] = f"Bearer {token}"
        target = self._url.path.rstrip("/") + path
        if query:
            target += "?" + urllib.parse.urlencode(query)
        connection.request(method, target, None if body is None else json.dumps(body), headers)
        if connection.sock is not None:
            # a follower may hear nothing for hours, and must still notice a dead server
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        answer = connection.getresponse()
        if answer.status >= http.client.BAD_REQUEST:
            raise ApiError(_refusal(method, path, answer), answer.status)
        return answer

    def _connection(self, timeout_s: float | None) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._cluster.tls is None:
            return http.client.HTTPConnection(host, port, timeout=timeout_s)
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=self._cluster.tls)

    def _unreachable(self, error: Exception) -> ApiError:
        return ApiError(f"cannot reach the Kubernetes API at {self._cluster.server}: {error}")


def _refusal(method: str, path: str, answer: http.client.HTTPResponse) -> str:
    """What the server's Status object says."""
    text: Any = answer.read(1 << 16).decode(errors="replace").strip()
    try:
        text = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        text = text or answer.reason
    verb = {"POST": "create", "DELETE": "delete"}.get(method, "read")
    what = path.rpartition("/namespaces/")[2]
    return f"Kubernetes does not let us {verb} {what}: {answer.status} {text}"
