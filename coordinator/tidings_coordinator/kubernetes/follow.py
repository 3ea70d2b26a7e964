"""Follows a run on a cluster: its pods by a watch, the run itself by the coordinator's log."""

from __future__ import annotations

import http.client
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tidings.errors import RunError
from tidings_coordinator.control.watch import Watcher
from tidings_coordinator.kubernetes.api import Api, ApiError
from tidings_coordinator.kubernetes.objects import selector
from tidings_coordinator.kubernetes.podstate import PodState, pod_state
from tidings_coordinator.kubernetes.release import Object
from tidings_coordinator.records.directory import RunDirectory
from tidings_coordinator.records.shipping import Collector, Request

#: how long the API may be away, and how soon we ask again
_LOST_S, _RETRY_S, _LOOK_S = 60.0, 0.5, 0.25
#: after the coordinator's end, how long its log may take
_LOG_S = 30.0
_NODE_LOG_BYTES = 1 << 20


class RunOver(RunError):
    """The run cannot come to an end of its own."""


@dataclass(frozen=True)
class _Seen:
    """A pod has changed; None: is gone."""

    name: str
    pod: PodState | None


@dataclass(frozen=True)
class _Line:
    text: str


@dataclass(frozen=True)
class _LogEnded:
    pass


@dataclass(frozen=True)
class _Lost:
    error: ApiError


