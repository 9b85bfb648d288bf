"""The part of the JobSet schema (jobset.x-k8s.io/v1alpha2, batch/v1, core/v1) that examples use.

A schema is a type, {field: schema} for an object without other fields, [schema] for a list, or a
set of allowed values. Fields with "!" are required.
"""

from typing import Any

NAMES = {str: str}  # labels and the like: any key
CONTAINER = {
    "name!": str,
    "image!": str,
    "command": [str],
    "args": [str],
    "env": [{"name!": str, "value": str}],
    "ports": [{"containerPort!": int, "name": str, "protocol": {"TCP", "UDP"}}],
    "resources": {"limits": {str: int | str}, "requests": {str: int | str}},
    "securityContext": {"privileged": bool},
}
POD = {
    "restartPolicy": {"Never", "OnFailure"},  # of a Job
    "terminationGracePeriodSeconds": int,
    "hostNetwork": bool,
    "dnsPolicy": {"ClusterFirst", "ClusterFirstWithHostNet"},
    "nodeSelector": NAMES,
    "serviceAccountName": str,
    "containers!": [CONTAINER],
}
METADATA = {"name": str, "namespace": str, "labels": NAMES, "annotations": NAMES}
JOB = {
    "parallelism": int,
    "completions": int,
    "completionMode": {"Indexed", "NonIndexed"},
    "backoffLimit": int,
    "template!": {"metadata": METADATA, "spec!": POD},
}
JOBSET = {
    "apiVersion!": {"jobset.x-k8s.io/v1alpha2"},
    "kind!": {"JobSet"},
    "metadata!": {"name!": str, "namespace": str, "labels": NAMES, "annotations": NAMES},
    "spec!": {
        "failurePolicy": {"maxRestarts": int},
        "successPolicy": {"operator!": {"All", "Any"}, "targetReplicatedJobs": [str]},
        "network": {"enableDNSHostnames": bool, "subdomain": str},
        "suspend": bool,
        "ttlSecondsAfterFinished": int,
        "replicatedJobs!": [
            {"name!": str, "replicas": int, "template!": {"metadata": METADATA, "spec!": JOB}}
        ],
    },
}


def faults(value: Any, schema: Any = JOBSET, where: str = "") -> list[str]:
    """What of `value` the schema does not allow, a line each."""
    if isinstance(schema, set):
        return [] if value in schema else [f"{where}: {value!r} is none of {sorted(schema)}"]
    if isinstance(schema, list):
        if not isinstance(value, list):
            return [f"{where}: no list"]
        parts = (faults(item, schema[0], f"{where}[{i}]") for i, item in enumerate(value))
        return [fault for part in parts for fault in part]
    if not isinstance(schema, dict):
        right = isinstance(value, schema) and (schema is bool or not isinstance(value, bool))
        return [] if right else [f"{where}: {value!r} is no {getattr(schema, '__name__', schema)}"]
    if not isinstance(value, dict):
        return [f"{where}: no object"]
    fields = {name.rstrip("!"): part for name, part in schema.items() if isinstance(name, str)}
    found = [
        f"{where}.{name[:-1]} is missing"
        for name in schema
        if isinstance(name, str) and name.endswith("!") and name[:-1] not in value
    ]
    for name, part in value.items():
        if name not in fields and str not in schema:
            found.append(f"{where}.{name}: no such field")
        else:
            found += faults(part, fields.get(name, schema.get(str)), f"{where}.{name}")
    return found
