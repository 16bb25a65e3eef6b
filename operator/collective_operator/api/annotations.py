"""What people ask of a task that is no part of its spec: to end now, or to be tried again.

Both are asked for once and are no state to keep, so they are annotations: a file that is applied again says nothing of
them, and neither undoes nor repeats them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

ABORT = "collectivelearning.dev/abort"
"""The task is to end; the value tells why, or is just `true`."""
RETRY = "collectivelearning.dev/retry"
"""A failed task is to be tried again.  The value is the time at which it failed (`status.completionTime`), so it is
good for this failure and for no later one."""

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def abort_of(metadata: Mapping[str, Any]) -> str | None:
    """Tell why the task is to end, empty where nobody says; None when it is not to."""
    why = _annotation(metadata, ABORT)
    if why in ("", "false"):
        return None
    return "" if why == "true" else why


def retry_of(metadata: Mapping[str, Any]) -> str:
    """Tell which failure is to be tried again; empty where none is."""
    failure = _annotation(metadata, RETRY)
    return failure if _TIME.fullmatch(failure) else ""


def _annotation(metadata: Mapping[str, Any], name: str) -> str:
    return str((metadata.get("annotations") or {}).get(name, "")).strip()
