"""Whether a child that is there says what is wanted of it, of the kinds that are ever written again.

Equal they never are: an API server adds to all of them, and leaves out what says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from collective_operator.desired.network_policy import same
from collective_operator.desired.service import leads_to_learners


def says(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Tell whether a ConfigMap, a NetworkPolicy or a Service says what is wanted of it."""
    if wanted["kind"] == "ConfigMap":
        return bool(there.get("data") == wanted["data"])
    likeness = same if wanted["kind"] == "NetworkPolicy" else leads_to_learners
    return likeness(there["spec"], wanted["spec"])
