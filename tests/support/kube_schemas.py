"""Are these objects valid? Kubernetes' own schemas, and ours for three custom resources.

The schemas of JobSet (v1alpha2), MPIJob (v2beta1) and PodMonitor (v1) are written by hand from
their Go types, for the fields that we use: unknown fields are refused, pod and Job templates in
them are checked by Kubernetes' schemas.
"""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import kubernetes_validate

#: the oldest version that has all that we use, and the newest that is known
VERSIONS = ("1.29", "1.33", "1.37")

Object = dict[str, Any]


class Invalid(Exception):
    """What the API server would say."""


def _closed(required: tuple[str, ...] = (), /, **properties: Any) -> Object:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _one_of(*values: str) -> Object:
    return {"enum": list(values)}


def _list(items: Object, **rest: Any) -> Object:
    return {"type": "array", "items": items, **rest}


_NAME = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
_COUNT = {"type": "integer", "minimum": 0}
_TEXT, _FLAG, _ANY = {"type": "string"}, {"type": "boolean"}, {"type": "object"}

_JOB_SET = _closed(
    ("replicatedJobs",),
    replicatedJobs=_list(
        _closed(("name", "template"), name=_NAME, groupName=_NAME, template=_ANY, replicas=_COUNT),
        minItems=1,
    ),
    network=_closed(enableDNSHostnames=_FLAG, subdomain=_NAME, publishNotReadyAddresses=_FLAG),
    successPolicy=_closed(
        ("operator",), operator=_one_of("All", "Any"), targetReplicatedJobs=_list(_NAME)
    ),
    failurePolicy=_closed(
        maxRestarts=_COUNT,
        restartStrategy=_one_of("Recreate", "BlockingRecreate", "InPlaceRestart"),
        rules=_list(
            _closed(
                ("name", "action"),
                name=_TEXT,
                action=_one_of(
                    "FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts",
                    "RestartJob", "RestartJobAndIgnoreMaxRestarts",
                ),
                onJobFailureReasons=_list(_TEXT),
                targetReplicatedJobs=_list(_NAME),
            )
        ),
    ),
    coordinator=_closed(
        ("replicatedJob",), replicatedJob=_NAME, jobIndex=_COUNT, podIndex=_COUNT
    ),
    suspend=_FLAG,
    ttlSecondsAfterFinished=_COUNT,
)  # fmt: skip

_REPLICAS = _closed(
    ("template",),
    replicas=_COUNT,
    template=_ANY,
    restartPolicy=_one_of("Never", "OnFailure", "Always", "ExitCode"),
)
_MPI_JOB = _closed(
    ("mpiReplicaSpecs",),
    slotsPerWorker=_COUNT,
    runLauncherAsWorker=_FLAG,
    runPolicy=_closed(
        cleanPodPolicy=_one_of("None", "Running", "All"),
        ttlSecondsAfterFinished=_COUNT,
        activeDeadlineSeconds=_COUNT,
        backoffLimit=_COUNT,
        suspend=_FLAG,
    ),
    mpiReplicaSpecs=_closed(("Launcher",), Launcher=_REPLICAS, Worker=_REPLICAS),
    sshAuthMountPath=_TEXT,
    launcherCreationPolicy=_one_of("AtStartup", "WaitForWorkersReady"),
    mpiImplementation=_one_of("OpenMPI", "Intel", "MPICH"),
)

