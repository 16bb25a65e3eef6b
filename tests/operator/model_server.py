"""An API server as far as the operator can tell one, in memory; whoever touches what is not the task's stops the test.

It holds one namespace.  Versions, uids, preconditions, conflicts, graceful deletion, the protection of volumes in use
and the garbage collector are as in Kubernetes; who may do what, and what a spec may say, are not looked at.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from collective_operator.cluster.objects import PLURALS
from collective_operator.cluster.protocol import ClusterError, Manifest
from collective_operator.desired import names

from .world import START

TASK = "CollectiveTask"
KINDS = {plural: kind for kind, plural in PLURALS.items()} | {"secrets": "Secret"}
GRACE = timedelta(seconds=30)


def copied(manifest: Any) -> Any:
    """Copy an object by way of JSON, as the wire does, and several times as fast as copy.deepcopy."""
    return json.loads(json.dumps(manifest))


class ModelServer:
    """Implements what the operator uses of `ApiServer`.

    Attributes
    ----------
    objects
        By kind and name.
    before_each
        Called before each request is looked at; it may change the world.
    before_create, before_status
        Called with what is about to be created, or to be the task's status.
    news
        What watches would tell: kind, object, whether it is gone.
    written
        Every write that was done, as ``verb kind/name``.
    """

    def __init__(self, task: Manifest) -> None:
        self.objects: dict[tuple[str, str], Manifest] = {}
        self.before_each: Callable[[], None] = lambda: None
        self.before_create: Callable[[Manifest], None] = lambda made: None
        self.before_status: Callable[[Manifest], None] = lambda status: None
        self.news: list[tuple[str, Manifest, bool]] = []
        self.written: list[str] = []
        self.refused: frozenset[str] = frozenset()
        """Names that a quota has no room for."""
        self.now: datetime = START
        """Of this server's own clock."""
        self._tasks: set[str] = set()
        """The uids of all tasks that there were."""
        self._versions = itertools.count(1)
        self.put(task)

    @property
    def task(self) -> Manifest | None:
        """The task; None when it was deleted."""
        return self.objects.get((TASK, "digits"))

    def of_kind(self, kind: str) -> list[Manifest]:
        """All objects of a kind."""
        return [found for (of, _), found in self.objects.items() if of == kind]

    def owned(self, kind: str) -> dict[str, Manifest]:
        """The task's objects of a kind, labelled or not."""
        return {found["metadata"]["name"]: found for found in self.of_kind(kind) if self._is_owned(found)}

    def put(self, manifest: Manifest, **metadata: Any) -> Manifest:
        """Let an object be as this one is, whoever wants it."""
        made = copied(manifest)
        version = next(self._versions)
        made["metadata"].setdefault("uid", f"uid-{version}")
        made["metadata"].setdefault("namespace", "default")
        made["metadata"].setdefault("creationTimestamp", self.now.isoformat())
        made["metadata"] |= {"resourceVersion": str(version), **metadata}
        self.objects[made["kind"], made["metadata"]["name"]] = made
        if made["kind"] == TASK:
            self._tasks.add(made["metadata"]["uid"])
        self.news.append((made["kind"], copied(made), False))
        return made

    def remove(self, kind: str, name: str) -> None:
        """Let an object be gone, and in its time what it owns."""
        gone = self.objects.pop((kind, name), None)
        if gone is None:
            return
        gone["metadata"]["resourceVersion"] = str(next(self._versions))
        self.news.append((kind, copied(gone), True))

    def collect_garbage(self) -> None:
        """Remove what belongs to owners that are gone, and volumes that were to go and that no pod has."""
        uids = {found["metadata"]["uid"] for found in self.objects.values()}
        for kind, name in list(self.objects):
            metadata = self.objects[kind, name]["metadata"]
            owners = metadata.get("ownerReferences", ())
            is_orphan = owners and not any(owner["uid"] in uids for owner in owners)
            is_unused = kind == "PersistentVolumeClaim" and ("Pod", name) not in self.objects
            if is_orphan or (is_unused and "deletionTimestamp" in metadata):
                self.remove(kind, name)

    async def send(self, method: str, path: str, *, verb: str, resource: str, body: Mapping[str, Any]) -> None:
        """Answer a request as far as whether it is a success."""
        await self.request(method, path, verb=verb, resource=resource, body=body)

    async def request(
        self,
        method: str,
        path: str,
        *,
        verb: str,
        resource: str,
        query: Sequence[tuple[str, str]] = (),
        body: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> Manifest:
        """Answer as the API server would."""
        self.before_each()
        parts = path.split("/")
        place = parts[parts.index("namespaces") + 2 :] if "namespaces" in parts else parts[-1:]
        if place[0] == "events":
            return {"items": []}
        kind, name = KINDS[place[0]], place[1] if len(place) > 1 else ""
        if method == "GET" and not name:
            return self._listed(kind, dict(query))
        if method == "POST":
            assert body is not None
            return self._created(kind, copied(dict(body)))
        found = self.objects.get((kind, name))
        if found is None:
            raise ClusterError(status=404, message=f"{kind} {name} not found")
        if method == "GET":
            return copied(found)
        assert body is not None
        if method == "DELETE":
            return self._deleted(found, body)
        assert method == "PUT", f"{method} {path}"
        return self._replaced(found, copied(dict(body)), status=place[-1] == "status")

    def _listed(self, kind: str, query: Mapping[str, str]) -> Manifest:
        key, _, value = query.get("labelSelector", "").partition("=")

        def is_selected(found: Manifest) -> bool:
            labels = found["metadata"].get("labels") or {}
            return not key or (key in labels and value in ("", labels[key]))

        items = [
            {
                member: said
                for member, said in copied(found).items()
                if kind == TASK or member not in ("kind", "apiVersion")
            }
            for found in self.of_kind(kind)
            if is_selected(found)
        ]
        return {"metadata": {"resourceVersion": str(next(self._versions))}, "items": items}

    def _created(self, kind: str, body: Manifest) -> Manifest:
        name = body["metadata"]["name"]
        if name in self.refused:
            raise ClusterError(status=403, message=f"{name}: exceeded quota")
        if (kind, name) in self.objects:
            raise ClusterError(status=409, message=f"{kind} {name} already exists")
        assert body["kind"] == kind
        assert body["metadata"]["labels"][names.TASK_LABEL] == "digits"
        assert len(body["metadata"]["ownerReferences"]) == 1
        self.before_create(body)
        if kind == "Pod":
            body["status"] = {"phase": "Pending"}
        self.written.append(f"create {kind}/{name}")
        return copied(self.put(body))

    def _replaced(self, found: Manifest, body: Manifest, *, status: bool) -> Manifest:
        kind, name = found["kind"], found["metadata"]["name"]
        for precondition in ("uid", "resourceVersion"):
            if body["metadata"].get(precondition, found["metadata"][precondition]) != found["metadata"][precondition]:
                raise ClusterError(status=409, message=f"{kind} {name} has been modified")
        self._mine(found, "update")
        self.written.append(f"update {kind}/{name}" + ("/status" if status else ""))
        if status:
            self.before_status(body["status"])
        made = {**found, "status": body["status"]} if status else body
        return copied(self.put(made))

    def _deleted(self, found: Manifest, body: Mapping[str, Any]) -> Manifest:
        kind, metadata = found["kind"], found["metadata"]
        preconditions = body["preconditions"]
        assert "uid" in preconditions, "whatever has its name"
        if any(metadata[field] != value for field, value in preconditions.items()):
            raise ClusterError(status=409, message=f"{metadata['name']} is another one")
        self._mine(found, "delete")
        assert kind in ("Pod", TASK), f"{kind} is not to be deleted"
        self.written.append(f"delete {kind}/{metadata['name']}")
        placed = (found.get("status") or {}).get("phase") == "Running"
        if kind == "Pod" and placed:
            self.put(found, deletionTimestamp=metadata.get("deletionTimestamp", (self.now + GRACE).isoformat()))
        else:
            self.remove(kind, metadata["name"])
        return {}

    def _mine(self, found: Manifest, verb: str) -> None:
        # What was a task's that is no more is the garbage collector's, and the operator cannot know yet.
        owners = {owner["uid"] for owner in found["metadata"].get("ownerReferences") or ()}
        assert found["kind"] == TASK or owners & self._tasks, f"{verb} of what is not the task's: {found}"

    def _is_owned(self, found: Manifest) -> bool:
        task, owners = self.task, found["metadata"].get("ownerReferences") or ()
        return task is not None and any(owner["uid"] == task["metadata"]["uid"] for owner in owners)
