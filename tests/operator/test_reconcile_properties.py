"""The pure reconcile in any situation at all: hypothesis makes the pods, the words and the times."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from collective_operator.reasons import REASONS, Type
from collective_operator.reconcile import Create, Delete

from .specs import examples
from .world import World, progress

CRD = yaml.safe_load((Path(__file__).parents[2] / "crds" / "collectivetask.yaml").read_text())
STATUS = jsonschema.Draft202012Validator(
    CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
)
NAMES = ("digits-learner-0", "digits-learner-1", "digits-coordinator", "digits-learner-7", "strange")

waiting = st.sampled_from(["ContainerCreating", "ImagePullBackOff", "CrashLoopBackOff", "CreateContainerError", "New"])
words = st.one_of(
    st.text(max_size=20), st.sampled_from(["{}", "[]", "null", '{"phase": "Complete"}', '{"phase": "Failed"}'])
)
terminated = st.fixed_dictionaries(
    {},
    optional={
        "exitCode": st.one_of(st.integers(0, 255), st.just(78)),
        "reason": st.sampled_from(["Error", "OOMKilled", "Completed"]),
        "message": words,
    },
)
state = st.one_of(
    st.none(),
    st.just({}),
    st.just({"running": {}}),
    st.builds(lambda reason: {"waiting": {"reason": reason}}, waiting),
    st.builds(lambda end: {"terminated": end}, terminated),
)
pod_status = st.fixed_dictionaries(
    {},
    optional={
        "phase": st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown"]),
        "reason": st.sampled_from(["Evicted", "NodeLost", "Shutdown"]),
        "message": st.sampled_from(["", "why", "long " * 500]),
        "conditions": st.lists(
            st.fixed_dictionaries(
                {
                    "type": st.sampled_from(["Ready", "PodScheduled", "Initialized"]),
                    "status": st.sampled_from(["True", "False"]),
                },
                optional={
                    "reason": st.sampled_from(["Unschedulable", "NodeStatusUnknown"]),
                    "message": st.text(max_size=9),
                },
            )
        ),
        "containerStatuses": st.lists(
            st.fixed_dictionaries({}, optional={"restartCount": st.integers(0, 9), "state": state, "lastState": state}),
            max_size=2,
        ),
    },
)
said = st.one_of(
    st.none(),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
    st.builds(progress, st.sampled_from(["Waiting", "Running", "Complete", "Failed", "?"]), st.integers(0, 20)),
)
step = st.fixed_dictionaries(
    {
        "pods": st.dictionaries(st.sampled_from(NAMES), st.one_of(st.none(), st.just("going"), pod_status)),
        "said": said,
        "after": st.integers(0, 400),
        "refused": st.sets(st.sampled_from(NAMES), max_size=2),
        "absent": st.sampled_from([frozenset(), frozenset({"my-models"})]),
        "suspend": st.booleans(),
        "claim": st.sampled_from(["as it is", "gone", "going", "lost"]),
        "silent": st.integers(0, 100),
        "complaints": st.dictionaries(st.sampled_from(NAMES), st.text(max_size=9), max_size=2),
    }
)
policies = st.fixed_dictionaries(
    {"preRunningDeadlineSeconds": st.just(300)},
    optional={
        "minLearners": st.integers(1, 2),
        "activeDeadlineSeconds": st.integers(1, 2000),
        "ttlSecondsAfterFinished": st.integers(0, 2000),
        "cleanPods": st.sampled_from(["Running", "All", "None"]),
        "backoff": st.builds(lambda limit: {"limit": limit}, st.integers(0, 7)),
    },
)


def disturb(world: World, change: dict[str, Any]) -> None:
    for name, what in change["pods"].items():
        if what is None:
            world.pods.pop(name, None)
        elif what == "going":
            if name in world.pods:
                world.pods[name]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        else:
            pod = world.pods.setdefault(
                name,
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "spec": {},
                    "metadata": {"name": name, "uid": f"own-{name}", "creationTimestamp": "2026-01-01T00:00:00Z"},
                },
            )
            pod["status"] = what
    world.progress = change["said"]
    world.refused = dict.fromkeys(change["refused"], "no")
    world.absent = change["absent"]
    world.task["spec"]["suspend"] = change["suspend"]
    world.silent, world.complaints = change["silent"], change["complaints"]
    claims = world.children["volume_claims"]
    if change["claim"] == "gone":
        claims.clear()
    for claim in claims.values():
        if change["claim"] == "going":
            claim["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        if change["claim"] == "lost":
            claim["status"] = {"phase": "Lost"}


def as_it_ended(status: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is said of pods that outlive their task, as long as they do."""
    found = [
        {**condition, "message": ""} if condition["message"].startswith("still there: ") else condition
        for condition in status.get("conditions", ())
    ]
    return {**status, "conditions": found}