_RELABEL = _closed(
    sourceLabels=_list({"type": "string", "pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"}),
    targetLabel=_TEXT,
    regex=_TEXT,
    replacement=_TEXT,
    separator=_TEXT,
    action=_one_of("replace", "keep", "drop", "labelmap", "labeldrop", "labelkeep"),
)
_POD_MONITOR = _closed(
    ("selector", "podMetricsEndpoints"),
    selector=_closed(
        matchLabels={"type": "object", "additionalProperties": _TEXT},
        matchExpressions=_list(_ANY),
    ),
    namespaceSelector=_closed(any=_FLAG, matchNames=_list(_TEXT)),
    podTargetLabels=_list(_TEXT),
    podMetricsEndpoints=_list(
        _closed(
            port=_TEXT,
            portNumber=_COUNT,
            path=_TEXT,
            scheme=_one_of("http", "https", "HTTP", "HTTPS"),
            interval={"type": "string", "pattern": "^[0-9]+(ms|s|m)$"},
            scrapeTimeout={"type": "string", "pattern": "^[0-9]+(ms|s|m)$"},
            filterRunning=_FLAG,
            relabelings=_list(_RELABEL),
            metricRelabelings=_list(_RELABEL),
        ),
        minItems=1,
    ),
)

_CUSTOM = {
    ("jobset.x-k8s.io/v1alpha2", "JobSet"): _JOB_SET,
    ("kubeflow.org/v2beta1", "MPIJob"): _MPI_JOB,
    ("monitoring.coreos.com/v1", "PodMonitor"): _POD_MONITOR,
}


def check(manifest: Object, version: str = VERSIONS[-1]) -> None:
    """Invalid for what an API server of that version would not take."""
    try:
        spec = _CUSTOM.get((manifest["apiVersion"], manifest["kind"]))
        if spec is None:
            kubernetes_validate.validate(manifest, version, strict=True)
        else:
            _check_custom(manifest, spec, version)
    except (jsonschema.ValidationError, kubernetes_validate.SchemaNotFoundError, KeyError) as error:
        where = ".".join(str(part) for part in getattr(error, "path", ()))
        raise Invalid(f"{where}: {getattr(error, 'message', error)}") from error
    for template in _pod_templates(manifest):
        _check_references(template["spec"])


def _check_custom(manifest: Object, spec: Object, version: str) -> None:
    whole = _closed(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion=_TEXT,
        kind=_TEXT,
        metadata=_ANY,
        spec=spec,
    )
    jsonschema.Draft202012Validator(whole).validate(manifest)
    # metadata is the same everywhere
    stand_in = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": manifest["metadata"]}
    kubernetes_validate.validate(stand_in, version, strict=True)
    for job in manifest["spec"].get("replicatedJobs", ()):
        job = {"apiVersion": "batch/v1", "kind": "Job"} | job["template"]
        kubernetes_validate.validate(job, version, strict=True)
    for replica in manifest["spec"].get("mpiReplicaSpecs", {}).values():
        pod = {"apiVersion": "v1", "kind": "Pod"} | replica["template"]
        kubernetes_validate.validate(pod, version, strict=True)


def _pod_templates(manifest: Object) -> list[Object]:
    spec = manifest.get("spec", {})
    if manifest["kind"] == "Pod":
        return [manifest]
    if manifest["kind"] == "Job":
        return [spec["template"]]
    if manifest["kind"] == "JobSet":
        return [job["template"]["spec"]["template"] for job in spec["replicatedJobs"]]
    if manifest["kind"] == "MPIJob":
        return [replica["template"] for replica in spec["mpiReplicaSpecs"].values()]
    return []


def _check_references(spec: Object) -> None:
    """What no schema says: mounts name volumes, names are not taken twice, amounts are amounts."""
    volumes = [volume["name"] for volume in spec.get("volumes", ())]
    if len(set(volumes)) < len(volumes):
        raise Invalid(f"spec.volumes: a name is taken twice: {volumes}")
    for container in spec["containers"]:
        for mount in container.get("volumeMounts", ()):
            if mount["name"] not in volumes:
                raise Invalid(f"volumeMounts: there is no volume '{mount['name']}'")
        names = [variable["name"] for variable in container.get("env", ())]
        if len(set(names)) < len(names):
            raise Invalid(f"env: a name is taken twice: {names}")
        for amounts in container.get("resources", {}).values():
            for what, amount in amounts.items():
                if not re.fullmatch(r"[0-9.]+([kMGTPE]i?|Ki|m)?", str(amount)):
                    raise Invalid(f"resources.{what}: '{amount}' is no quantity")
