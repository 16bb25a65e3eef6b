"""What watches and listings have told of tasks and their children.

So that a turn in which nothing is to be done asks the API server for nothing.

A memory may be wrong.  Watches lag behind, and one that has to begin anew says nothing of what went meanwhile.
So it is only asked whether there may be something to do: what is done is decided on a fresh look, every listing
corrects it, and whatever a listing contradicts is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from sys import intern
from typing import Any

from collective_operator.api import KIND
from collective_operator.api.annotations import ABORT, RETRY
from collective_operator.cluster.objects import api_version, key_of
from collective_operator.cluster.protocol import Manifest, TaskKey
from collective_operator.cluster.refusals import Refusals, Waiting
from collective_operator.desired import names

CHILD_KINDS = ("Pod", "Service", "ConfigMap", "PersistentVolumeClaim", "NetworkPolicy")
"""Of what is watched; Secrets are not."""

_GONE_LIMIT = 10_000
"""Deleted objects that are remembered as such; a late word of one must not bring it back."""


@dataclass(slots=True)
class Record:
    """What is remembered of one task."""

    refusals: Refusals
    """Children that the cluster would not create."""
    task: Manifest | None = None
    children: dict[tuple[str, str], Manifest] = field(default_factory=dict)
    """By kind and name."""
    complete: bool = False
    """All of its children are known: a listing has told them, or it has never had any."""
    untouched: bool = False
    """Its first status was written here and no child was asked for since: it has none, and no listing could tell more.
    For none is made before a task says that it is accepted."""
    absent_config_maps: frozenset[str] | None = None
    """As the last look found; None before the first."""
    complaints: dict[str, tuple[float, str | None]] = field(default_factory=dict)
    """When the Events of a pod or its claim were asked for, and what they said, by its uid."""
    heard: tuple[str, float] = ("", 0.0)
    """The uid of the coordinator's pod, and when it last answered, or was first asked."""
    answer: tuple[float, dict[str, Any] | None] | None = None
    """When the coordinator was asked last, and what it answered."""
    sent: tuple[Mapping[str, Any], str] | None = None
    """The status that was written last, and the version of the task that came of it."""
    unasked: dict[str, tuple[str, float]] = field(default_factory=dict)
    """By kind of child: what was said of a webhook that could not be asked about one, and when."""
    unsecured: Mapping[str, str] = field(default_factory=dict)
    """Pods whose credentials could not be made or renewed when they were last looked at, and why."""
    put_back: dict[tuple[str, str], tuple[object, str]] = field(default_factory=dict)
    """Children that an update did not make what it said: by kind and name, the task's generation and their version."""


class Memory:
    """Of all tasks."""

    def __init__(self) -> None:
        self.waiting = Waiting()
        self._records: dict[TaskKey, Record] = {}
        self._gone: dict[str, str] = {}
        """By uid, the resource version at which an object went."""

    def record(self, key: TaskKey) -> Record:
        """Return what is remembered of a task, to be read and written."""
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = Record(self.waiting.of(key))
        return record

    def task(self, key: TaskKey) -> Manifest | None:
        """Return a task; None when none of this name is remembered."""
        record = self._records.get(key)
        return record.task if record else None

    def tasks(self) -> dict[TaskKey, Manifest]:
        """Return the tasks that there are."""
        return {key: record.task for key, record in self._records.items() if record.task is not None}

    def children(self, key: TaskKey) -> list[Manifest]:
        """Return what is remembered of the children of a task, which may be gone."""
        record = self._records.get(key)
        return list(record.children.values()) if record else []

    def tell(self, kind: str, manifest: Mapping[str, Any], *, gone: bool = False) -> TaskKey | None:
        """Take one object as somebody saw it, or hear that it is gone; return whose it is."""
        key = _key(kind, manifest)
        if key is None:
            return None
        uid = manifest["metadata"].get("uid", "")
        record = self.record(key)
        known = record.task if kind == KIND else record.children.get(_name(kind, manifest))
        if gone:
            self._gone[uid] = _version(manifest)
            if len(self._gone) > _GONE_LIMIT:
                del self._gone[next(iter(self._gone))]
            if known is not None and known["metadata"].get("uid") == uid:
                self._drop(key, kind, known)
        elif uid in self._gone and not _newer(_version(manifest), self._gone[uid]):
            return key
        elif known is None or not _newer(_version(known), _version(manifest)):
            self._put(record, kind, kept(kind, manifest))
        return key

    def listed(
        self, kind: str, manifests: Iterable[Manifest], *, version: str, of: TaskKey | None, within: str | None
    ) -> set[TaskKey]:
        """Take a whole listing, which also tells what is no longer there.

        Parameters
        ----------
        kind, manifests
            What was listed.
        version
            The listing's resource version: what is newer it could not know.
        of, within
            The task whose children were listed, or the namespace; neither: all there are.

        Returns
        -------
        set of TaskKey
            The tasks of which this tells something new.
        """
        news: set[TaskKey] = set()
        present = set()
        for manifest in manifests:
            key = _key(kind, manifest)
            if key is None:
                continue
            present.add((key, manifest["metadata"]["name"], manifest["metadata"].get("uid")))
            before = self._find(key, kind, manifest)
            self.tell(kind, manifest)
            if before is not self._find(key, kind, manifest):
                news.add(key)
        for key, known in list(self._of_kind(kind, of, within)):
            identity = (key, known["metadata"]["name"], known["metadata"].get("uid"))
            if identity not in present and not _newer(_version(known), version):
                self._drop(key, kind, known)
                news.add(key)
        return news

    def doubt(self, key: TaskKey) -> None:
        """Have the next turn of a task look anew: something is not as it is remembered."""
        record = self._records.get(key)
        if record is not None:
            record.task, record.complete, record.untouched = None, False, False

    def forget(self, key: TaskKey) -> None:
        """Hear that there is no task of this name."""
        known = self.task(key)
        if known is not None:
            self._drop(key, KIND, known)
        elif not self.children(key):
            self._records.pop(key, None)

    def _find(self, key: TaskKey, kind: str, manifest: Mapping[str, Any]) -> Manifest | None:
        record = self.record(key)
        return record.task if kind == KIND else record.children.get(_name(kind, manifest))

    def _put(self, record: Record, kind: str, manifest: Manifest) -> None:
        if kind != KIND:
            known = record.children.get(_name(kind, manifest))
            if known is None or _version(known) != _version(manifest):
                record.children[_name(kind, manifest)] = manifest
            return
        if record.task is not None and record.task["metadata"].get("uid") != manifest["metadata"].get("uid"):
            # Another task of the same name: what was learnt of the first is of no use.
            key = key_of(manifest)
            self._records[key] = record = Record(self.waiting.of(key), children=record.children)
        if record.task is None or _version(record.task) != _version(manifest):
            record.task = manifest

    def _drop(self, key: TaskKey, kind: str, known: Manifest) -> None:
        record = self.record(key)
        if kind == KIND:
            record = self._records[key] = Record(self.waiting.of(key), children=record.children)
        else:
            record.children.pop(_name(kind, known), None)
        if record.task is None and not record.children:
            self._records.pop(key, None)

    def _of_kind(self, kind: str, of: TaskKey | None, within: str | None) -> Iterator[tuple[TaskKey, Manifest]]:
        keys = [of] if of else [key for key in self._records if within in (None, key.namespace)]
        for key in keys:
            record = self._records.get(key)
            if record is None:
                continue
            if kind == KIND:
                if record.task is not None:
                    yield key, record.task
            else:
                yield from ((key, child) for (of_kind, _), child in record.children.items() if of_kind == kind)


_METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "labels",
    "ownerReferences",
    "finalizers",
    "creationTimestamp",
    "deletionTimestamp",
)
_CONDITION = ("type", "status", "reason", "message", "lastTransitionTime")
_CONTAINER_STATUS = ("name", "restartCount", "ready", "started", "state", "lastState")


def kept(kind: str, manifest: Mapping[str, Any]) -> Manifest:
    """Keep what decisions are made from: whole pods of a thousand tasks would be hundreds of megabytes."""
    small: Manifest = {"kind": kind, "metadata": _picked(manifest["metadata"], _METADATA)}
    if labels := small["metadata"].get("labels"):  # the same few words in thousands of objects
        small["metadata"]["labels"] = {intern(name): intern(value) for name, value in labels.items()}
    spec, status = manifest.get("spec") or {}, manifest.get("status") or {}
    if kind == KIND:
        asked = _picked(manifest["metadata"].get("annotations") or {}, (ABORT, RETRY))
        return {**manifest, **small, "metadata": {**small["metadata"], **({"annotations": asked} if asked else {})}}
    small["apiVersion"] = api_version(kind)
    if kind == "Pod":
        small["spec"] = {
            **_picked(spec, ("nodeName", "schedulerName")),
            "containers": [_picked(container, ("name", "ports")) for container in spec.get("containers") or ()],
        }
        small["status"] = {
            **_picked(status, ("phase", "reason", "message", "podIP")),
            "conditions": [_picked(condition, _CONDITION) for condition in status.get("conditions") or ()],
            **{
                kind: [_picked(container, _CONTAINER_STATUS) for container in status[kind]]
                for kind in ("initContainerStatuses", "containerStatuses")
                if status.get(kind)
            },
        }
    elif kind == "Service":
        small["spec"] = _picked(spec, ("clusterIP", "publishNotReadyAddresses", "selector", "ports"))
    elif kind == "ConfigMap":
        small["data"] = dict(manifest.get("data") or {})
    elif kind == "NetworkPolicy":
        small["spec"] = dict(spec)
    elif kind == "PersistentVolumeClaim":
        small["status"] = _picked(status, ("phase",))
    return small


def _picked(manifest: Mapping[str, Any], members: Iterable[str]) -> Manifest:
    return {member: manifest[member] for member in members if member in manifest}


def _key(kind: str, manifest: Mapping[str, Any]) -> TaskKey | None:
    if kind == KIND:
        return key_of(manifest)
    metadata = manifest["metadata"]
    name = (metadata.get("labels") or {}).get(names.TASK_LABEL)
    return TaskKey(metadata["namespace"], name) if name else None


def _name(kind: str, manifest: Mapping[str, Any]) -> tuple[str, str]:
    return kind, manifest["metadata"]["name"]


def _version(manifest: Mapping[str, Any]) -> str:
    return str(manifest["metadata"].get("resourceVersion", ""))


def _newer(version: str, than: str) -> bool:
    """Compare resource versions, which grow: Kubernetes promises it since 1.35, and etcd has always done so."""
    return version.isdecimal() and than.isdecimal() and int(version) > int(than)
