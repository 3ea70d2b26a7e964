"""The one machine of the test's cluster: it makes pods for Jobs and runs their containers.

A container is the process that its command names, with the pod's environment, on a loopback address
of its own; its volumes are directories. Names of services are looked up among the Services that
exist, by their selectors and ports, and put in where the environment has them: there is no DNS.
"""

from __future__ import annotations

import base64
import copy
import os
import re
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from support import warm
from support.kube_jobs import DISRUPTED, INDEX, action, owned_by, pod_of, pods_of
from support.kube_store import Object, Refused, Store, selected

_PROGRAMS = {"tidings": warm.CLI, "tidings-node": warm.NODE}
_DEADLINE_S = 60.0


class Container:
    """A process and its log."""

    def __init__(self) -> None:
        self.process: warm.Container | None = None
        self.lines: list[str] = []
        self.ended = False


class NodeAgent:
    """Job controller and kubelet in one."""

    def __init__(self, store: Store, directory: Path) -> None:
        self._store = store
        self._directory = directory
        self._containers: dict[str, Container] = {}
        self._closing = False
        self._threads: list[threading.Thread] = []
        self._net = f"127.{os.getpid() % 200 + 20}.{uuid.uuid4().int % 250}"
        #: counts of the Jobs that are over, by the component of their pods
        self.job_endings: dict[str, dict[str, int]] = {}
        #: how the indexes of each Job ended
        self._ended: dict[str, dict[str, bool]] = {}
        #: whether no pod is made for any Job
        self.quota_is_used_up = False
        #: images that can be pulled
        self.images = re.compile(r"tidings:")
        store.listeners.append(self._heard)

    def close(self) -> None:
        """Kill what runs, and wait for it."""
        self._closing = True
        for container in list(self._containers.values()):
            if container.process is not None and container.process.poll() is None:
                container.process.kill()
        for thread in self._threads:
            thread.join(_DEADLINE_S)
        shutil.rmtree(self._directory, ignore_errors=True)

    def pids(self) -> set[int]:
        """Process ids of all containers that were ever started."""
        return {c.process.pid for c in self._containers.values() if c.process is not None}

    def pods_made(self, node: int) -> list[str]:
        """The names of all pods that there ever were of a node."""
        pattern = re.compile(rf"-node-(0-)?{node}-\w+$")
        return [name for name in self._containers if pattern.search(name)]

    def kill(self, component: str, node: int | None = None) -> None:
        """SIGKILL to the container of a pod: as if the kernel had run out of memory."""
        for pod in self._store.all("Pod"):
            labels = pod["metadata"]["labels"]
            index = pod["metadata"].get("annotations", {}).get(INDEX)
            if labels["app.kubernetes.io/component"] == component and (
                node is None or index == str(node)
            ):
                process = self._containers[pod["metadata"]["name"]].process
                assert process is not None
                process.send_signal(signal.SIGKILL)
                return
        raise AssertionError(f"there is no pod of {component} {node}")

    def evict(self, pod: str, grace_s: int) -> None:
        """End a pod as the eviction API does: marked as disrupted, then deleted."""
        found = self._store.get("Pod", pod)
        if found is None:
            raise Refused(f'pods "{pod}" not found', 404, "NotFound")
        disrupted = {"type": DISRUPTED, "status": "True", "reason": "EvictionByEvictionAPI"}
        self._store.status("Pod", pod, found["status"] | {"conditions": [disrupted]})
        self._store.delete("pods", pod, grace_s)

    def has_said(self, text: str) -> bool:
        """Whether any container's log has this."""
        with self._store.changed:
            return any(text in line for c in self._containers.values() for line in c.lines)

    def log(self, pod: str, follow: bool, query: Mapping[str, str]) -> Iterator[str]:
        """Lines of a container, with times where asked for."""
        container = self._containers.get(pod)
        if container is None:
            raise Refused(f'container of pod "{pod}" is waiting to start', 400, "BadRequest")
        live = self._store.open()
        number = 0
        while live():
            with self._store.changed:
                ended, lines = container.ended, container.lines[number:]
                if not lines and not ended and follow:
                    self._store.changed.wait(0.05)
                    continue
            number += len(lines)
            for line in lines:
                stamp, _, text = line.partition(" ")
                if stamp >= query.get("sinceTime", "").removesuffix("Z"):
                    yield line if query.get("timestamps") == "true" else text
            if not lines and (ended or not follow):
                return

    # -- Jobs ----------------------------------------------------------------------------------

    def _heard(self, what: str, found: Object) -> None:
        kind, name = found["kind"], found["metadata"]["name"]
        if kind == "JobSet" and what == "ADDED":
            self._make_jobs(found)
        elif kind == "Job" and what == "ADDED":
            self._make_pods(found)
        elif kind == "Pod" and what == "ADDED":
            self._containers[name] = Container()
            thread = threading.Thread(target=self._run, args=(found,), daemon=True)
            self._threads.append(thread)
            thread.start()
        elif kind == "Pod" and what == "MODIFIED" and "deletionTimestamp" in found["metadata"]:
            self._end(found)

    def _make_jobs(self, job_set: Object) -> None:
        subdomain = job_set["spec"]["network"]["subdomain"]
        headless = {"clusterIP": "None", "selector": {"app.kubernetes.io/component": "node"}}
        self._store.create(owned_by(job_set, "v1", "Service", subdomain, spec=headless))
        for replicated in job_set["spec"]["replicatedJobs"]:
            name = f"{job_set['metadata']['name']}-{replicated['name']}-0"
            spec = copy.deepcopy(replicated["template"]["spec"])
            spec["template"]["spec"]["subdomain"] = subdomain
            self._store.create(owned_by(job_set, "batch/v1", "Job", name, spec=spec))

    def _make_pods(self, job: Object) -> None:
        if self.quota_is_used_up:
            return
        for pod in pods_of(job):
            self._make_pod(pod)

    def _make_pod(self, pod: Object) -> None:
        address = f"{self._net}.{1 + len(self._containers)}"
        self._store.create(pod | {"status": {"phase": "Pending", "podIP": address}})

    def _pod_ended(self, pod: Object, code: int) -> None:
        """What its Job makes of the end of a pod, as that was before."""
        job = self._store.get("Job", pod["metadata"]["labels"]["job-name"])
        if job is None:
            return
        index = pod["metadata"].get("annotations", {}).get(INDEX, "0")
        if code and action(job, pod, code) == "Ignore":
            # a real controller takes some seconds of back-off
            self._make_pod(pod_of(job, int(index)))
            return
        # with backoffLimit 0, or backoffLimitPerIndex 0, once is enough
        self._ended.setdefault(job["metadata"]["name"], {})[index] = code == 0

    def _judge_job(self, name: str) -> None:
        """Complete, failed, or not over yet, as the Job controller sees it."""
        job = self._store.get("Job", name)
        if job is None or job.get("status", {}).get("conditions"):
            return
        pods = [p for p in self._store.all("Pod") if p["metadata"]["labels"]["job-name"] == name]
        ended = self._ended.get(name, {})
        failed = [index for index, fine in ended.items() if not fine]
        done = [index for index, fine in ended.items() if fine]
        spec = job["spec"]
        most = spec.get("maxFailedIndexes", spec.get("backoffLimit", 6))
        too_many = len(failed) > most
        if too_many or len(failed) + len(done) == spec.get("completions", 1):
            kind = "Failed" if failed else "Complete"
            conditions = [{"type": kind, "status": "True"}]
            counts = {"failed": len(failed), "succeeded": len(done)}
            component = spec["template"]["metadata"]["labels"]["app.kubernetes.io/component"]
            self.job_endings[component] = counts
            self._store.status("Job", name, counts | {"conditions": conditions})
        if too_many:
            for pod in pods:
                if pod["status"]["phase"] in ("Pending", "Running"):
                    self._store.delete("pods", pod["metadata"]["name"], None)

    # -- pods ----------------------------------------------------------------------------------

    def _run(self, pod: Object) -> None:
        """The life of a pod, in a thread of its own."""
        name = pod["metadata"]["name"]
        container = self._containers[name]
        spec = pod["spec"]["containers"][0]
        if not self.images.match(spec["image"]):
            text = f'Back-off pulling image "{spec["image"]}"'
            self._tell(pod, "Pending", {"waiting": {"reason": "ImagePullBackOff", "message": text}})
            return
        self._tell(pod, "Pending", {"waiting": {"reason": "ContainerCreating"}})
        try:
            module, arguments, environment = self._prepared(pod, spec)
        except TimeoutError as error:
            waiting = {"reason": "CreateContainerConfigError", "message": str(error)}
            self._tell(pod, "Pending", {"waiting": waiting})
            return
        if self._closing or self._leaving(name):
            self._gone(name)
            return
        with self._store.changed:
            container.process = process = warm.Container(module, arguments, environment)
        self._tell(pod, "Running", {"running": {}})
        with process.stdout:
            for line in process.stdout:
                with self._store.changed:
                    container.lines.append(f"{_stamp()} {line}")
                    self._store.changed.notify_all()
        code = process.wait()
        code = code if code >= 0 else 128 - code
        with self._store.changed:
            container.ended = True
            self._store.changed.notify_all()
        reason = "Completed" if code == 0 else "Error"
        ended = {"terminated": {"exitCode": code, "reason": reason}}
        before = self._store.get("Pod", name) or pod
        self._tell(pod, "Failed" if code else "Succeeded", ended)
        self._pod_ended(before, code)
        if self._leaving(name):
            self._gone(name)
        self._judge_job(pod["metadata"]["labels"]["job-name"])

    def _tell(self, pod: Object, phase: str, state: Object) -> None:
        now = self._store.get("Pod", pod["metadata"]["name"]) or pod
        status = {
            "conditions": now["status"].get("conditions", []),
            "phase": phase,
            "podIP": pod["status"]["podIP"],
            "containerStatuses": [{"name": pod["spec"]["containers"][0]["name"], "state": state}],
        }
        self._store.status("Pod", pod["metadata"]["name"], status)

    def _leaving(self, name: str) -> bool:
        now = self._store.get("Pod", name)
        return now is None or "deletionTimestamp" in now["metadata"]

    def _end(self, pod: Object) -> None:
        """SIGTERM, and SIGKILL where the grace is over at once; then the object goes."""
        name = pod["metadata"]["name"]
        with self._store.changed:
            process = self._containers[name].process
        if process is None or process.poll() is not None:
            # never started, or over already; a pod that is just starting looks for itself
            if pod["status"]["phase"] != "Running":
                self._gone(name)
        elif pod["metadata"]["deletionGracePeriodSeconds"] == 0:
            process.kill()
        else:
            process.terminate()

    def _gone(self, name: str) -> None:
        self._store.remove("Pod", name)

    # -- containers ----------------------------------------------------------------------------

    def _prepared(self, pod: Object, spec: Object) -> tuple[str, list[str], dict[str, str]]:
        """Program, arguments and environment of a container; TimeoutError for what does not
        exist."""
        places = self._volumes(pod, spec)
        variables: dict[str, str] = {}
        for source in spec.get("envFrom", ()):
            reference = source["secretRef"]
            for key, value in self._await("Secret", reference["name"])["data"].items():
                variables[key] = base64.b64decode(value).decode()
        variables |= environment(pod, spec, variables)
        variables = {key: self._resolved(value) for key, value in variables.items()}
        program, *arguments = [_in_place(part, places) for part in spec["command"]]
        variables = {key: _in_place(value, places) for key, value in variables.items()}
        inherited = ("PATH", "PYTHONPATH", "GRPC_VERBOSITY")
        base = {key: os.environ[key] for key in inherited if key in os.environ}
        return _PROGRAMS[program], arguments, base | variables

    def _volumes(self, pod: Object, spec: Object) -> dict[str, Path]:
        """Directory of each mount path."""
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        places = {}
        for mount in spec["volumeMounts"]:
            place = self._directory / pod["metadata"]["name"] / mount["name"]
            place.mkdir(parents=True)
            places[mount["mountPath"]] = place
            if "configMap" in volumes[mount["name"]]:
                name = volumes[mount["name"]]["configMap"]["name"]
                for key, text in self._await("ConfigMap", name)["data"].items():
                    # a pod's 0.0.0.0 is its own address only, and so is its loopback
                    own = pod["status"]["podIP"]
                    text = text.replace("0.0.0.0", own)
                    text = text.replace("monitor:\n", f"monitor:\n  host: {own}\n")
                    (place / key).write_text(_in_place(text, places))
        return places

    def _await(self, kind: str, name: str) -> Object:
        """An object that may be made a moment after the pod that needs it."""
        deadline = time.monotonic() + _DEADLINE_S
        with self._store.changed:
            while not self._closing and time.monotonic() < deadline:
                if (found := self._store.get(kind, name)) is not None:
                    return found
                self._store.changed.wait(0.05)
        raise TimeoutError(f'{kind.lower()} "{name}" not found')

    def _resolved(self, value: str) -> str:
        """``value`` with an address where it is SERVICE:PORT or POD.HEADLESS-SERVICE."""
        host, colon, port = value.partition(":")
        if colon and port.isdecimal():
            service = self._await("Service", host)
            target = next(
                p["targetPort"] for p in service["spec"]["ports"] if str(p["port"]) == port
            )
            pod = self._behind(service)[0]
            ports = pod["spec"]["containers"][0]["ports"]
            number = next(p["containerPort"] for p in ports if p["name"] == target)
            return f"{pod['status']['podIP']}:{number}"
        pod_name, _, subdomain = host.rpartition(".")
        headless = self._store.get("Service", subdomain)
        if headless is None or headless["spec"].get("clusterIP") != "None":
            return value
        for pod in self._behind(headless):
            spec = pod["spec"]
            if (spec.get("hostname"), spec.get("subdomain")) == (pod_name, subdomain):
                return str(pod["status"]["podIP"])
        return value

    def _behind(self, service: Object) -> list[Object]:
        selector = ",".join(f"{k}={v}" for k, v in service["spec"]["selector"].items())
        return [pod for pod in self._store.all("Pod") if selected(pod, selector)]


