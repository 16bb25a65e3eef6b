"""Tasks for tests of what is let in: one that says everything that can be said, and changed copies of any."""

from __future__ import annotations

import copy
from typing import Any

from .playground import Manifest, manifest

EVERYTHING: dict[str, Any] = {
    "model": {"name": "SKLEARN_DIGITS", "parameters": {"alpha": 0.1, "deep": {"list": [1, None]}}},
    "dataLoader": {"name": "DIGITS", "parameters": {"skew": 0.5}},
    "rounds": 100000,
    "seed": 4294967295,
    "strategy": {
        "type": "FedOpt",
        "fedOpt": {"method": "AvgM", "learningRate": 1, "beta1": 0, "beta2": 0.9, "tau": 1e-12, "fraction": 0.001},
        "aggregation": "TrimmedMean",
        "trimmedMean": {"share": 0.49},
        "gate": {"type": "Vote", "threshold": 1},
    },
    "stop": {"testScore": -1e9, "patience": 100000, "minDelta": 1e9},
    "learners": {
        "count": 256,
        "location": "s3://b/{index}",
        "image": "me/learner:1",
        "imports": ["a", "b.c"],
        "codeFrom": {"configMapRef": {"name": "my-models"}},
        "gpus": {"count": 1},
        "resources": {"requests": {"cpu": 1, "memory": "1.5Gi"}, "limits": {"cpu": "2500m"}},
        "podOverrides": {
            "metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}},
            "spec": {"tolerations": [{"operator": "Exists"}], "volumes": [{"name": "v", "emptyDir": {}}]},
        },
        "egress": [
            {
                "to": [
                    {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
                    {
                        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "storage"}},
                        "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["minio"]}]},
                    },
                ],
                "ports": [{"port": 9000, "endPort": 9010}, {"port": 53, "protocol": "UDP"}],
            },
            {"ports": [{"port": 443}]},
        ],
    },
    "coordinator": {
        "resources": {"limits": {"memory": "64Mi"}},
        "storage": {"size": "10Gi", "storageClassName": "x"},
        "egress": [],
    },
    "queueName": "gpu-queue",
    "managedBy": "collectivelearning.dev/operator",
    "policy": {
        "minLearners": 256,
        "roundTimeoutSeconds": 1,
        "preRunningDeadlineSeconds": 1,
        "activeDeadlineSeconds": 1,
        "backoff": {"limit": 0, "initialSeconds": 3600, "maxSeconds": 86400},
        "cleanPods": "All",
        "ttlSecondsAfterFinished": 2147483647,
    },
    "result": {
        "formats": ["onnx", "safetensors"],
        "location": "abfs://models@lab.dfs.core.windows.net/digits",
        "secretRef": {"name": "bucket-keys"},
        "mlflow": "http://mlflow.lab.svc:5000/team",
        "tensorBoard": "logs/digits",
    },
    "suspend": False,
    "tls": {"mode": "Mutual"},
}


def changed(path: str, value: Any, task: Manifest | None = None) -> Manifest:
    """Copy a task with one member set, or removed with `...`."""
    copied = copy.deepcopy(task or manifest())
    *parents, last = path.split(".")
    here = copied
    for parent in parents:
        here = here.setdefault(parent, {})
    if value is ...:
        del here[last]
    else:
        here[last] = value
    return copied
