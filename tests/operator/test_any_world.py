"""The operator in any world: its own turns, on an API server that others change before and during each of them.

Strangers' objects under its names, children half deleted, unlabelled or lost, quotas, watches that skip and lag, clocks
that jump, a spec that is edited, a task that is another one of the same name, an operator that begins anew.  Whatever
comes, nothing that is not the task's is touched, nothing that has ended goes on, what stands still has no pods; and
once the world is calm the task comes to its end, or stands still, and the operator to rest.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from collective_operator.cluster.protocol import Manifest

from .any_world import COORDINATOR, World, has_ended
from .model_server import TASK
from .specs import TIMES, anything, broken, examples, statuses, texts, valid_spec
from .test_reconcile_properties import pod_status, policies
from .virtual_time import VirtualLoop, on_virtual_time
from .world import manifest, progress

PODS = (COORDINATOR, "digits-learner-0", "digits-learner-1", "digits-learner-7", "digits-strange")
CHILDREN = (
    *(("Pod", name) for name in PODS),
    ("Service", "digits-learners"),
    ("ConfigMap", COORDINATOR),
    ("NetworkPolicy", COORDINATOR),
    ("NetworkPolicy", "digits-learners"),
    ("PersistentVolumeClaim", COORDINATOR),
    ("Secret", "digits-ca"),
    ("Secret", "digits-learner-0-tls"),
    ("Secret", "digits-coordinator-tls"),
)
OWNERS = ("nobody", "another", "the task")
CALM_TURNS = 60

child = st.sampled_from(CHILDREN)
pod = st.sampled_from(PODS)
secret = st.sampled_from([child for child in CHILDREN if child[0] == "Secret"])
during = st.one_of(
    st.tuples(st.just("pod_is"), pod, pod_status),
    st.tuples(st.just("is_lost"), child),
    st.tuples(st.just("is_going"), child),
    st.tuples(st.just("is_edited"), st.sampled_from(["suspend", "resume", "more", "fewer"])),
    st.tuples(st.just("is_another")),
    st.tuples(st.just("is_aborted"), st.sampled_from(["", "enough"])),
    st.tuples(st.just("is_retried")),
    st.tuples(st.just("is_taken"), child, st.sampled_from(OWNERS[:2]), st.booleans()),
)
"""What others may do while a turn goes on."""
word = st.sampled_from(["", "Starting", "WaitingForLearners", "ExportingModel", "UploadingResult"])
spoken = st.builds(
    lambda phase, score, uid: progress(
        phase,
        uid=uid,
        latest={"round": 1, "testScore": score, "voteScore": score, "proposer": "learner-0", "accepted": True},
        learners=[{"name": "learner-0", "state": "Ready", "lastScore": score, "privacy": {"targetEpsilon": score}}],
        result={"model": "m", "formats": [{"name": "onnx", "message": "no"}], "testScore": score, "rounds": 1},
    ),
    st.sampled_from(["Waiting", "Running", "Complete", "Failed"]),
    st.floats(),
    st.sampled_from(["task-uid", "task-uid+", "another"]),
)
answers = (
    st.none()
    | st.dictionaries(texts, anything, max_size=3)
    | broken(spoken).filter(lambda said: isinstance(said, dict))
)
before = st.one_of(
    during,
    st.tuples(st.just("kubelet")),
    st.tuples(st.just("kubelet")),
    st.tuples(st.just("is_taken"), child, st.sampled_from(OWNERS), st.booleans()),
    st.tuples(st.just("loses_its_labels"), child),
    st.tuples(
        st.just("is_damaged"),
        secret,
        st.sampled_from(["tls.crt", "tls.key", "ca.crt"]),
        st.integers(0, 2000) | st.just(12),
    ),
    st.tuples(st.just("is_told_of"), statuses),
    st.tuples(st.just("is_dated"), child, st.sampled_from(TIMES)),
    st.tuples(st.just("is_refused"), st.frozensets(st.sampled_from([name for _, name in CHILDREN]), max_size=3)),
    st.tuples(st.just("clock_jumps"), st.sampled_from([-90_000, -40, 40, 90_000])),
    st.tuples(st.just("time_passes"), st.sampled_from([1, 20, 1000])),
    st.tuples(st.just("watches_tell"), st.lists(st.booleans(), max_size=8), st.booleans()),
    st.tuples(st.just("all_is_listed")),
    st.tuples(st.just("begins_anew")),
    st.tuples(st.just("says"), st.sampled_from(["Waiting", "Running", "Complete", "Failed"]), word, st.integers(0, 20)),
    st.tuples(st.just("says_whatever"), answers),
)
turn = st.tuples(st.lists(before, max_size=3), st.none() | st.tuples(st.integers(1, 12), during))
stories = st.builds(
    lambda usual, unusual: usual + unusual,
    # That it starts, as tasks do, or gets some of the way.
    st.sampled_from([[([("kubelet",)], None)] * turns for turns in (0, 3, 5)]),
    st.lists(turn, max_size=8),
)
small_spec = st.builds(
    lambda count, policy: manifest(learners={"count": count}, policy={**policy, "minLearners": 1})["spec"],
    st.integers(1, 3),
    policies,
)


@settings(max_examples=examples(30))
@given(spec=small_spec | small_spec | valid_spec, story=stories)
def test_whatever_happens_to_a_cluster(spec: Manifest, story: list[Any]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        world = World(spec, loop)
        for happenings, meanwhile in story:
            for what in happenings:
                if what[0] == "all_is_listed":
                    await world.cluster.refresh(None)
                else:
                    world.happens(what)
            if meanwhile:
                _disturb(world, *meanwhile)
            await world.turn()
            world.server.before_each = lambda: None
        await _comes_to_rest(world)

    on_virtual_time(main)


def _disturb(world: World, position: int, what: Sequence[Any]) -> None:
    """Have something happen just before the request of this number."""
    count = 0

    def before_each() -> None:
        nonlocal count
        count += 1
        if count == position:
            world.happens(what)

    world.server.before_each = before_each


async def _comes_to_rest(world: World) -> None:
    world.is_calmed()
    began = world.server.now
    world.watches_tell((), backwards=False)
    await world.cluster.refresh(None)
    for _ in range(CALM_TURNS):
        world.watches_tell((), backwards=False)
        written = len(world.server.written)
        outcome = await world.turn()
        objects = dict(world.server.objects)
        world.kubelet()
        if outcome and world.server.objects == objects and len(world.server.written) == written and _rests(world):
            break
        world.time_passes(min((outcome.requeue_after if outcome else None) or 1, 3600))
    phase = world._status().get("phase")
    told = json.dumps(world._status(), indent=1)
    assert _rests(world), f"{phase}: {told}"
    assert world.server.now - began < timedelta(hours=6)
    for _ in range(2):
        written = len(world.server.written)
        world.time_passes(1)
        await world.turn()
        # But for the task itself, whose time may have come.
        assert set(world.server.written[written:]) <= {f"delete {TASK}/digits"}


def _rests(world: World) -> bool:
    task = world.server.task
    return task is None or has_ended(world._status()) or world._status().get("phase") == "Suspended"


def test_a_child_without_its_label_is_told_of_and_not_made_again_and_again() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        world = World(manifest()["spec"], loop)
        for _ in range(3):
            await world.turn()
            world.kubelet()
        world.loses_its_labels(("Pod", COORDINATOR))
        world.said = None
        for _ in range(9):
            world.watches_tell((), backwards=False)
            await world.cluster.refresh(None)
            await world.turn()
        found = world.condition("CoordinatorReady")
        assert found["reason"] == "CreateRefused"
        assert "has lost its label collectivelearning.dev/task=digits: put it back, or delete it" in found["message"]
        assert world._status()["coordinator"]["attempts"] == 0, "it is not lost"
        assert COORDINATOR in world.server.owned("Pod")

    on_virtual_time(main)


def test_a_key_that_cannot_be_renewed_is_told_steadily_and_not_asked_for_all_the_time() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        world, asked = World(manifest()["spec"], loop), []

        async def a_while(seconds: float) -> None:
            """Have turns every five seconds, as a task has that runs."""
            for _ in range(int(seconds / 5)):
                world.time_passes(5)
                world.watches_tell((), backwards=False)
                await world.turn()

        for _ in range(4):
            await world.turn()
            world.kubelet()
        await a_while(20)
        secret = ("Secret", "digits-learner-1-tls")
        world.server.remove(*secret)
        world.is_taken(secret, "nobody", labelled=True)
        await a_while(120)
        told = (
            "2 of 2 ready; digits-learner-1: digits-learner-1-tls: a Secret of this name exists and is not this task's"
        )
        assert world.condition("LearnersReady")["message"] == told
        world.server.before_each = lambda: asked.append(1)
        written = len(world.server.written)
        await a_while(300)
        assert len(world.server.written) == written
        assert world.condition("LearnersReady")["message"] == told
        assert len(asked) <= 5 * 14, "a look at all of its children, and at three Secrets, once a minute"
        world.server.remove(*secret)
        await a_while(120)
        assert world.condition("LearnersReady")["message"] == "2 of 2 ready"

    on_virtual_time(main)


def test_a_pod_that_has_no_key_yet_is_asked_for_again_soon() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        world = World(manifest()["spec"], loop)
        world.is_taken(("Secret", "digits-learner-1-tls"), "nobody", labelled=True)
        for _ in range(4):
            outcome = await world.turn()
            assert outcome and outcome.requeue_after is not None and outcome.requeue_after <= 5
            world.time_passes(outcome.requeue_after)
        assert "not this task's" in world.condition("LearnersReady")["message"]
        assert ("Pod", "digits-learner-1") not in world.server.objects

    on_virtual_time(main)
