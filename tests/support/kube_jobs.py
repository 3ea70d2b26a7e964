"""What a Job controller knows: the pods of a Job, and what is to be done when one fails."""

from __future__ import annotations

import copy
import uuid
from typing import Any

from support.kube_store import Object

INDEX = "batch.kubernetes.io/job-completion-index"
DISRUPTED = "DisruptionTarget"


def pod_of(job: Object, index: int) -> Object:
    """A pod as the Job controller makes it for a Job."""
    spec, name = job["spec"], job["metadata"]["name"]
    indexed = spec.get("completionMode") == "Indexed"
    template = copy.deepcopy(spec["template"])
    suffix = f"-{index}-{uuid.uuid4().hex[:5]}" if indexed else f"-{uuid.uuid4().hex[:5]}"
    pod = owned_by(job, "v1", "Pod", name + suffix, spec=template["spec"])
    pod["metadata"]["labels"] = template["metadata"]["labels"] | {"job-name": name}
    if indexed:
        annotations = template["metadata"].get("annotations", {})
        pod["metadata"]["annotations"] = annotations | {INDEX: str(index)}
        pod["spec"]["hostname"] = f"{name}-{index}"
        for container in pod["spec"]["containers"]:
            container["env"].append({"name": "JOB_COMPLETION_INDEX", "value": str(index)})
    return pod


def pods_of(job: Object) -> list[Object]:
    """All pods that a Job begins with."""
    return [pod_of(job, index) for index in range(job["spec"].get("parallelism", 1))]


def action(job: Object, pod: Object, code: int) -> str:
    """What a Job's podFailurePolicy says of a failed pod, by its first rule that fits."""
    conditions = [condition["type"] for condition in pod["status"].get("conditions", ())]
    for rule in job["spec"].get("podFailurePolicy", {}).get("rules", ()):
        codes = rule.get("onExitCodes", {}).get("values", ())
        asked = [condition["type"] for condition in rule.get("onPodConditions", ())]
        if code in codes or set(asked) & set(conditions):
            return str(rule["action"])
    return "Count"


def owned_by(owner: Object, version: str, kind: str, name: str, **rest: Any) -> Object:
    """A new object that goes when its owner goes."""
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"].get("uid", ""),
    }
    metadata = {
        "name": name,
        "uid": str(uuid.uuid4()),
        "labels": dict(owner["metadata"]["labels"]),
        "ownerReferences": [reference],
    }
    return {"apiVersion": version, "kind": kind, "metadata": metadata} | rest
