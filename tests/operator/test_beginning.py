"""How a task begins: accepted and started in one go, when it may, and as it was when it was accepted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from collective_operator.cluster.protocol import ClusterError, Manifest
from collective_operator.controller import reconcile_once

from .any_world import KEY, World
from .model_server import TASK
from .virtual_time import VirtualLoop, on_virtual_time
from .world import PLATFORM, manifest


class Beginning(World):
    """A world whose requests are told."""

    def __init__(self, **spec: Any) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        super().__init__(manifest(learners={"count": 2}, **spec)["spec"], loop)
        self.watches_tell((), backwards=False)
        self.asked: list[str] = []
        server: Any = self.server
        answered = server.request

        async def request(method: str, path: str, **rest: Any) -> Manifest:
            self.asked.append(f"{method} {rest['resource']}")
            found: Manifest = await answered(method, path, **rest)
            return found

        server.request = request

    async def begin(self, *, may_start: bool = True) -> None:
        self.said_to_wait = (
            await reconcile_once(self.cluster, KEY, now=self.server.now, platform=PLATFORM, may_start=may_start)
        ).wants_to_start

    def status(self) -> Mapping[str, Any]:
        assert self.server.task
        return self.server.task.get("status") or {}


def test_it_is_accepted_and_started_in_one_turn_that_reads_nothing() -> None:
    async def main() -> None:
        world = Beginning()
        await world.begin()
        assert world.asked[0] == "PUT collectivetasks/status"
        assert len(world.server.owned("Pod")) == 3
        await world.cluster.close()
        assert not [asked for asked in world.asked if asked.startswith("GET")]
        assert "POST events" in world.asked

    on_virtual_time(main)


def test_one_that_may_not_start_yet_is_not_accepted_yet() -> None:
    async def main() -> None:
        world = Beginning()
        await world.begin(may_start=False)
        assert (world.said_to_wait, world.asked) == (True, [])

    on_virtual_time(main)


@pytest.mark.parametrize("spec", [{"suspend": True}, {"rounds": -1}])
def test_one_that_is_not_to_start_is_told_of_at_once(spec: dict[str, Any]) -> None:
    async def main() -> None:
        world = Beginning()
        task = world.server.task
        assert task
        world.server.put({**task, "spec": {**task["spec"], **spec}})
        world.watches_tell((), backwards=False)
        await world.begin(may_start=False)
        assert not world.said_to_wait
        assert "PUT collectivetasks/status" in world.asked and world.status()
        await world.cluster.close()

    on_virtual_time(main)


def test_one_that_was_changed_unseen_does_not_begin() -> None:
    async def main() -> None:
        world = Beginning()
        task = world.server.task
        assert task
        world.server.put({**task, "spec": {**task["spec"], "suspend": True}})
        with pytest.raises(ClusterError, match="has been modified"):
            await world.begin()
        assert not world.server.owned("Pod") and not world.status()
        await world.begin()
        assert not world.server.owned("Pod")
        assert world.status()["phase"] == "Suspended"
        assert (TASK, "digits") in world.server.objects
        await world.cluster.close()

    on_virtual_time(main)
