"""The cluster that is a Kubernetes cluster.

Children are listed from the API for every decision and never taken from a watch's memory, which keeps pods that
vanished while it was away.  What carries the task's label and not its uid as owner is not the task's: it belongs to a
deleted task of the same name, or to somebody else, and is neither used nor touched.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from collective_operator.api import API_VERSION, GROUP, KIND, PLURAL, VERSION
from collective_operator.cluster.api_server import ApiServer
from collective_operator.cluster.coordinator_status import AskCoordinator
from collective_operator.cluster.protocol import (
    ClusterError,
    Manifest,
    Observed,
    TaskEvent,
    TaskKey,
    named_config_map,
)
from collective_operator.conditions import shortened, stamp
from collective_operator.desired import names

_PLURALS = {
    "Pod": "pods",
    "Service": "services",
    "ConfigMap": "configmaps",
    "PersistentVolumeClaim": "persistentvolumeclaims",
}
_EVENT_MESSAGE_LIMIT = 1000


class KubernetesCluster:
    """Implements the Cluster protocol with an API server."""

    def __init__(self, *, api: ApiServer, ask: AskCoordinator) -> None:
        self._api = api
        self._ask = ask

    async def get_task(self, key: TaskKey) -> Manifest | None:
        """Read the task; None when it is gone."""
        try:
            return await self._api.request("GET", _task_path(key), verb="get", resource=PLURAL)
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    async def list_tasks(self, namespaces: Sequence[str]) -> list[Manifest]:
        """List the tasks of these namespaces; of all, when none is named."""
        prefix = f"/apis/{GROUP}/{VERSION}"
        paths = [f"{prefix}/namespaces/{namespace}/{PLURAL}" for namespace in namespaces] or [f"{prefix}/{PLURAL}"]
        listed = [await self._api.request("GET", path, verb="list", resource=PLURAL) for path in paths]
        return [item for answer in listed for item in answer.get("items") or ()]

    async def observe(self, task: Manifest) -> Observed:
        """List the task's children, and ask its coordinator how far it is."""
        pods, services, config_maps, volume_claims = await asyncio.gather(
            *(self._children(task, kind) for kind in ("Pod", "Service", "ConfigMap", "PersistentVolumeClaim"))
        )
        coordinator = pods.get(names.coordinator(task["metadata"]["name"]))
        return Observed(
            pods=pods,
            services=services,
            config_maps=config_maps,
            volume_claims=volume_claims,
            absent_config_maps=await self._absent(task),
            progress=await self._ask(coordinator) if coordinator and _answers(coordinator) else None,
        )

    async def create(self, manifest: Manifest) -> None:
        """Create a child; its being there already is fine, something else of its name raises ClusterError."""
        try:
            await self._api.request(
                "POST", _collection(manifest), verb="create", resource=_plural(manifest), body=manifest
            )
        except ClusterError as error:
            if error.status != 409:
                raise
            await self._expect_own(manifest)

    async def update(self, manifest: Manifest) -> None:
        """Replace a child that was observed, if it is still as it was; that it is not raises ClusterError."""
        await self._api.request(
            "PUT",
            f"{_collection(manifest)}/{manifest['metadata']['name']}",
            verb="update",
            resource=_plural(manifest),
            body=manifest,
        )

    async def delete(self, manifest: Manifest) -> None:
        """Delete exactly this child (by uid); its being gone is fine."""
        metadata = manifest["metadata"]
        body = {"preconditions": {"uid": metadata["uid"]}, "propagationPolicy": "Background"}
        try:
            await self._api.request(
                "DELETE",
                f"{_collection(manifest)}/{metadata['name']}",
                verb="delete",
                resource=_plural(manifest),
                body=body,
            )
        except ClusterError as error:
            if error.status not in (404, 409):
                raise

    async def update_status(self, task: Manifest, status: Mapping[str, Any]) -> None:
        """Replace the task's status, if the task is still as it was read.

        A whole replacement and no merge patch: a patch would keep members that the new status no longer has.
        """
        metadata = {field: task["metadata"][field] for field in ("namespace", "name", "uid", "resourceVersion")}
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "status": dict(status)}
        await self._api.request(
            "PUT", f"{_task_path(_key(task))}/status", verb="update", resource=f"{PLURAL}/status", body=body
        )

    async def emit(self, task: Manifest, events: Sequence[TaskEvent]) -> None:
        """Publish events about the task."""
        metadata = task["metadata"]
        for event in events:
            now = stamp(datetime.now(UTC))
            await self._api.request(
                "POST",
                f"/api/v1/namespaces/{metadata['namespace']}/events",
                verb="create",
                resource="events",
                body={
                    "apiVersion": "v1",
                    "kind": "Event",
                    "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
                    "involvedObject": {
                        "apiVersion": API_VERSION,
                        "kind": KIND,
                        "namespace": metadata["namespace"],
                        "name": metadata["name"],
                        "uid": metadata["uid"],
                        "resourceVersion": metadata["resourceVersion"],
                    },
                    "type": event.type,
                    "reason": str(event.reason),
                    "message": shortened(event.message, _EVENT_MESSAGE_LIMIT),
                    "count": 1,
                    "firstTimestamp": now,
                    "lastTimestamp": now,
                    "source": {"component": names.MANAGER},
                    "reportingComponent": names.MANAGER,
                    "reportingInstance": socket.gethostname(),
                },
            )

    async def _children(self, task: Manifest, kind: str) -> dict[str, Manifest]:
        metadata = task["metadata"]
        listed = await self._api.request(
            "GET",
            f"/api/v1/namespaces/{metadata['namespace']}/{_PLURALS[kind]}",
            verb="list",
            resource=_PLURALS[kind],
            query=[("labelSelector", f"{names.TASK_LABEL}={metadata['name']}")],
        )
        # Items of a list carry no kind of their own, and a manifest without one cannot be acted on.
        return {
            item["metadata"]["name"]: {"apiVersion": "v1", "kind": kind, **item}
            for item in listed.get("items") or ()
            if _owned(item, metadata["uid"])
        }

    async def _absent(self, task: Manifest) -> frozenset[str]:
        """Find out which ConfigMaps the task names and are not there."""
        name = named_config_map(task)
        if name is None:
            return frozenset()
        path = f"/api/v1/namespaces/{task['metadata']['namespace']}/configmaps/{name}"
        try:
            await self._api.request("GET", path, verb="get", resource="configmaps")
        except ClusterError as error:
            if error.status == 404:
                return frozenset({name})
            raise
        return frozenset()

    async def _expect_own(self, manifest: Manifest) -> None:
        """Find out whether a child that is there already is the one that was to be made."""
        name, owner = manifest["metadata"]["name"], manifest["metadata"]["ownerReferences"][0]["uid"]
        try:
            found = await self._api.request(
                "GET", f"{_collection(manifest)}/{name}", verb="get", resource=_plural(manifest)
            )
        except ClusterError as error:
            if error.status == 404:
                return
            raise
        if not _owned(found, owner):
            raise ClusterError(status=409, message=f"a {manifest['kind']} of this name exists and is not this task's")


def _owned(manifest: Mapping[str, Any], uid: str) -> bool:
    return any(owner["uid"] == uid for owner in manifest["metadata"].get("ownerReferences") or ())


def _answers(pod: Mapping[str, Any]) -> bool:
    """Tell whether there may be somebody to ask."""
    status = pod.get("status") or {}
    return status.get("phase") == "Running" and "podIP" in status and "deletionTimestamp" not in pod["metadata"]


def _key(task: Manifest) -> TaskKey:
    return TaskKey(task["metadata"]["namespace"], task["metadata"]["name"])


def _task_path(key: TaskKey) -> str:
    return f"/apis/{GROUP}/{VERSION}/namespaces/{key.namespace}/{PLURAL}/{key.name}"


def _collection(manifest: Mapping[str, Any]) -> str:
    return f"/api/v1/namespaces/{manifest['metadata']['namespace']}/{_plural(manifest)}"


def _plural(manifest: Mapping[str, Any]) -> str:
    return _PLURALS[manifest["kind"]]
