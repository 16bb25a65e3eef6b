"""What a task may say of its pods beyond the fields that it has for it, and what it may not.

The rest of a pod's template is the user's: nodes, tolerations, volumes, environment, further containers.  What the
operator itself relies on is not, since a task whose pods run something else, or under other names, would never end or
never begin: each such member is refused with the field that it belongs to, instead of being dropped in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from collective_operator.api.base import Part

Label = Annotated[str, StringConstraints(max_length=63)]
Annotation = Annotated[str, StringConstraints(max_length=4096)]

_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_OWN_PREFIXES = ("collectivelearning.dev/", "app.kubernetes.io/")
_POD = {
    "hostname": "the operator names pods",
    "subdomain": "the operator names pods",
    "restartPolicy": "the operator decides what becomes of a pod that ended",
    "activeDeadlineSeconds": "a task's deadlines stand in spec.policy",
    "automountServiceAccountToken": "no pod of a task holds a token of the API server",
    "ephemeralContainers": "they cannot be created with a pod",
}
_CONTAINER = {
    "command": "the operator says what runs",
    "args": "the operator says what runs",
    "ports": "the operator chooses the ports",
    "terminationMessagePath": "the operator reads there why a pod ended",
    "terminationMessagePolicy": "the operator reads there why a pod ended",
}
_LEARNER = {
    "image": "the image stands in spec.learners.image",
    "resources": "they stand in spec.learners.resources and spec.learners.gpus",
}
_COORDINATOR = {
    "image": "the coordinator's image is the operator's own",
    "resources": "they stand in spec.coordinator.resources",
}

_LISTS = {"containers": "name", "initContainers": "name", "volumes": "name"}
_MORE_LISTS = {"imagePullSecrets": "name", "schedulingGates": "name"}
_LISTS_OF_CONTAINERS = {"env": "name", "volumeMounts": "mountPath", "volumeDevices": "devicePath"}
"""Lists that are laid over others, or lengthened, by a member of their items."""

Finding = tuple[str, Any, str]
"""Path below the manifest's root, the value found there, the rule's sentence."""


class PodMetadata(Part):
    """More labels and annotations."""

    labels: Annotated[dict[str, Label], Field(max_length=50)] = Field(default_factory=dict)
    annotations: Annotated[dict[str, Annotation], Field(max_length=50)] = Field(default_factory=dict)


class PodOverrides(Part):
    """A part of a pod's template, laid over the operator's own."""

    metadata: PodMetadata = Field(default_factory=PodMetadata)
    spec: Annotated[dict[str, Any], Field(max_length=50)] = Field(default_factory=dict)


def broken_overrides(path: str, overrides: PodOverrides, *, container: str) -> Iterator[Finding]:
    """Yield what pod overrides say and may not.

    Parameters
    ----------
    path
        Where they stand.
    container
        The name of the operator's own container in such a pod.
    """
    for member, names in (("labels", overrides.metadata.labels), ("annotations", overrides.metadata.annotations)):
        for name, value in names.items():
            if name.startswith(_OWN_PREFIXES):
                yield (
                    f"{path}.metadata.{member}.{name}",
                    value,
                    "labels and annotations of this prefix are the operator's",
                )
            elif not _KEY.fullmatch(name):
                yield f"{path}.metadata.{member}", name, "must be a name such as team or example.com/team"
            elif member == "labels" and not _VALUE.fullmatch(value):
                yield f"{path}.metadata.labels.{name}", value, "must be of letters, digits, '-', '_' and '.'"
    for member, why in _POD.items():
        if member in overrides.spec:
            yield f"{path}.spec.{member}", overrides.spec[member], why
    yield from _lists(f"{path}.spec", overrides.spec)
    refused = _CONTAINER | (_LEARNER if container == "learner" else _COORDINATOR)
    containers = overrides.spec.get("containers", [])
    for position, found in enumerate(containers if isinstance(containers, list) else ()):
        if not isinstance(found, Mapping) or found.get("name") != container:
            continue
        for member, why in refused.items():
            if member in found:
                yield f"{path}.spec.containers[{position}].{member}", found[member], why


def _lists(path: str, spec: Mapping[str, Any]) -> Iterator[Finding]:
    """Find lists that are none, or whose items are known by nothing."""
    for kind, key in _LISTS.items():
        yield from _keyed(f"{path}.{kind}", spec.get(kind, []), key=key, once=True)
    for kind, key in _MORE_LISTS.items():
        yield from _keyed(f"{path}.{kind}", spec.get(kind, []), key=key)
    for kind in ("containers", "initContainers"):
        listed = spec.get(kind, [])
        for position, found in enumerate(listed if isinstance(listed, list) else ()):
            for member, key in _LISTS_OF_CONTAINERS.items() if isinstance(found, Mapping) else ():
                yield from _keyed(f"{path}.{kind}[{position}].{member}", found.get(member, []), key=key)


def _keyed(path: str, items: object, *, key: str, once: bool = False) -> Iterator[Finding]:
    """Find in a list what cannot be laid over another list, because it has no name, or whatever it is known by."""
    if not isinstance(items, list):
        yield path, items, "must be a list"
        return
    seen: set[str] = set()
    for position, item in enumerate(items):
        name = item.get(key) if isinstance(item, Mapping) else None
        if not isinstance(name, str) or not name:
            yield f"{path}[{position}]", item, f"must be a mapping with a {key}"
        elif once and name in seen:
            yield f"{path}[{position}].{key}", name, "is there twice"
        else:
            seen.add(name)
