"""The pure reconcile, by tables: what it does and says in each situation."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from collective_operator.reconcile import Create, Delete, Update, reconcile

from .world import PLATFORM, World, manifest, progress, running

COORDINATOR = "digits-coordinator"
LEARNERS = {"digits-learner-0", "digits-learner-1"}


def test_accepted_before_any_child_exists() -> None:
    world = World()
    first = world.look()
    assert first.actions == ()
    assert world.condition("Accepted")["status"] == "True"
    assert first.requeue_after == 0
    second = world.look()
    assert [action.manifest["kind"] for action in second.actions] == [
        "Service",
        "ConfigMap",
        "NetworkPolicy",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "Pod",
        "Pod",
        "Pod",
    ]


def test_the_status_links_to_the_dashboard_in_the_write_that_accepts_the_task() -> None:
    world = World()
    world.platform = replace(PLATFORM, grafana_url="https://grafana.example.com/sub/")
    first = world.look()
    link = "https://grafana.example.com/sub/d/collective-task?var-namespace=default&var-task=digits"
    assert first.status is not None
    assert first.status["dashboard"] == link
    world.settle()
    assert world.look().status is None, "nothing is written again"
    world.platform = PLATFORM
    world.settle()
    assert "dashboard" not in world.status


def test_a_learner_that_is_not_ready_is_where_the_coordinator_says() -> None:
    world = World()
    world.settle()
    world.run_all()
    (ready,) = world.pods["digits-learner-1"]["status"]["conditions"]
    ready["status"] = "False"
    world.settle()
    assert world.status["learnerStatuses"][1]["state"] == "Starting"
    for state in ("Connecting", "SettingUp"):
        world.progress = progress("Waiting", 0, learners=[{"name": "learner-1", "state": state}])
        world.settle()
        assert world.status["learnerStatuses"][1]["state"] == state
        assert (world.status["learners"]["ready"], world.status["phase"]) == (1, "Starting")


def test_phases_on_the_way() -> None:
    world = World()
    world.settle()
    assert world.status["phase"] == "Pending"
    world.run("digits-learner-0")
    world.run(COORDINATOR)
    world.progress = progress("Waiting", 0, learners=[{"name": "learner-1", "state": "Connecting"}])
    world.settle()
    assert world.status["phase"] == "Starting"
    assert world.condition("Progressing")["message"] == "the coordinator waits for learners: learner-1"
    world.run_all()
    world.progress = progress(current=0)
    world.settle()
    assert world.status["phase"] == "Running"
    world.progress = progress(
        current=3,
        latest={"round": 3, "testScore": 0.91234567, "voteScore": None, "proposer": "learner-0", "accepted": True},
    )
    world.look(5)
    assert world.status["round"] == {
        "current": 3,
        "total": 20,
        "accepted": 3,
        "summary": "3/20",
        "lastTime": "2026-01-01T00:00:05Z",
    }
    assert world.status["score"] == 0.9123
    world.progress = progress(current=4, latest={"round": 4, "testScore": 0.1, "proposer": "x", "accepted": False})
    world.look(5)
    assert world.status["score"] == 0.9123, "a rejected proposal does not change the score of what is held"


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (
            {
                "phase": "Pending",
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/1 nodes: no GPU",
                    }
                ],
            },
            "Unschedulable",
            "digits-learner-0: Unschedulable: 0/1 nodes: no GPU",
        ),
        (
            {
                "phase": "Pending",
                "containerStatuses": [
                    {"restartCount": 0, "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}
                ],
            },
            "ImageUnavailable",
            "digits-learner-0: ImagePullBackOff: not found",
        ),
        (
            {
                "phase": "Pending",
                "containerStatuses": [
                    {
                        "restartCount": 0,
                        "state": {"waiting": {"reason": "CreateContainerConfigError", "message": "no ConfigMap"}},
                    }
                ],
            },
            "ContainerNotCreated",
            "no ConfigMap",
        ),
        (
            {
                "phase": "Running",
                "containerStatuses": [
                    {
                        "restartCount": 4,
                        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
                        "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
                    }
                ],
            },
            "Crashing",
            "CrashLoopBackOff, OOMKilled, exit code 137",
        ),
        ({"phase": "Failed", "reason": "Evicted", "message": "low on disk"}, "PodLost", "Evicted: low on disk"),
        (
            {"phase": "Running", "conditions": [{"type": "Ready", "status": "False", "reason": "NodeStatusUnknown"}]},
            "PodLost",
            "its node does not answer",
        ),
    ],
)
def test_trouble_in_kubernetes_own_words(status: dict[str, Any], reason: str, words: str) -> None:
    world = running()
    world.pods["digits-learner-0"]["status"] = status
    world.look()
    found = world.condition("LearnersReady")
    assert (found["status"], found["reason"]) == ("False", reason)
    assert words in found["message"]
    assert "back-off" not in found["message"]
    assert ("Warning", reason) in world.told
    told = len(world.told)
    world.look(1)
    assert len(world.told) == told, "once"


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
@pytest.mark.parametrize("name", ["digits-learner-0", COORDINATOR])
def test_a_pod_that_has_ended_is_made_anew_but_not_in_a_tight_loop(name: str, phase: str) -> None:
    world = running()
    old = world.pods[name]["metadata"]["uid"]
    world.pods[name]["status"] = {"phase": phase}
    world.progress = None
    young = world.look(3)
    assert young.actions == () and young.requeue_after is not None and young.requeue_after <= 7
    deleted = world.look(7)
    assert [type(action) for action in deleted.actions] == [Delete]
    made = world.look()
    assert [action.manifest["metadata"]["name"] for action in made.actions] == [name]
    assert isinstance(made.actions[0], Create)
    assert world.pods[name]["metadata"]["uid"] != old


def test_a_pod_that_is_going_is_waited_for() -> None:
    world = running()
    world.pods["digits-learner-0"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert world.look(60).actions == ()
    assert world.condition("LearnersReady")["reason"] == "PodLost"


def test_a_quorum_is_enough() -> None:
    world = running(policy={"minLearners": 1})
    world.wait("digits-learner-1", "ImagePullBackOff")
    world.look()
    found = world.condition("LearnersReady")
    assert (found["status"], found["reason"]) == ("True", "QuorumReady")
    assert world.status["phase"] == "Running"
    assert world.status["learners"] == {"desired": 2, "ready": 1, "failed": 1, "summary": "1/2"}


@pytest.mark.parametrize("by", ["status", "termination message", "last termination message"])
@pytest.mark.parametrize(("phase", "reason"), [("Complete", "Completed"), ("Failed", "SetupRefused")])
def test_a_verdict_ends_the_task(by: str, phase: str, reason: str) -> None:
    world = running()
    formats = [{"name": "safetensors", "file": "model.safetensors"}, {"name": "onnx", "message": "x" * 999}]
    result = {"model": "model.safetensors", "testScore": 0.9, "formats": formats, "location": "s3://m/digits"}
    verdict = progress(phase, 20, reason=reason, message="so it is", result=result)
    if by == "status":
        world.progress = verdict
    else:
        ended = {"terminated": {"exitCode": 0, "message": json.dumps(verdict)}}
        last = by.startswith("last")
        world.progress = None
        world.pods[COORDINATOR]["status"] = {
            "phase": "Running" if last else "Succeeded",
            "containerStatuses": [
                {"restartCount": 0, "state": {"running": {}} if last else ended, "lastState": ended if last else {}}
            ],
        }
    told = world.look(10)
    assert told.actions == () and told.requeue_after == 0, "how it ended is kept before anything of it goes"
    world.settle()
    assert world.status["phase"] == phase
    assert (world.condition(phase)["reason"], world.condition(phase)["message"]) == (reason, "so it is")
    assert world.status["completionTime"] == "2026-01-01T00:00:10Z"
    assert world.status["round"]["summary"] == "20/20"
    told, cut = world.status["result"]["formats"]
    assert told == formats[0] and world.status["result"]["location"] == "s3://m/digits"
    assert (cut["name"], len(cut["message"])) == ("onnx", 512)
    assert set(world.pods) == {COORDINATOR}
    assert world.status["learners"]["ready"] == 0
    before = dict(world.task["status"])
    world.progress = None
    world.look(1000)
    assert world.task["status"] == before
    held = world.pods.get(COORDINATOR, {}).get("status", {}).get("phase")
    assert held in (None, "Succeeded"), "a coordinator that does not leave is deleted"


def test_a_verdict_of_somebody_else_is_none() -> None:
    world = running()
    world.progress = {**progress("Complete", 20), "uid": "another"}
    world.look()
    assert world.status["phase"] == "Running"


@pytest.mark.parametrize(
    "said",
    [
        {},
        [],
        "x",
        3,
        {"phase": "Complete"},
        {"uid": "task-uid", "phase": "Dancing"},
        {"uid": "task-uid", "phase": "Running", "round": {"current": -1}},
        {"uid": "task-uid", "phase": "Running", "learners": 7},
        {"uid": "task-uid", "phase": "Complete", "round": None},
        {"uid": "task-uid", "phase": "Running", "latest": {"round": 1, "testScore": float("nan")}},
    ],
)
def test_nonsense_is_no_progress(said: Any) -> None:
    world = running()
    world.progress = said
    assert world.look().status is None


def test_long_texts_and_lists_are_cut() -> None:
    world = running()
    world.progress = progress(
        current=2,
        latest={"round": 2, "proposer": "p" * 9999, "accepted": True},
        learners=[{"name": f"learner-{index}", "state": "Ready", "message": "m" * 9999} for index in range(9999)],
    )
    world.look()
    assert len(json.dumps(world.status)) < 10_000
    world.progress = progress("Failed", reason="no word!", message="m" * 99999)
    world.look()
    assert world.condition("Failed")["reason"] == "CoordinatorFailed"
    assert len(world.condition("Failed")["message"]) <= 1000


def test_deadlines() -> None:
    world = World(policy={"preRunningDeadlineSeconds": 100})
    world.settle()
    assert world.look(99).requeue_after == 1
    world.spend(1)
    assert world.condition("Failed")["reason"] == "PreRunningDeadlineExceeded"
    assert world.pods == {} and world.look().requeue_after is None

    waiting = World(policy={"preRunningDeadlineSeconds": 100})
    waiting.settle()
    waiting.run_all()
    waiting.progress = progress("Waiting", 0)
    waiting.look(150)
    assert waiting.status["phase"] == "Starting", "the coordinator itself gives up, and says who is missing"
    waiting.look(100)
    assert waiting.status["phase"] == "Failed"

    active = running(policy={"activeDeadlineSeconds": 50})
    active.spend(50)
    assert active.condition("Failed")["reason"] == "ActiveDeadlineExceeded"
    assert active.pods == {}


def test_a_running_task_meets_the_pre_running_deadline_again_when_it_stops_running() -> None:
    world = running(policy={"preRunningDeadlineSeconds": 100})
    world.look(10_000)
    assert world.status["phase"] == "Running"
    world.pods[COORDINATOR]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.progress = None
    world.look()
    assert world.status["phase"] == "Starting"
    world.look(100)
    assert world.status["phase"] == "Failed"


def test_a_coordinator_is_lost_a_few_times_and_progress_forgives() -> None:
    world = running()

    def lose() -> None:
        del world.pods[COORDINATOR]
        world.progress = None
        world.settle()

    for _ in range(5):
        lose()
    assert world.status["coordinator"]["attempts"] == 5
    world.run_all()
    world.progress = progress(current=2)
    world.settle()
    assert world.status["coordinator"]["attempts"] == 0
    for _ in range(5):
        lose()
    assert world.status["phase"] == "Starting"
    lose()
    assert world.condition("Failed")["reason"] == "CoordinatorFailed"
    assert world.pods == {}


def test_restarts_in_place_are_attempts_too() -> None:
    world = running()
    world.run(COORDINATOR, restarts=5)
    world.look()
    assert world.status["coordinator"]["attempts"] == 5
    world.run(COORDINATOR, restarts=6)
    world.look()
    assert world.condition("Failed")["reason"] == "CoordinatorFailed"


def test_one_answer_that_did_not_come_is_no_news() -> None:
    world = running()
    world.progress = None
    assert world.look(5).status is None
    never = World()
    never.settle()
    never.run_all()
    never.look()
    assert never.condition("Progressing")["reason"] == "CoordinatorSilent"
    never.look(100_000)
    assert never.status["phase"] == "Starting", "its rounds may run: it has bounds of its own"


def test_an_invalid_spec() -> None:
    world = World(policy={"minLearners": 9})
    world.look()
    assert world.status["phase"] == "Failed"
    assert world.condition("Accepted")["reason"] == world.condition("Failed")["reason"] == "InvalidSpec"
    assert "spec.policy.minLearners" in world.condition("Accepted")["message"]
    assert world.look(10).status is None
    world.task["spec"]["policy"] = {}
    world.task["metadata"]["generation"] = 2
    world.settle()
    assert len(world.pods) == 3
    assert world.status["observedGeneration"] == 2


def test_a_spec_that_this_operator_is_too_old_for_deletes_nothing() -> None:
    world = running()
    world.task["spec"]["newThing"] = 1
    decision = world.look()
    assert decision.actions == ()
    assert world.condition("Accepted")["status"] == "False"
    assert world.status["phase"] == "Pending"
    assert len(world.pods) == 3
    del world.task["spec"]["newThing"]
    world.settle()
    assert world.status["phase"] == "Running"


def test_what_the_cluster_refuses_is_told_and_tried_again() -> None:
    world = World()
    world.look()
    world.refused = {"digits-learner-1": "exceeded quota: gpus"}
    decision = world.look()
    assert world.condition("LearnersReady")["reason"] == "CreateRefused"
    assert "digits-learner-1: exceeded quota: gpus" in world.condition("LearnersReady")["message"]
    assert world.status["learnerStatuses"][1]["state"] == "CreateRefused"
    assert decision.requeue_after == 2
    world.refused = {}
    world.settle()
    assert "digits-learner-1" in world.pods
    assert ("Warning", "Replaced") not in world.told


@pytest.mark.parametrize("name", ["digits-learner-1", "digits-learners"])
def test_what_the_cluster_has_refused_is_not_asked_for_before_its_time(name: str) -> None:
    world = running()
    del world.pods["digits-learner-1"]
    del world.children["services"]["digits-learners"]
    refused = {name: "exceeded quota", "digits-learners": "exceeded quota"}
    observed = replace(world.observed(), refused=refused, refused_seconds=40)
    decision = reconcile(task=world.task, observed=observed, now=world.now, platform=PLATFORM)
    assert decision.actions == ()
    assert decision.status
    assert decision.status["learnerStatuses"][1]["message"] == "digits-learner-1: exceeded quota"
    assert decision.requeue_after == PLATFORM.poll_seconds
    world.pods["digits-coordinator"]["status"]["phase"] = "Pending"
    observed = replace(observed, pods=world.observed().pods)
    assert reconcile(task=world.task, observed=observed, now=world.now, platform=PLATFORM).requeue_after == 40


def test_a_task_that_goes_is_left_alone() -> None:
    world = running()
    world.task["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.pods.clear()
    decision = world.look()
    assert (decision.actions, decision.status, decision.events, decision.requeue_after) == ((), None, (), None)


def test_events_once_per_transition() -> None:
    world = running()
    for _ in range(5):
        world.look(5)
    assert sorted(world.told) == sorted({*world.told})
    assert {reason for _, reason in world.told} == {"Accepted", "AllReady", "Serving", "RoundsRunning"}


def test_a_task_of_many_learners_stays_small() -> None:
    world = World(learners={"count": 256})
    world.settle()
    assert len(world.pods) == 257
    assert len(json.dumps(world.status)) < 40_000
    assert manifest()["spec"]["learners"]["count"] == 2


def members(*indices: int) -> list[dict[str, Any]]:
    return [{"name": f"learner-{index}", "state": "Ready"} for index in indices]


def test_more_learners_while_it_runs() -> None:
    world = running(learners={"count": 2, "location": "x{index}"})
    uids = {name: pod["metadata"]["uid"] for name, pod in world.pods.items()}
    world.progress = progress(learners=members(0, 1))
    world.settle()
    world.task["spec"]["learners"]["count"] = 4
    decision = world.look()
    assert [(type(action), action.manifest["metadata"]["name"]) for action in decision.actions] == [
        (Update, COORDINATOR),
        (Create, "digits-learner-2"),
        (Create, "digits-learner-3"),
    ]
    told = json.loads(world.children["config_maps"][COORDINATOR]["data"]["coordinator.json"])
    assert [learner["name"] for learner in told["learners"]] == [f"learner-{index}" for index in range(4)]
    assert told["policy"]["minLearners"] == 4
    assert {name: world.pods[name]["metadata"]["uid"] for name in uids} == uids, "nothing that runs is touched"
    assert world.status["phase"] == "Running"
    assert world.status["learners"]["summary"] == "2/4"
    assert ("Normal", "Reconfigured") in world.told and ("Warning", "Replaced") not in world.told
    world.run_all()
    world.settle()
    assert world.look(5).actions == (), "once"
    assert world.status["learners"]["summary"] == "4/4"


def test_fewer_learners_while_it_runs() -> None:
    world = running(learners={"count": 4, "location": "x{index}"})
    world.progress = progress(learners=members(0, 1, 2, 3))
    world.settle()
    world.task["spec"]["learners"]["count"] = 2
    decision = world.look()
    assert [type(action) for action in decision.actions] == [Update]
    assert world.status["learners"]["summary"] == "2/2"
    waiting = world.look(60)
    assert waiting.actions == () and waiting.requeue_after == 5, "the coordinator still works with them"
    world.progress = progress(learners=members(0, 1, 3))
    assert [action.manifest["metadata"]["name"] for action in world.look().actions] == ["digits-learner-2"]
    world.pods["digits-learner-3"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.progress = progress(learners=members(0, 1))
    assert world.look().actions == (), "it goes already"
    del world.pods["digits-learner-3"]
    world.settle()
    assert set(world.pods) == {*LEARNERS, COORDINATOR}
    assert world.status["phase"] == "Running"
    assert not [reason for kind, reason in world.told if kind == "Warning"]


@pytest.mark.parametrize("answers", [True, False])
def test_fewer_learners_before_any_round(answers: bool) -> None:
    world = World(learners={"count": 3, "location": "x"})
    world.settle()
    world.wait("digits-learner-2", "ImagePullBackOff")
    if answers:
        world.run(COORDINATOR)
        world.progress = progress("Waiting", 0, learners=members(0, 1))
    world.settle()
    world.task["spec"]["learners"]["count"] = 2
    world.settle()
    assert set(world.pods) == {*LEARNERS, COORDINATOR}
    assert world.condition("LearnersReady")["reason"] == "Starting"


def test_pods_that_only_look_like_learners_are_left_alone() -> None:
    world = running(learners={"count": 2})
    pods = (("digits-learner-9", "7"), ("other", "9"), ("digits-learner-x", "x"), ("digits-learner-8", None))
    for name, index in pods:
        labels = {} if index is None else {"collectivelearning.dev/learner-index": index}
        world.pods[name] = {"kind": "Pod", "metadata": {"name": name, "uid": name, "labels": labels}, "status": {}}
    assert world.look().actions == ()


def test_the_status_tells_what_a_learners_data_has_spent_of_its_privacy() -> None:
    world = World()
    world.settle()
    for name in ("digits-learner-0", "digits-learner-1", COORDINATOR):
        world.run(name)
    privacy = {"targetEpsilon": 4.0, "consumedEpsilon": 3.98768, "targetDelta": 1e-5, "spent": "its budget is spent"}
    world.progress = progress(
        learners=[
            {"name": "learner-0", "state": "Ready", "privacy": privacy, "message": "its budget is spent"},
            {"name": "learner-1", "state": "Ready"},
        ]
    )
    world.settle()
    spent, other = world.status["learnerStatuses"][:2]
    assert spent["privacy"] == {"targetEpsilon": 4.0, "consumedEpsilon": 3.9877}
    assert spent["message"] == "its budget is spent" and "privacy" not in other
    world.progress = None  # one answer that did not come
    world.settle()
    assert world.status["learnerStatuses"][0]["privacy"] == spent["privacy"]


def test_a_queue_is_waited_in_without_a_warning() -> None:
    world = World()
    world.settle()
    for name in world.pods:
        gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "blocked"}
        world.pods[name]["status"] = {"phase": "Pending", "conditions": [gated]}
    world.settle()
    assert (world.status["phase"], world.status["reason"]) == ("Pending", "SchedulingGated")
    assert world.condition("LearnersReady")["message"].endswith("digits-learner-1: SchedulingGated: blocked")
    assert ("Normal", "SchedulingGated") in world.told
    assert [reason for kind, reason in world.told if kind == "Warning"] == []
