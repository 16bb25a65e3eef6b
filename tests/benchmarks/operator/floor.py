"""What the API server can do: a bare client creates what so many tasks come to, and knows all of it beforehand.

The same objects as the operator's, owned by the same tasks, the Secrets among them, and for each task the one status
without which nothing of it may be made, as the operator words it.  What the operator has to find out, compute, watch
and tell is not in it.  It sends as many requests at once as serves it best.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from tests.benchmarks.operator.world import LEARNERS, Api, collection_of, encoded, in_parallel, task

from collective_operator.api import parse_task
from collective_operator.cluster.protocol import Observed
from collective_operator.desired import NetworkRules, Platform, desired_children
from collective_operator.desired.credentials import credentials
from collective_operator.reconcile import reconcile

Manifest = dict[str, Any]

TRIED = (4, 8, 16, 32, 64)
TRIED_ON = 20
"""Tasks by which it is found out how many requests at once are best."""
UID = b"00000000-0000-0000-0000-000000000000"
"""Stands for the uid of a task that is still to be created."""
PLATFORM = Platform(learner_image="learner", coordinator_image="operator", network=NetworkRules())


@dataclass(frozen=True, slots=True)
class Floor:
    """How fast it was."""

    seconds: float
    at_once: int


async def floor(api: Api, *, tasks: int, at_once: int | None = None) -> Floor:
    """Create what so many tasks come to; so many requests at once, or as many as prove best."""
    namespace = await api.namespace("floor")
    best = at_once or await best_at_once(api, namespace)
    seconds = await create(api, namespace, [f"task-{number}" for number in range(tasks)], at_once=best)
    return Floor(seconds, best)


async def best_at_once(api: Api, namespace: str) -> int:
    """Find out how many requests at once serve the client best."""
    speeds: dict[int, float] = {}
    for at_once in TRIED:
        names = [f"try-{at_once}-{number}" for number in range(TRIED_ON)]
        speeds[at_once] = await create(api, namespace, names, at_once=at_once)
    return min(speeds, key=lambda at_once: speeds[at_once])


async def create(api: Api, namespace: str, names: Sequence[str], *, at_once: int) -> float:
    """Create what tasks of these names come to; the seconds that it takes."""
    made = [task(namespace, name, learners=LEARNERS) for name in names]
    statuses = [first_status(each) for each in made]
    children = [[(collection_of(child), encoded(child)) for child in children_of(each)] for each in made]
    started = time.monotonic()
    uids: dict[str, bytes] = {}
    await in_parallel([partial(accept, api, *each, uids) for each in zip(made, statuses, strict=True)], at_once=at_once)
    owned = [
        (path, body.replace(UID, uids[name])) for name, of in zip(names, children, strict=True) for path, body in of
    ]
    await api.create_all(owned, at_once=at_once)
    return time.monotonic() - started


async def accept(api: Api, made: Manifest, status: Manifest, uids: dict[str, bytes]) -> None:
    """Create a task, give it its first status, and note its uid."""
    metadata = (await api.create(made))["metadata"]
    identity = {field: metadata[field] for field in ("namespace", "name", "uid", "resourceVersion")}
    body = {"apiVersion": made["apiVersion"], "kind": made["kind"], "metadata": identity, "status": status}
    await api.send("PUT", f"{collection_of(made)}/{metadata['name']}/status", encoded(body))
    uids[metadata["name"]] = metadata["uid"].encode()


def first_status(made: Manifest) -> Manifest:
    """Word a task's first status."""
    now = datetime.now(UTC)
    status = reconcile(task=unborn(made), observed=Observed(), now=now, platform=PLATFORM).status
    assert status
    return status


def children_of(made: Manifest) -> list[Manifest]:
    """Build a task's children."""
    parsed = parse_task(unborn(made))
    secrets = list(credentials(parsed, PLATFORM))
    children = [secret(metadata) for metadata in (secrets[0].authority, *(each.metadata for each in secrets))]
    return [*children, *(child.build() for child in desired_children(parsed, PLATFORM))]


def unborn(made: Manifest) -> Manifest:
    """Give a task what the API server gives it, as far as that is known before."""
    return {**made, "metadata": {**made["metadata"], "uid": UID.decode(), "generation": 1}}


def secret(metadata: Manifest) -> Manifest:
    """Build a Secret as large as one with a key and two certificates."""
    data = {"tls.crt": "A" * 1000, "tls.key": "A" * 320, "ca.crt": "A" * 800}
    return {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": dict(metadata), "data": data}
