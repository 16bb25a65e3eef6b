"""A task that runs, and whose spec this operator cannot read: it is older than the definition that let it in.

Everything of it is left in place, for its rounds go on without an operator. But that it has ended needs no spec to be
seen: its coordinator says so, or somebody who gives it up. Then it is told, and nothing is held for it any longer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from collective_operator.api import CollectiveTask
from collective_operator.api.annotations import abort_of
from collective_operator.api.task import CollectiveTaskSpec, Policy
from collective_operator.cluster.protocol import Manifest, Observed
from collective_operator.desired import names
from collective_operator.pods import read_pod
from collective_operator.progress import Progress, read_progress, verdict_of
from collective_operator.reconcile.ending import by_hand, by_verdict
from collective_operator.situation import Ending

_LEFT = ("cleanPods", "ttlSecondsAfterFinished")


def as_far_as_read(manifest: Manifest) -> CollectiveTask:
    """Read of a task what its ending takes: where it is, whether somebody ends it, and what is to be left of it."""
    metadata, spec = manifest["metadata"], manifest.get("spec")
    return CollectiveTask(
        namespace=metadata.get("namespace") or "default",
        name=metadata["name"],
        uid=metadata.get("uid") or "",
        generation=metadata.get("generation") or 1,
        spec=CollectiveTaskSpec.model_construct(policy=_policy(spec if isinstance(spec, Mapping) else {})),
        abort=abort_of(metadata),
    )


def ending_unread(task: CollectiveTask, observed: Observed) -> tuple[Ending, Progress | None] | None:
    """Find out whether it is over, and what its coordinator said last."""
    pod = observed.pods.get(names.coordinator(task.name))
    if pod is not None:
        said = read_progress(observed.progress, uid=task.uid)
        verdict = said if said and said.is_verdict else verdict_of(read_pod(pod))
        if verdict:
            return by_verdict(verdict), verdict
    ended = by_hand(task)
    return (ended, None) if ended else None


def _policy(spec: Mapping[str, Any]) -> Policy:
    """Read what is to be left; where that has a word that is not known, everything is."""
    said = spec.get("policy")
    known = {member: said[member] for member in _LEFT if member in said} if isinstance(said, Mapping) else {}
    try:
        return Policy.model_validate_json(json.dumps(known))
    except (ValidationError, TypeError, ValueError):
        return Policy.model_validate({"cleanPods": "None"})
