"""The Service by whose names a coordinator finds its learners: what somebody makes of it is put right."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from collective_operator.cluster.memory import kept
from collective_operator.reconcile import Update

from .world import Manifest, World, running

NAME = "digits-learners"


def as_served() -> World:
    """A task that runs, with its Service as an API server has it."""
    world = running()
    spec = world.children["services"][NAME]["spec"]
    spec |= {"type": "ClusterIP", "clusterIPs": ["None"], "sessionAffinity": "None", "ipFamilies": ["IPv4"]}
    spec["ports"] = [{**port, "protocol": "TCP"} for port in spec["ports"]]
    return world


def test_what_the_api_server_adds_is_no_news() -> None:
    world = as_served()
    assert world.look().actions == ()
    world.children["services"][NAME]["spec"]["sessionAffinity"] = "ClientIP"
    assert world.look().actions == (), "nor is what does not matter"


@pytest.mark.parametrize(
    "change",
    [
        {"selector": {"app": "other"}},
        {"selector": None},
        {"publishNotReadyAddresses": False},
        {"ports": [{"name": "mli", "port": 1, "targetPort": "mli", "protocol": "TCP"}]},
        {"ports": None},
        {"type": "ExternalName", "externalName": "elsewhere.example.com", "clusterIP": None, "clusterIPs": None},
    ],
)
@pytest.mark.parametrize("remembered", [True, False])
def test_one_that_leads_elsewhere_is_put_right(change: Manifest, remembered: bool) -> None:
    world = as_served()
    service = world.children["services"][NAME]
    good: dict[str, Any] = copy.deepcopy(service["spec"])
    service["spec"] = {key: value for key, value in {**service["spec"], **change}.items() if value is not None}
    if remembered:
        world.children["services"][NAME] = kept("Service", service)
        world.children["services"][NAME]["spec"] |= {"sessionAffinity": "None"}
    (action,) = world.look().actions
    assert isinstance(action, Update)
    mended = action.manifest["spec"]
    assert mended.get("type", "ClusterIP") == "ClusterIP" and "externalName" not in mended
    for member in ("clusterIP", "publishNotReadyAddresses", "selector"):
        assert mended[member] == good[member]
    assert [port["name"] for port in mended["ports"]] == ["mli", "metrics"]
    assert mended["sessionAffinity"] == "None", "what else is there stays"
    assert world.look().actions == ()
