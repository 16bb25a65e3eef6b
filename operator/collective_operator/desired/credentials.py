"""Which key and certificate each pod of a task has, and how it finds them.

Each pod has a Secret of its own, so that no learner holds another's key; the authority's key is in one that no pod
mounts. What stands in them is random, so it is not built here but made when it is seen that it is missing or old.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from collective_operator.api import CollectiveTask
from collective_operator.desired import names
from collective_operator.desired.metadata import metadata
from collective_operator.desired.platform import Platform

Manifest = dict[str, Any]

TLS_DIR = "/etc/collective/tls"
_VOLUME = "tls"
_NO_TLS_1_2 = {"name": "GRPC_SSL_CIPHER_SUITES", "value": "ECDHE-RSA-AES256-GCM-SHA384"}
"""The ciphers of TLS 1.2, of which gRPC for Python cannot refuse the version; those of 1.3 are others.  This one takes
an RSA key, and keys here are elliptic: no handshake of that version succeeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What one pod proves itself by."""

    pod: str
    name: str
    """The DNS name that its certificate is for."""
    usage: Literal["server", "client"]
    metadata: Manifest
    """Of the Secret."""
    authority: Manifest
    """The metadata of the Secret with the key of who signs it."""


def is_secured(task: CollectiveTask, platform: Platform) -> bool:
    """Tell whether a task's pods speak TLS with one another."""
    return platform.secured and task.spec.tls.mode == "Mutual"


def credentials(task: CollectiveTask, platform: Platform) -> Iterator[Credential]:
    """Yield the credential of every pod of a task; none where it has no TLS."""
    if not is_secured(task, platform):
        return
    authority = metadata(task, name=names.authority(task.name), component=names.AUTHORITY)

    def credential(pod: str, *, name: str, usage: Literal["server", "client"], component: str) -> Credential:
        secret = metadata(task, name=names.credential(pod), component=component)
        return Credential(pod=pod, name=name, usage=usage, metadata=secret, authority=authority)

    for index in range(task.spec.learners.size):
        host = platform.learner_endpoint(task, index).host
        yield credential(names.learner(task.name, index), name=host, usage="server", component=names.LEARNER)
    coordinator = names.coordinator(task.name)
    yield credential(coordinator, name=coordinator_name(task), usage="client", component=names.COORDINATOR)


def coordinator_name(task: CollectiveTask) -> str:
    """Name the coordinator as its certificate does."""
    return f"{names.coordinator(task.name)}.{task.namespace}.svc"


def with_credential(pod: Manifest, *, clients: tuple[str, ...] = ()) -> Manifest:
    """Have a pod mount its Secret, and tell its program of it.

    Parameters
    ----------
    pod
        The manifest; it is changed.
    clients
        Who may call it, for one that serves.
    """
    spec, secret = pod["spec"], names.credential(pod["metadata"]["name"])
    (container,) = spec["containers"]
    pod["metadata"]["labels"][names.TLS_LABEL] = "Mutual"
    # Readable to the pod's own group alone, which fsGroup makes its files'.
    spec["volumes"].append({"name": _VOLUME, "secret": {"secretName": secret, "defaultMode": 0o440}})
    container["volumeMounts"].append({"name": _VOLUME, "mountPath": TLS_DIR, "readOnly": True})
    container["env"] = [*container.get("env", ()), _NO_TLS_1_2]
    container["args"] += [
        f"--tls-cert={TLS_DIR}/tls.crt",
        f"--tls-key={TLS_DIR}/tls.key",
        f"--tls-ca={TLS_DIR}/ca.crt",
        *(f"--tls-client={client}" for client in clients),
    ]
    return pod


def has_credential(pod: Manifest) -> bool:
    """Tell whether a pod that exists was made for TLS; by its label, which is remembered where its volumes are not."""
    return names.TLS_LABEL in (pod["metadata"].get("labels") or {})
