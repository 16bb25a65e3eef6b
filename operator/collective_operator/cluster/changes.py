"""Changes to what tasks have: children are made, replaced and deleted, and what the cluster refuses is remembered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from collective_operator.api import KIND
from collective_operator.cluster.api_server import ApiServer
from collective_operator.cluster.memory import Memory, Record
from collective_operator.cluster.objects import PLURALS, collection, is_owned, path_of
from collective_operator.cluster.protocol import ClusterError, Manifest, TaskKey
from collective_operator.desired import names
from collective_operator.desired.kueue import released
from collective_operator.desired.likeness import says

_STRICTLY = [("fieldValidation", "Strict")]
"""A member that an object does not have is refused, and not dropped in silence: podOverrides and egress are as people
write them."""

_SAME_TURN_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Changes:
    """Carries out what the Cluster protocol says of children.

    Parameters
    ----------
    api
        Where they are.
    memory
        Told of what comes of it, without waiting for a watch.
    """

    def __init__(self, api: ApiServer, memory: Memory) -> None:
        self._api = api
        self._memory = memory
        self.may_release = True
        """Nobody has said lately that Kueue's hold may not be taken off pods."""

    async def create(self, manifest: Manifest, *, strictly: bool) -> None:
        """Create a child; its being there already is fine, something else of its name raises ClusterError."""
        record = self._memory.record(_task_of(manifest))
        record.untouched = False
        with _remembering_refusals(record, manifest):
            await self._create(manifest, record, strictly=strictly)

    async def _create(self, manifest: Manifest, record: Record, *, strictly: bool) -> None:
        kind, metadata = manifest["kind"], manifest["metadata"]
        unasked, at = record.unasked.get(kind, ("", 0.0))
        if unasked and asyncio.get_running_loop().time() - at < _SAME_TURN_SECONDS:
            # A webhook may take its time to say nothing: not for each of hundreds of pods.
            raise ClusterError(status=500, message=unasked)
        try:
            made = await self._api.request(
                "POST",
                collection(kind, metadata["namespace"]),
                verb="create",
                resource=PLURALS[kind],
                # One before it may be of an operator that dropped what pods do not have: a task that runs goes on.
                query=_STRICTLY if strictly else (),
                body=manifest,
            )
        except ClusterError as error:
            if error.unasked:
                record.unasked[kind] = error.message, asyncio.get_running_loop().time()
            if not error.conflict:
                raise
            await self._expect_own(manifest, error)
        else:
            self._memory.tell(kind, made)

    async def update(self, manifest: Manifest) -> None:
        """Replace a child that was observed, if it is still as it was; that it is not raises ClusterError."""
        kind, metadata = manifest["kind"], manifest["metadata"]
        record = self._memory.record(_task_of(manifest))
        with _remembering_refusals(record, manifest):
            made = await self._api.request(
                "PUT", path_of(manifest), verb="update", resource=PLURALS[kind], query=_STRICTLY, body=manifest
            )
        self._memory.tell(kind, made)
        if not says(made, manifest):
            # To write it at every turn would change nothing but the load.
            generation = record.task and record.task["metadata"].get("generation")
            record.put_back[kind, metadata["name"]] = generation, made["metadata"]["resourceVersion"]
            what = f"{metadata['namespace']}/{metadata['name']}"
            _log.warning("the %s %s is put back as soon as it is written, by a webhook for one", kind, what)

    async def delete(self, manifest: Manifest) -> None:
        """Delete exactly this object (by uid; a task only as it was read); its being gone is fine."""
        metadata = manifest["metadata"]
        preconditions = {"uid": metadata["uid"]}
        if manifest["kind"] == KIND:
            preconditions["resourceVersion"] = metadata["resourceVersion"]
        body = {"preconditions": preconditions, "propagationPolicy": "Background"}
        resource = PLURALS[manifest["kind"]]
        try:
            await self._api.request("DELETE", path_of(manifest), verb="delete", resource=resource, body=body)
        except ClusterError as error:
            if error.denied or error.status not in (404, 409):
                raise

    async def release(self, pod: Manifest) -> None:
        """Take Kueue's hold off exactly this pod; without the right to do so it stays, which its trouble tells."""
        if not self.may_release:
            return
        try:
            made = await self._api.request(
                "PATCH", path_of(pod), verb="patch", resource=PLURALS["Pod"], body=released(pod)
            )
        except ClusterError as error:
            if error.status == 403 and not error.denied:
                self.may_release = False
                _log.warning("Kueue's hold cannot be taken off pods, see kueue.enabled of the chart: %s", error)
            elif error.denied or error.status not in (404, 409):
                raise
        else:
            self._memory.tell("Pod", made)

    async def _expect_own(self, manifest: Manifest, conflict: ClusterError) -> None:
        """Find out whether a child that is there already is the one that was to be made."""
        try:
            found = await self._api.request("GET", path_of(manifest), verb="get", resource=PLURALS[manifest["kind"]])
        except ClusterError as error:
            if error.status == 404:
                # Gone meanwhile; or it was a quota that two writers met at, and nothing was made: try again.
                raise ClusterError(status=0, message=conflict.message) from error
            raise
        self._memory.tell(manifest["kind"], found)
        if not is_owned(found, manifest["metadata"]["ownerReferences"][0]["uid"]):
            leaves = ", and is being deleted" if "deletionTimestamp" in found["metadata"] else ""
            what = f"a {manifest['kind']} of this name exists and is not this task's{leaves}"
            raise ClusterError(status=409, message=what)
        label = manifest["metadata"]["labels"][names.TASK_LABEL]
        if (found["metadata"].get("labels") or {}).get(names.TASK_LABEL) != label:
            # Nobody sees it by its label any more: without a word it would be made again and again.
            what = f"a {manifest['kind']} of this name exists and has lost its label {names.TASK_LABEL}={label}"
            raise ClusterError(status=409, message=f"{what}: put it back, or delete it")


def _task_of(child: Mapping[str, Any]) -> TaskKey:
    metadata = child["metadata"]
    return TaskKey(metadata["namespace"], metadata["labels"][names.TASK_LABEL])


@contextmanager
def _remembering_refusals(record: Record, child: Mapping[str, Any]) -> Iterator[None]:
    """Remember that a child was refused, or that it was not."""
    name = child["metadata"]["name"]
    try:
        yield
    except ClusterError as error:
        if error.refused:
            record.refusals.refused(name, error.message, now=asyncio.get_running_loop().time())
        raise
    record.refusals.made(name)
