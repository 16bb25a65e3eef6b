"""What an operator of an earlier version began goes on as it began.

Before there was TLS, pods were made without it. A task of theirs that runs must not get a pod with it: neither side
would speak with the other. So what its pods are like decides, for as long as there are any, and not what a field that
is newer than they are defaults to. Nor does such a task get NetworkPolicies: what it reads was open when it began.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from collective_operator.api import CollectiveTask
from collective_operator.desired.credentials import has_credential, is_secured
from collective_operator.desired.platform import Platform


def as_begun(
    task: CollectiveTask, platform: Platform, pods: Iterable[dict[str, Any]]
) -> tuple[CollectiveTask, Platform]:
    """Read a task as its pods are, and where it runs as they know it."""
    there = list(pods)
    if not there or not is_secured(task, platform) or any(map(has_credential, there)):
        return task, platform
    off = task.spec.tls.model_copy(update={"mode": "Off"})
    return replace(task, spec=task.spec.model_copy(update={"tls": off})), replace(platform, network=None)
