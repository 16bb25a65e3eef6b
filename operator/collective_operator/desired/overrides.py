"""Lays a part of a pod's template over a pod.

It goes as with Kubernetes' own strategic merges: mappings are laid over member by member; items of a list that have a
key (a container's name, a mount's path) over the item of that key, or behind all others; anything else takes the place
of what was there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from collective_operator.api.overrides import PodOverrides

Manifest = dict[str, Any]

_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
}
"""Of lists in a pod's spec whose items Kubernetes tells apart by a member."""


def overridden(pod: Manifest, overrides: Sequence[PodOverrides]) -> Manifest:
    """Lay overrides over a pod, the later over the earlier; the pod itself stays as it is.

    What comes of it is not to be changed: it shares with the overrides, as the pods of 256 learners do with each other.
    """
    for override in overrides:
        laid = {
            "metadata": {
                member: dict(values)
                for member, values in (
                    ("labels", override.metadata.labels),
                    ("annotations", override.metadata.annotations),
                )
                if values
            },
            "spec": override.spec,
        }
        pod = _over(pod, laid)
    return pod


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> Manifest:
    merged = dict(below)
    for name, value in above.items():
        merged[name] = _merged(merged.get(name), value, key=_KEYS.get(name))
    return merged


def _merged(below: Any, above: Any, *, key: str | None) -> Any:
    if isinstance(below, Mapping) and isinstance(above, Mapping):
        return _over(below, above)
    if key is not None and isinstance(below, list) and isinstance(above, list):
        return _by_key(below, above, key)
    return above


def _by_key(below: Sequence[Any], above: Sequence[Any], key: str) -> list[Any]:
    merged = list(below)
    places: dict[str, int] = {}
    for at, item in enumerate(merged):
        if (name := _name(item, key)) is not None:
            places.setdefault(name, at)
    for item in above:
        name = _name(item, key)
        at = len(merged) if name is None else places.setdefault(name, len(merged))
        if at == len(merged):
            merged.append(item)
        else:
            merged[at] = _over(merged[at], item)
    return merged


def _name(item: Any, key: str) -> str | None:
    """Tell what an item is known by; None where nobody has checked that it is known by anything."""
    name = item.get(key) if isinstance(item, Mapping) else None
    return name if isinstance(name, str) else None
