"""The watches of children: where they go on, when they begin anew, and what is urgent of what they tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import pytest

from collective_operator.api import KIND
from collective_operator.cluster import following as module
from collective_operator.cluster.following import Follower, Following
from collective_operator.cluster.protocol import ClusterError
from collective_operator.urgency import is_urgent

Step = Mapping[str, Any] | Exception


def pod(version: str, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "digits-learner-0", "namespace": "ml", "resourceVersion": version, **metadata}}


def added(version: str) -> dict[str, Any]:
    return {"type": "ADDED", "object": pod(version)}


class Watches:
    """An API server whose watches tell what they are given, one after the other, and then nothing."""

    def __init__(self, *watches: Sequence[Step]) -> None:
        self.watches = list(watches)
        self.asked: list[str | None] = []
        self.done = asyncio.Event()

    async def watch(
        self, path: str, *, resource: str, query: Sequence[tuple[str, str]]
    ) -> AsyncGenerator[dict[str, Any], None]:
        asked = dict(query)
        assert (path, resource) == ("/api/v1/namespaces/ml/pods", "pods")
        assert (asked["labelSelector"], asked["allowWatchBookmarks"]) == ("collectivelearning.dev/task", "true")
        self.asked.append(asked.get("resourceVersion"))
        if not self.watches:
            self.done.set()
            await asyncio.Event().wait()
        for step in self.watches.pop(0):
            if isinstance(step, Exception):
                raise step
            yield dict(step)


GONE = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old resource version"}}
BOOKMARK = {"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {"resourceVersion": "9"}}}


@pytest.mark.parametrize(
    ("watches", "asked", "told", "anew"),
    [
        ([[added("6")], [added("7")]], ["5", "6", "7"], ["6", "7"], 0),
        ([[added("6"), BOOKMARK]], ["5", "9"], ["6"], 0),
        ([[], [ClusterError(status=0, message="cut")], [ClusterError(status=401, message="who")]], ["5"] * 4, [], 0),
        ([[added("6"), GONE], [added("8")]], ["5", None, "8"], ["6", "8"], 1),
        ([[ClusterError(status=410, message="gone")], [GONE], [added("8")]], ["5", None, None, "8"], ["8"], 2),
        ([[{"type": "ERROR", "object": {"code": 500}}], [{"odd": 1}], [{**added("6"), "type": "?"}]], ["5"] * 4, [], 0),
    ],
    ids=["ends", "bookmark", "fails", "gone", "gone at once", "odd"],
)  # fmt: skip
async def test_it_goes_on_where_it_was_and_begins_anew_where_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, watches: list[list[Step]], asked: list[str | None], told: list[str], anew: int
) -> None:
    monkeypatch.setattr(module, "_PAUSES", (0.0,))
    server, heard, begun = Watches(*watches), list[tuple[str, str, bool]](), list[None]()
    api: Any = server

    def tell(kind: str, manifest: Mapping[str, Any], *, gone: bool) -> None:
        heard.append((kind, manifest["metadata"]["resourceVersion"], gone))

    followed = Following(api, tell=tell, began_anew=lambda: begun.append(None))
    followed.start([("Pod", "ml", "5")])
    try:
        await asyncio.wait_for(server.done.wait(), 10)
        assert server.asked == asked
        assert heard == [("Pod", version, False) for version in told]
        assert len(begun) == anew
        assert followed.ailment() is None
    finally:
        await followed.stop()


async def test_what_is_deleted_is_gone_and_what_tells_nothing_is_asked_less_and_less_often() -> None:
    deleted = {"type": "DELETED", "object": pod("7")}
    told, pauses = list[bool](), list[float]()

    async def rest(seconds: float) -> None:
        pauses.append(seconds)

    server: Any = Watches([deleted], *([[]] * 6))
    follower = Follower(
        server,
        kind="Pod",
        namespace="ml",
        version="5",
        tell=lambda kind, manifest, *, gone: told.append(gone),
        began_anew=lambda: None,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.asyncio, "sleep", rest)
        running = asyncio.create_task(follower.run())
        await asyncio.wait_for(server.done.wait(), 10)
        running.cancel()
        await asyncio.wait({running})
    assert told == [True]
    assert all(bound / 2 <= pause <= bound for pause, bound in zip(pauses, (0.5, 1, 2, 3, 5, 5, 5), strict=True))


async def test_a_watch_that_has_ended_for_good_is_an_ailment() -> None:
    def tell(kind: str, manifest: Mapping[str, Any], *, gone: bool) -> None:
        raise ValueError("a bug")

    api: Any = Watches([added("6")])
    followed = Following(api, tell=tell, began_anew=lambda: None)
    followed.start([("Pod", "ml", "5")])
    async with asyncio.timeout(60):
        while followed.ailment() is None:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)
    assert followed.ailment() == "the watch of Pod of ml has ended"
    await followed.stop()


def task(generation: int = 2, observed: int = 2, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"generation": generation, **metadata}, "status": {"observedGeneration": observed}}


@pytest.mark.parametrize(
    ("kind", "manifest", "urgent"),
    [
        ("Pod", {**pod("1"), "status": {"phase": "Pending"}}, False),
        ("Pod", {**pod("1"), "status": {"phase": "Running"}}, False),
        ("Pod", {**pod("1"), "status": {"phase": "Failed"}}, True),
        ("Pod", {**pod("1"), "status": {"phase": "Succeeded"}}, True),
        ("Pod", pod("1", deletionTimestamp="2026-01-01T00:00:00Z"), True),
        ("ConfigMap", pod("1"), False),
        (KIND, task(), False),
        (KIND, task(generation=3), True),
        (KIND, {"metadata": {"generation": 1}}, False),
        (KIND, task(annotations={"collectivelearning.dev/abort": "true"}), True),
        (KIND, task(annotations={"collectivelearning.dev/abort": "false"}), False),
        (KIND, task(annotations={"collectivelearning.dev/retry": "2026-01-01T00:00:00Z"}), True),
    ],
)
def test_what_there_may_be_something_to_do_about_is_urgent(kind: str, manifest: dict[str, Any], urgent: bool) -> None:
    assert is_urgent(kind, manifest, gone=False) is urgent
    assert is_urgent(kind, manifest, gone=True)