def environment(pod: Object, spec: Object, known: Mapping[str, str]) -> dict[str, str]:
    """A container's ``env`` with its fields of the pod looked up, and what it refers to put in."""
    variables = dict(known)
    for variable in spec.get("env", ()):
        value = variable.get("value")
        if value is None:
            value = _field(pod, variable["valueFrom"]["fieldRef"]["fieldPath"])
        for name, text in variables.items():
            value = value.replace(f"$({name})", text)
        variables[variable["name"]] = value
    return {variable["name"]: variables[variable["name"]] for variable in spec.get("env", ())}


def _field(pod: Object, path: str) -> str:
    if path == "status.podIP":
        return str(pod["status"]["podIP"])
    found = re.fullmatch(r"metadata\.annotations\['(.+)'\]", path)
    assert found is not None, path
    return str(pod["metadata"]["annotations"][found[1]])


def _in_place(text: str, places: Mapping[str, Path]) -> str:
    """``text`` with directories for the paths at which volumes are mounted."""
    paths = "|".join(re.escape(path) for path in places)
    return re.sub(rf"(?<![\w./-])({paths})(?![\w.-])", lambda m: str(places[m[1]]), text)


def _stamp() -> str:
    now = time.time_ns()
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9))
    return f"{whole}.{now % 10**9:09d}Z"
