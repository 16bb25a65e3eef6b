"""Workers: one turn at a time for a task, wake-ups that coalesce, time that passes, errors that back off."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from collective_operator import workers as module
from collective_operator.cluster.protocol import ClusterError, TaskKey
from collective_operator.controller import Outcome
from collective_operator.workers import Workers

KEY = TaskKey("default", "digits")
TASK = {"metadata": {}}


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not check():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


class Turns:
    def __init__(self, *answers: Outcome | Exception, gate: asyncio.Event | None = None) -> None:
        self.answers = list(answers)
        self.gate = gate
        self.count = self.now = self.most = 0

    async def __call__(self, key: TaskKey, *, may_start: bool) -> Outcome:
        self.count += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await (self.gate.wait() if self.gate else asyncio.sleep(0))
        finally:
            self.now -= 1
        answer = self.answers.pop(0) if self.answers else Outcome(task=TASK)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def with_workers(turns: Turns, body: Callable[[Workers], Awaitable[None]]) -> None:
    workers = Workers(turn=turns, settle_seconds=0.01)
    try:
        await body(workers)
    finally:
        await workers.close()


async def test_wake_ups_during_a_turn_make_one_turn_more() -> None:
    gate = asyncio.Event()
    turns = Turns(gate=gate)

    async def body(workers: Workers) -> None:
        workers.wake(KEY)
        await until(lambda: turns.now == 1)
        for _ in range(100):
            workers.wake(KEY)
        gate.set()
        await until(lambda: not workers.active())

    await with_workers(turns, body)
    assert (turns.count, turns.most) == (2, 1)


async def test_time_wakes_and_nothing_left_ends_the_worker() -> None:
    turns = Turns(Outcome(task=TASK, requeue_after=0.02), Outcome(task=TASK, requeue_after=0), Outcome(task=None))

    async def body(workers: Workers) -> None:
        workers.wake(KEY)
        await until(lambda: turns.count == 3 and not workers.active())
        workers.wake(KEY)
        await until(lambda: turns.count == 4 and not workers.active())

    await with_workers(turns, body)


async def test_errors_are_tried_again_and_other_tasks_go_on() -> None:
    turns = Turns(ClusterError(status=500, message="no"), ClusterError(status=409, message="changed"))

    async def body(workers: Workers) -> None:
        workers.wake(KEY)
        await until(lambda: turns.count == 1)
        other = TaskKey("default", "other")
        workers.wake(other)
        await until(lambda: turns.count >= 3 and not workers.active())

    await with_workers(turns, body)


async def test_so_many_tasks_start_at_once_and_the_others_turn_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, last_gate, starting, started, turned = asyncio.Event(), asyncio.Event(), list[str](), list[str](), list[str]()

    async def turn(key: TaskKey, *, may_start: bool) -> Outcome:
        if key.name == "other":
            turned.append(key.name)
        elif not may_start:
            return Outcome(task=TASK, wants_to_start=True)
        else:
            starting.append(key.name)
            await (gate if len(starting) <= 32 else last_gate).wait()
            started.append(key.name)
        return Outcome(task=TASK)

    workers = Workers(turn=turn, settle_seconds=0.01)
    names = [f"task-{number}" for number in range(40)]
    try:
        for number, name in enumerate(names):
            workers.wake(TaskKey(f"team-{number % 4}", name))
        await until(lambda: len(starting) == 32)
        workers.wake(TaskKey("default", "other"))
        await until(lambda: bool(turned))
        assert (starting, started) == (names[:32], [])
        loop = asyncio.get_running_loop()
        clock = loop.time
        monkeypatch.setattr(loop, "time", lambda: clock() + 100)
        gate.set()
        await until(lambda: starting == names and len(started) == 32)
        assert workers.busy_seconds() < 100, "who waits for its turn is not stuck"
        last_gate.set()
        await until(lambda: started == names)
    finally:
        await workers.close()


async def test_one_namespace_leaves_room_for_the_others_to_start_in() -> None:
    gate, starting = asyncio.Event(), list[TaskKey]()

    async def turn(key: TaskKey, *, may_start: bool) -> Outcome:
        if not may_start:
            return Outcome(task=TASK, wants_to_start=True)
        starting.append(key)
        if key.namespace == "hangs":
            await gate.wait()
        return Outcome(task=TASK)

    workers = Workers(turn=turn, settle_seconds=0.01)
    many = [TaskKey("hangs", f"task-{number}") for number in range(40)]
    few = [TaskKey("works", f"task-{number}") for number in range(20)]
    try:
        for key in (*many, *few):
            workers.wake(key)
        await until(lambda: len(starting) == 44)
        await asyncio.sleep(0.1)
        assert starting == [*many[:24], *few]
        gate.set()
        await until(lambda: starting == [*many[:24], *few, *many[24:]])
    finally:
        await workers.close()


async def test_a_started_task_gives_way_to_those_that_wait_unless_it_is_urgent() -> None:
    gates, turned = {f"task-{number}": asyncio.Event() for number in range(28)}, list[str]()
    starting = set[str]()

    async def turn(key: TaskKey, *, may_start: bool) -> Outcome:
        if key.name not in starting and not may_start:
            return Outcome(task=TASK, wants_to_start=True)
        if may_start:
            starting.add(key.name)
            await gates[key.name].wait()
        else:
            turned.append(key.name)
        return Outcome(task=TASK)

    workers = Workers(turn=turn, settle_seconds=0.01)
    keys = [TaskKey("default", name) for name in gates]
    try:
        for key in keys:
            workers.wake(key)
        await until(lambda: len(starting) == 24)
        workers.wake(keys[2], urgent=True)  # while it starts
        for key in keys[:3]:  # three more start, and one waits still
            gates[key.name].set()
        await until(lambda: len(starting) == 27)
        workers.wake(keys[0])
        workers.wake(keys[1], urgent=True)
        await until(lambda: set(turned) == {"task-1", "task-2"})
        await asyncio.sleep(0.1)
        assert set(turned) == {"task-1", "task-2"}, "the others tell later how their pods come up"
        for gate in gates.values():
            gate.set()
        await until(lambda: "task-0" in turned and not workers.active())
    finally:
        await workers.close()


async def test_what_is_urgent_is_looked_at_while_a_task_waits_to_start() -> None:
    gate, suspended, turns = asyncio.Event(), False, list[tuple[str, bool]]()

    async def turn(key: TaskKey, *, may_start: bool) -> Outcome:
        if key.name == "last":
            turns.append((key.name, may_start))
            if suspended:
                return Outcome(task=TASK)
        if not may_start:
            return Outcome(task=TASK, wants_to_start=True)
        await gate.wait()
        return Outcome(task=TASK)

    workers = Workers(turn=turn, settle_seconds=0.01)
    last = TaskKey("default", "last")
    try:
        for number in range(32):
            workers.wake(TaskKey("default", f"task-{number}"))
        await until(lambda: workers.busy_seconds() > 0)
        workers.wake(last)
        await until(lambda: len(turns) == 1)
        workers.wake(last)
        await asyncio.sleep(0.05)
        assert len(turns) == 1, "what is only to be told can wait"
        workers.wake(last, urgent=True)  # one of its pods has died: it is to start as before
        await until(lambda: len(turns) == 2)
        suspended = True
        workers.wake(last, urgent=True)
        await until(lambda: last not in workers.active())
        assert turns == [("last", False)] * 3
        gate.set()
        await until(lambda: not workers.active())
        suspended = False
        workers.wake(last)
        await until(lambda: turns[3:] == [("last", False), ("last", True)] and not workers.active())
    finally:
        await workers.close()


async def test_what_has_more_to_do_goes_on_at_once_but_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GATHERED", 0)
    turns = Turns(*[Outcome(task=TASK, requeue_after=0)] * 5)
    workers = Workers(turn=turns, settle_seconds=600)
    try:
        workers.wake(KEY)
        await until(lambda: turns.count == 2)
        await asyncio.sleep(0.05)
        assert turns.count == 2, "a second turn follows, and then it is the others' time"
    finally:
        await workers.close()


@pytest.mark.parametrize("answer", [Outcome(task=None), ValueError("a bug")], ids=["gone", "a bug"])
async def test_who_is_woken_while_its_worker_ends_gets_another(answer: Outcome | Exception) -> None:
    """As where a task is deleted, and made anew under its name."""
    count = 0

    async def turn(key: TaskKey, *, may_start: bool) -> Outcome:
        nonlocal count
        count += 1
        if count > 1:
            return Outcome(task=None)
        # Comes after the worker's last step, and before anybody is told that it has ended.
        asyncio.get_running_loop().call_soon(workers.wake, key)
        if isinstance(answer, Exception):
            raise answer
        return answer

    workers = Workers(turn=turn, settle_seconds=0.01)
    try:
        workers.wake(KEY)
        await until(lambda: count > 1 and not workers.active())
        assert count == 2
    finally:
        await workers.close()


async def test_a_bug_in_a_turn_costs_that_turn_alone() -> None:
    turns = Turns(ValueError("a bug"))

    async def body(workers: Workers) -> None:
        workers.wake(KEY)
        await until(lambda: not workers.active())
        workers.wake(KEY)
        await until(lambda: turns.count == 2 and not workers.active())

    await with_workers(turns, body)


async def test_a_stuck_turn_is_seen_and_closing_ends_it() -> None:
    turns = Turns(gate=asyncio.Event())

    async def body(workers: Workers) -> None:
        workers.wake(KEY)
        await until(lambda: workers.busy_seconds() > 0.05)

    await with_workers(turns, body)
    assert turns.now == 0


async def test_who_is_closed_is_woken_by_nobody() -> None:
    """Watches tell to the last, and whoever ends waits for each worker that they would wake."""
    turns = Turns()
    workers = Workers(turn=turns, settle_seconds=0.01)
    await workers.close()
    workers.wake(KEY, urgent=True)
    await asyncio.sleep(0.05)
    assert (turns.count, workers.active()) == (0, set())
