"""Watching a task through an API server that is away for a while."""

from __future__ import annotations

from typing import Any, cast

import pytest

from collective_operator.cluster.protocol import ClusterError
from collective_operator.commands.client import Client
from collective_operator.commands.watch import Watching
from collective_operator.run.json_view import JsonView
from collective_operator.run.plain_view import PlainView
from collective_operator.run.view import View

ENDED: dict[str, Any] = {
    "conditions": [{"type": "Complete", "status": "True", "reason": "RoundsCompleted", "message": ""}],
    "round": {"current": 3, "accepted": 2},
}
AWAY = ClusterError(status=0, message="nobody answers")


class Server:
    """Answers each request with the next of a list; the clock goes on by a minute with each."""

    def __init__(
        self, *answers: dict[str, Any] | ClusterError, events: list[ClusterError | None] | None = None
    ) -> None:
        self.answers = list(answers)
        self.silences = events or []
        self.now = 0.0

    async def task(self, name: str) -> dict[str, Any]:
        self.now += 60
        answer = self.answers.pop(0)
        if isinstance(answer, ClusterError):
            raise answer
        spec = {"rounds": 3, "learners": {"count": 2}}
        return {"metadata": {"name": name, "namespace": "lab"}, "spec": spec, "status": answer}

    async def child(self, kind: str, name: str) -> None:
        return None

    async def events(self, task: dict[str, Any]) -> list[dict[str, Any]]:
        if self.silences and (silence := self.silences.pop(0)):
            raise silence
        return [{"metadata": {"uid": "1"}, "reason": "Accepted", "message": "m", "count": 1}]


class Told:
    """Keeps what a view was told."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *told, **_: self.words.append(f"{name} {told[0]}" if name == "note" else name)


async def shown(server: Server, view: View) -> int:
    watching = Watching(cast("Client", server), "digits", view, clock=lambda: server.now)
    return await watching.until_it_ends(0)


async def watched(server: Server) -> tuple[int, list[str]]:
    told = Told()
    return await shown(server, cast("View", told)), told.words


async def test_an_api_server_that_comes_back_is_waited_for() -> None:
    server = Server({}, AWAY, ClusterError(status=503, message="starting"), {}, AWAY, ENDED)
    code, words = await watched(server)
    assert code == 0
    away = "note the cluster does not answer, and is asked again: nobody answers"
    assert words == ["begin", "status", away, "status", away, "status", "end"]


async def test_events_are_not_told_again_after_a_silence() -> None:
    code, words = await watched(Server({}, {}, {}, ENDED, events=[None, AWAY]))
    assert (code, words.count("event")) == (0, 0)


class Publishing(Server):
    """Publishes the Event of the end a few looks after the status; None publishes none."""

    late: int | None
    looks = 0

    async def events(self, task: dict[str, Any]) -> list[dict[str, Any]]:
        events = await super().events(task)
        events.append({"metadata": {"uid": "2"}, "reason": "RoundsCompleted", "lastTimestamp": "2026-01-01T00:00:00Z"})
        if task["status"]:
            self.looks += 1
        if self.late is not None and self.looks > self.late:
            told = {"reason": "RoundsCompleted", "lastTimestamp": "2026-01-02T00:00:00Z"}
            events.append({"metadata": {"uid": "3"}, **told})
        return events


@pytest.mark.parametrize(("late", "looks", "told"), [(0, 1, 1), (2, 3, 1), (None, 6, 0)])
async def test_the_event_of_the_end_is_waited_for_within_a_bound(late: int | None, looks: int, told: int) -> None:
    server = Publishing({}, {**ENDED, "completionTime": "2026-01-02T00:00:00Z"})
    server.late = late
    code, words = await watched(server)
    assert (code, server.looks, words) == (0, looks, ["begin", "status", *["event"] * told, "status", "end"])


async def test_what_has_ended_before_anybody_looked_is_shown_at_once() -> None:
    server = Publishing(ENDED)
    server.late = None
    code, words = await watched(server)
    assert (code, server.looks, words) == (0, 1, ["begin", "status", "end"])


async def test_one_that_stays_away_is_given_up() -> None:
    with pytest.raises(ClusterError, match="nobody answers"):
        await watched(Server({}, *[AWAY] * 20))


@pytest.mark.parametrize("status", [403, 404])
async def test_an_answer_is_an_answer(status: int) -> None:
    server = Server({}, ClusterError(status=status, message="no"), ENDED)
    with pytest.raises(ClusterError):
        await watched(server)
    assert server.answers == [ENDED]


async def test_what_is_told_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    class Evil(Server):
        async def events(self, task: dict[str, Any]) -> list[dict[str, Any]]:
            self.seen = getattr(self, "seen", 0) + 1
            return [{"metadata": {"uid": "1"}, "reason": "Lost", "message": "\x1b[2J\nall is well", "count": self.seen}]

    ended = {**ENDED, "conditions": [{**ENDED["conditions"][0], "message": "\x1b[2J"}]}
    for view in (PlainView(), JsonView()):
        assert await shown(Evil({}, ended), view) == 0
    plain, _, programs = capsys.readouterr().out.partition('{"event"')
    assert "\x1b" not in plain + programs
    assert r"Lost: \x1b[2J all is well" in plain
    assert r'"message": "\u001b[2J\nall is well"' in programs
