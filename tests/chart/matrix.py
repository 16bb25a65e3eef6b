"""Values that people install with; each is rendered, validated and shown to an API server."""

from __future__ import annotations

from typing import Any

DIGEST = f"sha256:{'0123456789abcdef' * 4}"

EVERYTHING: dict[str, Any] = {
    "image": {"repository": "registry.example.com:5000/collective/operator", "tag": "1.2.3", "pullPolicy": "Always"},
    "learnerImage": {"repository": "registry.example.com:5000/collective/learner", "tag": "gpu"},
    "imagePullSecrets": [{"name": "registry"}],
    "replicaCount": 3,
    "watchNamespaces": ["lab-a", "lab-b"],
    "tls": {"certificateHours": 24},
    "networkPolicy": {"enabled": True, "metricsFrom": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}]},
    "kueue": {"enabled": True},
    "metrics": {
        "podMonitor": {"enabled": True, "interval": "15s", "scrapeTimeout": "10s", "labels": {"release": "prometheus"}},
        "serviceMonitor": {"enabled": True, "interval": "1m", "scrapeTimeout": "10s", "labels": {"release": "p"}},
        "prometheusRule": {
            "enabled": True,
            "labels": {"release": "prometheus"},
            "runbookUrl": "https://example.com/runbooks",
        },
    },
    "grafana": {
        "url": "https://grafana.example.com/grafana/",
        "dashboards": {
            "enabled": True,
            "label": "dashboards",
            "labelValue": "yes",
            "annotations": {"grafana_folder": "Machine learning"},
            "namespace": "monitoring",
        },
    },
    "serviceAccount": {"create": False, "name": "mine"},
    "logLevel": "debug",
    "extraEnv": [
        {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ],
    "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
    "startupProbe": {"initialDelaySeconds": 1, "periodSeconds": 2, "failureThreshold": 90},
    "livenessProbe": {"periodSeconds": 30, "timeoutSeconds": 20, "failureThreshold": 3},
    "readinessProbe": {"periodSeconds": 3, "timeoutSeconds": 2, "successThreshold": 2},
    "podAnnotations": {"example.com/owner": "lab"},
    "podLabels": {"team": "radiology"},
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "control-plane", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]
            }
        }
    },
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
    ],
}

MATRIX: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything": EVERYTHING,
    "one namespace, no right on the cluster": {
        "watchNamespaces": ["collective"],
        "crds": {"enabled": False},
        "metrics": {"podMonitor": {"enabled": True}},
    },
    "one operator without a lease": {"replicaCount": 1, "leaderElection": {"enabled": False}},
    "scaled to nothing": {"replicaCount": 0},
    "monitored": {
        "metrics": {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}},
        "grafana": {"dashboards": {"enabled": True}},
    },
    "monitored through a Service": {"metrics": {"serviceMonitor": {"enabled": True}}},
    "images by digest": {"image": {"digest": DIGEST}, "learnerImage": {"digest": DIGEST, "tag": "ignored"}},
    "OpenShift": {"podSecurityContext": {"runAsUser": None, "runAsGroup": None}},
    "bare": {
        "networkPolicy": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "rbac": {"aggregateRoles": False},
        "resources": {"requests": {"cpu": "0.1"}},
    },
    "names that could be read as something else": {
        "nameOverride": "123",
        "fullnameOverride": "1e3",
        "watchNamespaces": ["123", "true"],
        "imagePullSecrets": [{"name": "0"}],
        "serviceAccount": {"name": "0x10"},
        "priorityClassName": "100",
        "metrics": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}},
        "grafana": {"dashboards": {"enabled": True, "namespace": "123"}},
    },
    "nothing where there may be nothing": {
        "imagePullSecrets": None,
        "watchNamespaces": None,
        "networkPolicy": {"metricsFrom": None},
        "metrics": {
            "podMonitor": {"enabled": True, "interval": "1m500ms", "labels": None},
            "serviceMonitor": {"enabled": True, "scrapeTimeout": None, "labels": None},
            "prometheusRule": {"enabled": True, "labels": None},
        },
        "grafana": {"url": None, "dashboards": {"enabled": True, "annotations": None, "namespace": None}},
        "serviceAccount": {"name": None, "annotations": None},
        "resources": None,
        "startupProbe": None,
        "podSecurityContext": None,
        "securityContext": None,
        "podAnnotations": None,
        "podLabels": None,
        "priorityClassName": None,
        "nodeSelector": None,
        "tolerations": None,
        "affinity": None,
        "topologySpreadConstraints": None,
        "extraEnv": None,
    },
    "long names": {
        "fullnameOverride": "a-name-that-is-as-long-as-kubernetes-takes-it-which-is-63-chars",
        "metrics": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}},
        "grafana": {"dashboards": {"enabled": True}},
    },
}