@settings(max_examples=examples(80))
@given(st.lists(step, max_size=6), policies)
def test_whatever_happens(steps: list[dict[str, Any]], policy: dict[str, Any]) -> None:
    world = World(policy=policy)
    for change in steps:
        disturb(world, change)
        before = copy.deepcopy(world.status)
        there = set(world.pods)
        decision = world.look(change["after"])
        STATUS.validate(world.status)
        # Only missing children of known names are created, and no second coordinator ever.
        made = [action.manifest for action in decision.actions if isinstance(action, Create)]
        named = [(child["kind"], child["metadata"]["name"]) for child in made]
        assert len(named) == len(set(named))
        pods = {name for kind, name in named if kind == "Pod"}
        assert pods <= set(NAMES[:3]) - there
        if change["absent"]:
            assert pods <= {"digits-coordinator"}, "a learner would hang"
        # Nothing but pods is ever deleted, and a task in its time.
        deleted = [action.manifest for action in decision.actions if isinstance(action, Delete)]
        assert all(child["kind"] == "Pod" for child in deleted) or world.deleted
        if world.deleted:
            assert before.get("phase") in ("Complete", "Failed") and "ttlSecondsAfterFinished" in policy
            return
        # One that has ended says so before any of its pods goes.
        if world.status["phase"] in ("Complete", "Failed") and as_it_ended(world.status) != as_it_ended(before):
            assert not decision.actions and decision.needs_a_fresh_look
        # What stands still makes nothing, says so only when nothing is there, and then only waits.
        if change["suspend"]:
            assert not pods
        if world.status["phase"] == "Suspended":
            assert not there and not decision.actions
            assert world.status == before or decision.needs_a_fresh_look
            assert decision.requeue_after is None or world.status != before
        conditions = world.status["conditions"]
        assert [found["type"] for found in conditions] == list(Type)
        assert all(found["reason"] in REASONS[Type(found["type"])] for found in conditions)
        assert all(found["observedGeneration"] == 1 for found in conditions)
        # Times move only with the status of a condition.
        old = {found["type"]: found for found in before.get("conditions", ())}
        for found in world.status["conditions"]:
            last = old.get(found["type"])
            if last and last["status"] == found["status"]:
                assert last["lastTransitionTime"] == found["lastTransitionTime"]
        # What has ended stays ended, as it was.
        if before.get("phase") in ("Complete", "Failed"):
            assert as_it_ended(world.status) == as_it_ended(before)
        if world.status["phase"] == "Running":
            assert "digits-coordinator" in world.pods


@settings(max_examples=examples(100))
@given(st.lists(step, min_size=1, max_size=3), policies)
def test_left_alone_it_settles_and_ends(steps: list[dict[str, Any]], policy: dict[str, Any]) -> None:
    world = World(policy=policy)
    for change in steps:
        disturb(world, change)
        world.look(change["after"])
    world.refused, world.progress = {}, None
    stands = world.task["spec"]["suspend"]
    for name in list(world.pods):
        # A kubelet that comes and goes: pods end up gone, ended or pending, none of them ready.
        if (world.pods[name].get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            world.pods[name]["status"] = {"phase": "Pending"}
            world.pods[name]["metadata"].pop("deletionTimestamp", None)
    for _ in range(12):
        decision = world.look(400)
        # And one that does not come back from where it was told to go.
        going = [name for name, pod in world.pods.items() if "deletionTimestamp" in pod["metadata"]]
        if decision.status is None and not decision.actions and not going:
            break
        for name in going:
            del world.pods[name]
    assert world.status["phase"] in ("Complete", "Failed", *(["Suspended"] if stands else []))
    again = world.look(10_000)
    assert again.status is None and (again.actions == () or world.deleted)
    if world.status["phase"] == "Suspended":
        world.task["spec"]["suspend"] = False
        for _ in range(12):
            world.look(400)
        assert world.status["phase"] == "Failed"