@dataclass
class Follower:
    """Hears of everything in one queue. ``aborted`` may be called from a signal handler."""

    api: Api
    instance: str
    directory: RunDirectory
    watcher: Watcher
    #: wall seconds for which a pod may fail to start
    pending_s: float
    collector: Collector = field(default_factory=Collector)
    #: by name
    pods: dict[str, PodState] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._heard: queue.SimpleQueue[_Seen | _Line | _LogEnded | _Lost] = queue.SimpleQueue()
        self._closed = threading.Event()
        #: the coordinator's container has ended: its log is as long as it will ever be
        self._over = threading.Event()
        self._log_open = False
        self._log_ended = False
        self._began = time.monotonic()
        self._waiting_since: dict[str, float] = {}
        #: the last lines of the coordinator that were not for us
        self.said: list[str] = []

    def start(self) -> None:
        """Begin to watch the pods."""
        threading.Thread(target=self._watch, name="watch pods", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._closed.set()
        self._over.set()

    @property
    def coordinator(self) -> PodState | None:
        """The coordinator's pod, once there is one."""
        return next((p for p in self.pods.values() if p.component == "coordinator"), None)

    def until_over(self, aborted: Callable[[], bool]) -> None:
        """Until the coordinator has ended and its log is read; RunOver where that will not be."""
        over_since: float | None = None
        while not aborted():
            self._hear(_LOOK_S)
            pod = self.coordinator
            if pod is not None and pod.over:
                over_since = over_since or time.monotonic()
                if self._log_ended or time.monotonic() > over_since + _LOG_S:
                    return
            elif self._log_ended and self.collector.complete:
                return
            self._check_pending()

    def until_log_ends(self, within_s: float, impatient: Callable[[], bool]) -> None:
        """Read on, for a coordinator that is winding up."""
        deadline = time.monotonic() + within_s
        while not (self._log_ended or impatient()) and time.monotonic() < deadline:
            if not self._log_open:
                return
            try:
                self._hear(_LOOK_S)
            except RunOver:
                # of course it is gone: it was told to go
                continue

    # -- hearing -------------------------------------------------------------------------------

    def _hear(self, timeout_s: float) -> None:
        try:
            news = self._heard.get(timeout=timeout_s)
        except queue.Empty:
            return
        if isinstance(news, _Line):
            self._take_line(news.text)
        elif isinstance(news, _Seen):
            self._take_pod(news)
        elif isinstance(news, _LogEnded):
            self._log_ended = True
        else:
            raise RunOver(f"the Kubernetes API was lost for {_LOST_S:g} s: {news.error}")

    def _take_line(self, text: str) -> None:
        if not self.collector.feed(text):
            with (self.directory.path / "logs" / "coordinator.log").open("a") as log:
                log.write(text + "\n")
            self.said = [*self.said[-4:], text]
            return
        while self.collector.requests:
            self._kill(self.collector.requests.pop(0))
        if self.collector.view is not None:
            self.watcher.show(self.collector.view)

    def _kill(self, asked: Request) -> None:
        """End a node's pod on the coordinator's behalf, which notices where that fails."""
        pods = [p for p in self.pods.values() if p.node == asked.node and not p.over]
        pod = next((p for p in pods if not p.deleted), None)
        if pod is None:
            self.watcher.say(f"node {asked.node} has no pod that could be killed")
            return
        try:
            save_log(self.api, pod, self.directory)
            if asked.comes_back:
                self.api.evict(pod.name)
            else:
                self.api.delete("Pod", pod.name, 0)
            self._note(pod, "killed", comes_back=asked.comes_back)
        except ApiError as error:
            self.watcher.say(f"cannot kill node {asked.node}: {error}")

    def _take_pod(self, seen: _Seen) -> None:
        before, pod = self.pods.get(seen.name), seen.pod
        if pod is None:
            if before is None:
                return
            self._note(before, "deleted")
            if before.over:
                # how it ended is still true
                return
            del self.pods[seen.name]
            if before.component == "coordinator":
                raise RunOver("the coordinator's pod was deleted while it ran")
            return
        self.pods[seen.name] = pod
        if before is None or (pod.phase, pod.trouble) != (before.phase, before.trouble):
            self._note(pod, pod.phase, trouble=pod.trouble)
        if pod.over and (before is None or not before.over):
            self._note(pod, "ended", code=pod.code, reason=pod.reason)
            if pod.code != 0:
                self.watcher.say(f"the pod of {pod.title} ended: {pod.ending()}")
        if pod.component == "coordinator":
            self._open_log(pod)
            if pod.over:
                self._over.set()

    def _note(self, pod: PodState, what: str, **fields: object) -> None:
        line = {"wall_s": round(time.monotonic() - self._began, 3), "pod": pod.name, "is": what}
        self.directory.append("cluster", line | {k: v for k, v in fields.items() if v is not None})

    def _check_pending(self) -> None:
        """RunOver for a pod that has not started for too long, with what its status says."""
        now = time.monotonic()
        if self.coordinator is None and now > self._began + self.pending_s:
            raise RunOver(
                f"no pod of the coordinator was made within {self.pending_s:g} s; a quota or an "
                f"admission policy of namespace {self.api.namespace} may forbid it, see "
                f"'kubectl describe job -l app.kubernetes.io/instance={self.instance}'"
            )
        for pod in self.pods.values():
            if pod.started or pod.over:
                self._waiting_since.pop(pod.name, None)
                continue
            since = self._waiting_since.setdefault(pod.name, now)
            if now > since + self.pending_s:
                why = pod.trouble or "its containers are still being made"
                raise RunOver(
                    f"the pod of {pod.title} ({pod.name}) has not started within "
                    f"{self.pending_s:g} s: {why}"
                )

    # -- threads -------------------------------------------------------------------------------

    def _watch(self) -> None:
        """List, then watch from there; again from the start whenever that breaks off."""
        labels = selector(self.instance)
        known: set[str] = set()
        fine = time.monotonic()
        while not self._closed.is_set():
            try:
                listed = self.api.list("Pod", labels)
                fine = time.monotonic()
                names = {item["metadata"]["name"] for item in listed["items"]}
                for name in known - names:
                    self._heard.put(_Seen(name, None))
                known = set(names)
                for item in listed["items"]:
                    self._put(item)
                version = listed["metadata"]["resourceVersion"]
                for change in self.api.watch("Pod", labels, version):
                    if change.what == "ERROR":
                        # mostly 410 Gone: that version is too old to go on from
                        break
                    if change.what == "DELETED":
                        known.discard(change.object["metadata"]["name"])
                        self._heard.put(_Seen(change.object["metadata"]["name"], None))
                    elif change.what in ("ADDED", "MODIFIED"):
                        known.add(change.object["metadata"]["name"])
                        self._put(change.object)
                    fine = time.monotonic()
            except ApiError as error:
                denied = error.status in (http.client.UNAUTHORIZED, http.client.FORBIDDEN)
                if denied or time.monotonic() > fine + _LOST_S:
                    self._heard.put(_Lost(error))
                    return
            self._closed.wait(_RETRY_S)

    def _put(self, pod: Object) -> None:
        self._heard.put(_Seen(pod["metadata"]["name"], pod_state(pod)))

    def _open_log(self, pod: PodState) -> None:
        if not self._log_open and (pod.started or pod.over):
            self._log_open = True
            thread = threading.Thread(
                target=self._read_log, args=(pod.name,), name="read log", daemon=True
            )
            thread.start()

    def _read_log(self, pod: str) -> None:
        """All lines, each once, however often the stream breaks off."""
        last = ("", -1)
        while True:
            whole = self._over.is_set()
            try:
                since = f"{last[0]}Z" if last[0] else ""
                for stamped in self.api.log(pod, "coordinator", since):
                    stamp, _, text = stamped.partition(" ")
                    when = _instant(stamp)
                    if when > last:
                        last = when
                        self._heard.put(_Line(text))
            except ApiError as error:
                whole = whole or error.status == http.client.NOT_FOUND
            if whole or self._closed.is_set():
                self._heard.put(_LogEnded())
                return
            self._over.wait(_RETRY_S)


def save_log(api: Api, pod: PodState, directory: RunDirectory) -> None:
    """Add a node's log, as it is now, to what its earlier pods have left. ApiError without one."""
    text = api.read_log(pod.name, "node", _NODE_LOG_BYTES)
    with (directory.path / "logs" / f"node-{pod.node:04d}.log").open("a") as log:
        log.write(text)


def _instant(stamp: str) -> tuple[str, int]:
    """'2026-01-31T10:00:00.0123Z' as (whole seconds, nanoseconds), which can be compared."""
    seconds, _, fraction = stamp.removesuffix("Z").partition(".")
    return seconds, int(fraction.ljust(9, "0")[:9]) if fraction.isdigit() else 0
