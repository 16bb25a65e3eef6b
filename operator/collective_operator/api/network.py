"""What pods may reach beside their task: `egress` of learners and of the coordinator, as a NetworkPolicy says it.

A rule is passed on as it is written. Kubernetes judges it, and its words stand in the task's conditions; until then no
pod is made that the rule is for. What it would leave out in silence is refused here.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

PEER_FIELDS = ("ipBlock", "namespaceSelector", "podSelector")
PEER = "must have ipBlock, namespaceSelector or podSelector, and nothing else"
RULE = "must be a NetworkPolicyEgressRule: lists `to` and `ports`, and nothing else"
TO = f"each member of `to` {PEER}"
PORT = "each member of `ports` must have port, endPort or protocol, and nothing else"

_PORT_FIELDS = ("port", "endPort", "protocol")


def _rule(value: dict[str, Any]) -> dict[str, Any]:
    members = {"to": (PEER_FIELDS, TO), "ports": (_PORT_FIELDS, PORT)}
    if not value.keys() <= members.keys() or not all(isinstance(listed, list) for listed in value.values()):
        raise PydanticCustomError("egress", RULE)
    for name, listed in value.items():
        fields, message = members[name]
        for item in listed:
            if not isinstance(item, dict) or not item or not item.keys() <= set(fields):
                raise PydanticCustomError("egress", message)
    return value


EgressRule = Annotated[dict[str, Any], Field(max_length=2), AfterValidator(_rule)]
EgressRules = Annotated[tuple[EgressRule, ...], Field(max_length=16)]
