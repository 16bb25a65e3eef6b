"""The cluster that is a Kubernetes cluster.

Whoever asks for a fresh look gets one: children are listed from the API then.  Else they are taken from what watches
and earlier looks have told, and the API server is not asked at all; see `Memory` for what that is good for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from collective_operator.api import API_VERSION, KIND, PLURAL
from collective_operator.cluster.announcer import Announcer
from collective_operator.cluster.api_server import ApiServer
from collective_operator.cluster.asking import Asking
from collective_operator.cluster.changes import Changes
from collective_operator.cluster.complaints import complaints_about
from collective_operator.cluster.coordinator_status import AskCoordinator
from collective_operator.cluster.events import event_about
from collective_operator.cluster.listing import Pause, children_of, everything
from collective_operator.cluster.memory import CHILD_KINDS, Memory, Record
from collective_operator.cluster.objects import (
    collection,
    is_owned,
    key_of,
    task_path,
)
from collective_operator.cluster.protocol import (
    ClusterError,
    Manifest,
    Observed,
    Secured,
    TaskEvent,
    TaskKey,
    named_config_map,
)
from collective_operator.credentials.keeper import Keeper
from collective_operator.credentials.vigil import Vigil
from collective_operator.desired import names
from collective_operator.desired.kueue import is_held
from collective_operator.securing import Secure

_Children = dict[str, dict[str, Manifest]]


class KubernetesCluster:
    """Implements the Cluster protocol with an API server.

    Parameters
    ----------
    api, ask
        Where tasks are, and how their coordinators are asked.
    memory
        What watches tell.
    keeper, vigil
        Who keeps Secrets, and when they are looked at.
    kinds
        Of the children that there may be.
    """

    def __init__(
        self,
        *,
        api: ApiServer,
        ask: AskCoordinator,
        memory: Memory,
        keeper: Keeper,
        vigil: Vigil,
        kinds: Sequence[str] = CHILD_KINDS,
    ) -> None:
        self._api = api
        self._asking = Asking(ask)
        self._memory = memory
        self._changes = Changes(api, memory)
        self._announcer = Announcer(api)
        self._keeper = keeper
        self._vigil = vigil
        self._kinds = kinds
        self._listed_at: dict[tuple[str, str | None], str] = {}

    def listed_at(self, kind: str, namespace: str | None) -> str:
        """Tell the resource version of the last listing of everything of a kind; empty before the first."""
        return self._listed_at.get((kind, namespace), "")

    async def refresh(self, namespace: str | None, *, pause: Pause | None = None) -> set[TaskKey]:
        """List all that there is in a namespace, or everywhere.

        Parameters
        ----------
        namespace
            Which; everywhere without one.
        pause
            Awaited before each page, by whom it is not urgent to.

        Returns
        -------
        set of TaskKey
            The tasks that are otherwise than remembered: a watch has missed something.

        Raises
        ------
        ClusterError
            When it cannot be listed.
        """
        news: set[TaskKey] = set()
        listed: set[TaskKey] = set()
        self._changes.may_release = True  # or the right to do so may have been given meanwhile
        for kind in (KIND, *self._kinds):
            found, version = await everything(self._api, kind, namespace, pause=pause)
            self._listed_at[kind, namespace] = version
            news |= self._memory.listed(kind, found, version=version, of=None, within=namespace)
            if kind == KIND:
                listed = {key_of(task) for task in found}
        # Children were listed after the tasks: all of theirs are known now.
        for key in listed & self._memory.tasks().keys():
            self._memory.record(key).complete = True
        return news

    async def get_task(self, key: TaskKey, *, anew: bool = True) -> Manifest | None:
        """Read the task; None when it is gone."""
        if not anew and (task := self._memory.task(key)) is not None:
            return task
        try:
            found = await self._api.request("GET", task_path(key), verb="get", resource=PLURAL)
        except ClusterError as error:
            if error.status == 404:
                self._memory.forget(key)
                self._vigil.forget(key)
                await self._let_go(key)
                return None
            raise
        self._memory.tell(KIND, found)
        return found

    async def observe(self, task: Manifest, *, anew: bool = True) -> Observed:
        """List the task's children, or remember them, and ask its coordinator how far it is."""
        record = self._memory.record(key_of(task))
        remembered = None if anew else _remembered(task, record)
        children = remembered if remembered is not None else await self._children(task, record)
        pods, uid = children["Pod"], task["metadata"]["uid"]
        coordinator = pods.get(names.coordinator(task["metadata"]["name"]))
        progress, silent = await self._asking.progress(coordinator, record, of=uid, anew=anew)
        refused, seconds = record.refusals.standing(generation=task["metadata"].get("generation"), now=_now())
        return Observed(
            pods=pods,
            services=children["Service"],
            config_maps=children["ConfigMap"],
            volume_claims=children["PersistentVolumeClaim"],
            network_policies=children["NetworkPolicy"],
            credentials_due=self._credentials_due(task, pods),
            absent_config_maps=await self._absent(task, record, anew=anew),
            progress=progress,
            silent_seconds=silent,
            refused=refused,
            refused_seconds=seconds,
            unsecured=record.unsecured,
            put_back={
                child: version
                for child, (generation, version) in record.put_back.items()
                if generation == task["metadata"].get("generation")
            },
            may_release=self._changes.may_release,
            complaints=await complaints_about(self._api, pods, record, claims=children["PersistentVolumeClaim"]),
            remembered=remembered is not None and not record.untouched,
        )

    async def create(self, manifest: Manifest, *, strictly: bool = True) -> None:
        """Create a child; its being there already is fine, something else of its name raises ClusterError."""
        await self._changes.create(manifest, strictly=strictly)

    async def update(self, manifest: Manifest) -> None:
        """Replace a child that was observed, if it is still as it was; that it is not raises ClusterError."""
        await self._changes.update(manifest)

    async def delete(self, manifest: Manifest) -> None:
        """Delete exactly this object (by uid; a task only as it was read); its being gone is fine."""
        await self._changes.delete(manifest)

    async def release(self, pod: Manifest) -> None:
        """Take Kueue's hold off exactly this pod; without the right to do so it stays, which its trouble tells."""
        await self._changes.release(pod)

    async def secure(self, task: Manifest, action: Secure) -> Secured:
        """See to it that credentials are there and good."""
        secured = await self._keeper.secure(action)
        key, record = key_of(task), self._memory.record(key_of(task))
        for pod, why in secured.refused.items():
            if ("Pod", pod) not in record.children:
                record.refusals.refused(pod, why, now=_now())
        looked_at = {credential.pod for credential in action.credentials}
        others = {pod: why for pod, why in record.unsecured.items() if pod not in looked_at}
        record.unsecured = {**others, **secured.refused}
        if action.credentials == action.all:
            self._vigil.looked(key)
        return secured

    async def update_status(self, task: Manifest, status: Mapping[str, Any]) -> None:
        """Replace the task's status, if the task is still as it was read.

        A whole replacement and no merge patch: a patch would keep members that the new status no longer has.  What was
        written to the task as it is now is not written again, where a definition that is older than this operator has
        dropped some of it.
        """
        key, record = key_of(task), self._memory.record(key_of(task))
        if record.sent == (status, task["metadata"]["resourceVersion"]):
            return
        metadata = {field: task["metadata"][field] for field in ("namespace", "name", "uid", "resourceVersion")}
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "status": dict(status)}
        try:
            made = await self._api.request(
                "PUT", f"{task_path(key)}/status", verb="update", resource=f"{PLURAL}/status", body=body
            )
        except ClusterError:
            self._memory.doubt(key)
            raise
        self._memory.tell(KIND, made)
        record.sent = (dict(status), made["metadata"]["resourceVersion"])
        if not task.get("status"):
            # The API server has checked that nobody wrote one meanwhile.
            record.complete = record.untouched = True

    def emit(self, task: Manifest, events: Sequence[TaskEvent]) -> None:
        """Have events about the task published."""
        for event in events:
            self._announcer.announce(event_about(task, event))

    async def close(self) -> None:
        """Publish what is still to be published."""
        await self._announcer.close()

    async def _let_go(self, key: TaskKey) -> None:
        """Take Kueue's hold off the pods of a task that is gone: else they would stay for ever."""
        for child in self._memory.children(key):
            owned = any(owner["kind"] == KIND for owner in child["metadata"].get("ownerReferences") or ())
            if child["kind"] == "Pod" and owned and is_held(child):
                await self.release(child)

    def _credentials_due(self, task: Manifest, pods: Mapping[str, Manifest]) -> bool:
        key = key_of(task)
        if (task.get("status") or {}).get("phase") in ("Complete", "Failed"):
            self._vigil.forget(key)
            return False
        return self._vigil.due(key, secrets=len(pods) + 1)

    async def _children(self, task: Manifest, record: Record) -> _Children:
        """List the task's children now."""
        listed = await asyncio.gather(*(self._listed(task, kind) for kind in self._kinds))
        record.complete = True
        return {**_no_children(), **dict(zip(self._kinds, listed, strict=True))}

    async def _listed(self, task: Manifest, kind: str) -> dict[str, Manifest]:
        found, version = await children_of(self._api, key_of(task), kind)
        self._memory.listed(kind, found, version=version, of=key_of(task), within=None)
        return {item["metadata"]["name"]: item for item in found if is_owned(item, task["metadata"]["uid"])}

    async def _absent(self, task: Manifest, record: Record, *, anew: bool) -> frozenset[str]:
        """Find out which ConfigMaps the task names and are not there; what was missing is asked for each time."""
        name = named_config_map(task)
        if name is None:
            return frozenset()
        if anew or record.absent_config_maps is None or record.absent_config_maps:
            path = f"{collection('ConfigMap', task['metadata']['namespace'])}/{name}"
            try:
                await self._api.request("GET", path, verb="get", resource="configmaps")
            except ClusterError as error:
                if error.status != 404:
                    raise
                record.absent_config_maps = frozenset({name})
            else:
                record.absent_config_maps = frozenset()
        return record.absent_config_maps


def _remembered(task: Manifest, record: Record) -> _Children | None:
    """Remember the task's children; None when they have not all been seen.

    A task that has no status yet has none, as none is made before it says that it is accepted.
    """
    if not record.complete and task.get("status"):
        return None
    children = _no_children()
    for (kind, name), child in record.children.items():
        if is_owned(child, task["metadata"]["uid"]):
            children[kind][name] = child
    return children


def _no_children() -> _Children:
    return {kind: {} for kind in CHILD_KINDS}


def _now() -> float:
    return asyncio.get_running_loop().time()
