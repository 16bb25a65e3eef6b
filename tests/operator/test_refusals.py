"""What the cluster refused: when it is asked for again, and what of it is no refusal at all."""

from __future__ import annotations

from typing import Any, cast

import pytest

from collective_operator.api import parse_task
from collective_operator.cluster.kubernetes import KubernetesCluster
from collective_operator.cluster.memory import Memory
from collective_operator.cluster.protocol import ClusterError
from collective_operator.cluster.refusals import Refusals
from collective_operator.desired.learner_pod import learner_pod

from .world import PLATFORM, manifest

QUOTA = ClusterError(status=403, message="exceeded quota: few")


A, B, C = "digits-learner-0", "digits-learner-1", "digits-coordinator"


def refuse(refusals: Refusals, name: str, *, now: float) -> None:
    refusals.refused(name, f'pods "{name}" is forbidden: exceeded quota: few, used: pods={now:.0f}', now=now)


def test_asked_for_again_less_and_less_often_and_one_at_a_time() -> None:
    refusals, now, asked = Refusals(), 0.0, []
    assert refusals.standing(generation=1, now=now) == ({}, 0)
    for name in (A, B, C):
        refuse(refusals, name, now=now)
    while now < 600:
        standing, seconds = refusals.standing(generation=1, now=now)
        if seconds:
            assert set(standing) == {A, B, C}
            now += seconds
            continue
        assert refusals.standing(generation=1, now=now + 0.1) == (standing, 0), "a turn looks twice"
        (name,) = {A, B, C} - standing.keys()
        asked.append((now, name))
        refuse(refusals, name, now=now)
    assert asked[:7] == [(2, A), (4, B), (8, C), (16, A), (32, B), (64, C), (128, A)]
    assert asked[7:10] == [(248, B), (368, C), (488, A)]
    refusals.made("other")
    assert refusals.standing(generation=1, now=now)[0]
    refusals.made(A)
    assert refusals.standing(generation=1, now=now) == ({}, 0), "there is room: all the others"


def test_one_of_each_cause_and_another_where_nobody_asks() -> None:
    refusals = Refusals()
    refusals.standing(generation=1, now=0)
    for name in (A, B):
        refuse(refusals, name, now=0)
    refusals.refused(C, "a Pod of this name exists and is not this task's", now=0)
    assert set(refusals.standing(generation=1, now=2)[0]) == {B}
    # Somebody else is waited for, or a learner is not wanted any more: the time of the others must come, too.
    assert set(refusals.standing(generation=1, now=4)[0]) == {A}


def test_a_task_that_somebody_changed_is_another_matter() -> None:
    refusals = Refusals()
    refusals.standing(generation=1, now=0)
    refusals.refused("a", "no such priority class", now=0)
    assert refusals.standing(generation=1, now=1)[0] == {"a": "no such priority class"}
    assert refusals.standing(generation=2, now=1) == ({}, 0)


class Server:
    """Answers creates with an error, and gets with another."""

    def __init__(self, error: ClusterError) -> None:
        self.error = error

    async def request(self, method: str, *_: Any, **__: Any) -> Any:
        raise self.error if method == "POST" else ClusterError(status=404, message="not found")


async def create(error: ClusterError) -> tuple[ClusterError, dict[str, str]]:
    """Have a learner's pod created; return what was raised, and what is remembered."""
    memory, task = Memory(), parse_task(manifest())
    nobody = cast("Any", None)
    cluster = KubernetesCluster(api=cast("Any", Server(error)), ask=nobody, memory=memory, keeper=nobody, vigil=nobody)
    with pytest.raises(ClusterError) as raised:
        await cluster.create(learner_pod(task, 0, PLATFORM))
    (record,) = memory._records.values()
    return raised.value, dict(record.refusals._said)


async def test_a_refusal_is_remembered() -> None:
    error, remembered = await create(QUOTA)
    assert error.refused and remembered == {"digits-learner-0": QUOTA.message}


async def test_a_webhook_that_cannot_be_asked_has_refused() -> None:
    words = 'Internal error occurred: failed calling webhook "guard.example.com": connection refused'
    error, remembered = await create(ClusterError(status=500, message=words))
    assert error.refused and remembered == {"digits-learner-0": words}
    error, remembered = await create(ClusterError(status=500, message="etcdserver: leader changed"))
    assert not error.refused and not remembered


async def test_a_conflict_over_something_else_has_made_nothing() -> None:
    words = 'Operation cannot be fulfilled on resourcequotas "few": the object has been modified'
    error, remembered = await create(ClusterError(status=409, message=words))
    assert not error.refused and error.message == words, "it is tried again soon"
    assert not remembered
