"""The resync wakes whoever has something to do, and comes soon when a watch has begun anew."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from collective_operator import resync as module
from collective_operator.cluster.listing import Pause
from collective_operator.cluster.memory import Memory
from collective_operator.cluster.protocol import ClusterError, TaskKey
from collective_operator.resync import Resync
from collective_operator.settings import Settings

from .virtual_time import on_virtual_time


class Listing:
    """A cluster that is listed, and the workers that are woken by it."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.woken: list[str] = []
        self.listed = 0
        self.was_listed = asyncio.Event()
        self.news: set[TaskKey] = set()
        self.fails = False
        self.hurried: bool | None = None
        self.pages = 3
        self.read = 0
        self.gone = ""
        """A namespace that cannot be listed."""

    def task(self, name: str, phase: str | None, *, namespace: str = "default") -> None:
        metadata = {"name": name, "namespace": namespace, "uid": name, "resourceVersion": "1"}
        self.memory.tell("CollectiveTask", {"metadata": metadata, "status": {"phase": phase} if phase else {}})

    async def refresh(self, namespace: str | None, *, pause: Pause | None = None) -> set[TaskKey]:
        self.listed += 1
        self.hurried = pause is None
        for _ in range(self.pages if pause else 0):
            await cast("Pause", pause)()
            self.read += 1
        self.was_listed.set()
        if self.fails or namespace == self.gone:
            raise ClusterError(status=500, message="no")
        return self.news

    def wake(self, key: TaskKey) -> None:
        self.woken.append(key.name)

    def busy_seconds(self) -> float:
        return 0.0


def resync_of(listing: Listing, *known: str, seconds: float = 300, namespaces: tuple[str, ...] = ()) -> Resync:
    cluster: Any = listing
    return Resync(
        cluster=cluster,
        workers=cluster,
        memory=listing.memory,
        known=lambda: {TaskKey("default", name) for name in known},
        settings=Settings(resync_seconds=seconds, namespaces=namespaces),
    )


async def test_who_is_woken() -> None:
    listing = Listing()
    for name, phase in (("new", None), ("runs", "Running"), ("done", "Complete"), ("missed", "Failed")):
        listing.task(name, phase)
    listing.news = {TaskKey("default", "missed")}
    await resync_of(listing, "done", "gone").once()
    assert sorted(listing.woken) == ["gone", "missed", "new", "runs"]
    listing.woken.clear()
    listing.fails = True
    await resync_of(listing, "done", "gone").once()
    assert listing.woken == [], "nothing is known to be gone because nobody answers"


async def test_a_namespace_that_is_gone_keeps_no_other_from_being_listed() -> None:
    listing = Listing()
    listing.task("runs", "Running")
    listing.task("runs-elsewhere", "Running", namespace="elsewhere")
    listing.gone = "elsewhere"
    await resync_of(listing, namespaces=("elsewhere", "default")).once()
    assert (listing.woken, listing.listed) == (["runs"], 2)


async def test_a_watch_that_began_anew_brings_it_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SETTLE_SECONDS", 0.01)
    listing = Listing()
    resync = resync_of(listing)
    running = asyncio.create_task(resync.run())
    await asyncio.sleep(0.05)
    assert listing.listed == 0, "its time has not come"
    for _ in range(3):
        resync.doubt()
    await asyncio.wait_for(listing.was_listed.wait(), 60)
    await asyncio.sleep(0.05)
    assert listing.listed == 1, "once for all of them"
    running.cancel()


def test_what_nothing_gave_a_reason_for_is_listed_page_by_page_until_something_does() -> None:
    async def main() -> None:
        listing = Listing()
        listing.pages = 40
        resync = resync_of(listing, seconds=300)
        running = asyncio.create_task(resync.run())
        await asyncio.sleep(300 + 3 * 10 + 1)
        assert (listing.listed, listing.read, listing.hurried) == (1, 10, False), "a page every three seconds"
        await asyncio.sleep(3 * 40)
        assert (listing.listed, listing.read) == (1, 40)
        await asyncio.sleep(300)
        assert (listing.listed, listing.read) == (2, 50), "and 300 seconds from its end"
        resync.doubt()
        await asyncio.sleep(1)
        assert (listing.listed, listing.read) == (2, 80), "the rest at once"
        await asyncio.sleep(10)
        assert (listing.listed, listing.hurried) == (3, True), "and all of it again, as some was read before"
        assert resync.ailment() is None
        listing.pages = 10_000
        await asyncio.sleep(3 * 9_000)
        assert (listing.listed, resync.ailment()) == (4, None), "it goes on, however long it takes"
        running.cancel()

    on_virtual_time(main)


async def test_a_listing_that_failed_is_tried_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SETTLE_SECONDS", 0.01)
    listing = Listing()
    listing.fails = True
    resync = resync_of(listing)
    await resync.once()
    running = asyncio.create_task(resync.run())
    listing.fails = False
    listing.was_listed.clear()
    await asyncio.wait_for(listing.was_listed.wait(), 60)
    running.cancel()
