"""Which news cannot wait: what there may be something to do about, and not only something to tell; and for whom else.

Most of what watches bring while a thousand tasks start is how pods come up, step by step.  A task may tell of that
later; a pod that has gone or ended, and a wish of the user's, it has to act on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from collective_operator.api import KIND
from collective_operator.api.annotations import abort_of, retry_of


def is_urgent(kind: str, manifest: Mapping[str, Any], *, gone: bool) -> bool:
    """Tell whether an object, as a watch saw it, is such news."""
    metadata, status = manifest["metadata"], manifest.get("status") or {}
    if gone or metadata.get("deletionTimestamp"):
        return True
    if kind == "Pod":
        return status.get("phase") in ("Failed", "Succeeded")
    if kind != KIND:
        return False
    # What nobody has accepted yet is about to be looked at anyway; and late news of that is of no task that starts.
    changed = metadata.get("generation") != status.get("observedGeneration", metadata.get("generation"))
    return changed or abort_of(metadata) is not None or bool(retry_of(metadata))


def makes_room(kind: str, manifest: Mapping[str, Any], *, gone: bool) -> bool:
    """Tell whether something has given back what it held: its part of a quota, or its name."""
    ended = kind == "Pod" and (manifest.get("status") or {}).get("phase") in ("Failed", "Succeeded")
    return kind != KIND and (gone or ended)
