"""What happens when the operator, a pod, or the task itself goes away."""

from __future__ import annotations

import time
from functools import partial
from urllib.parse import parse_qs, urlsplit

from .control_plane import eventually
from .playground import Coordinator, Namespace, Operator, manifest
from .test_life import start

KINDS = ("collectivetasks", "pods", "services", "configmaps", "persistentvolumeclaims", "networkpolicies")


def uids(namespace: Namespace) -> dict[str, str]:
    return {name: pod["metadata"]["uid"] for name, pod in namespace.pods().items()}


def running(namespace: Namespace, coordinator: Coordinator, **spec: object) -> None:
    start(namespace, coordinator, **spec)
    coordinator.say(phase="Running", round={"current": 1, "total": 20, "accepted": 1})
    eventually(lambda: namespace.status()["phase"] == "Running")


def test_a_killed_operator_carries_on(namespace: Namespace, operator: Operator, coordinator: Coordinator) -> None:
    running(namespace, coordinator)
    before = uids(namespace)
    operator.kill()
    coordinator.say(round={"current": 9, "total": 20, "accepted": 4})
    namespace.plane.request("DELETE", f"{namespace.core}/pods/digits-learner-1")
    operator.start()
    eventually(lambda: namespace.status()["round"]["summary"] == "9/20")
    eventually(lambda: len(namespace.pods()) == 3)
    after = uids(namespace)
    assert after["digits-learner-0"] == before["digits-learner-0"]
    assert after["digits-coordinator"] == before["digits-coordinator"]
    assert after["digits-learner-1"] != before["digits-learner-1"]


def test_killed_between_any_two_steps_it_still_gets_there(namespace: Namespace, operator: Operator) -> None:
    operator.stop()
    namespace.apply(manifest())
    for moment in (0.0, 0.2):
        operator.start()
        time.sleep(moment)
        operator.kill()
    operator.start()
    namespace.await_pods(3)
    assert len(namespace.all_children()) == 12


def test_a_lost_learner_comes_back(namespace: Namespace, operator: Operator, coordinator: Coordinator) -> None:
    running(namespace, coordinator)
    before = uids(namespace)
    namespace.plane.request("DELETE", f"{namespace.core}/pods/digits-learner-0")
    namespace.await_another("digits-learner-0", before["digits-learner-0"])
    assert namespace.status()["phase"] == "Running"
    assert uids(namespace)["digits-coordinator"] == before["digits-coordinator"]
    eventually(lambda: ("Warning", "Replaced", "digits-learner-0 is gone and is created anew") in namespace.events())
    # An evicted one is removed first, once it is old enough not to be made in a tight loop.
    namespace.set_pod("digits-learner-1", {"phase": "Failed", "reason": "Evicted", "message": "low on memory"})
    namespace.await_another("digits-learner-1", before["digits-learner-1"])
    again = "digits-learner-1 is gone and is created anew (Evicted: low on memory)"
    eventually(lambda: ("Warning", "Replaced", again) in namespace.events())
    assert [reason for _, reason, _ in namespace.events()].count("Replaced") == 2, "each is told once"


def test_a_lost_coordinator_comes_back_but_not_for_ever(
    namespace: Namespace, operator: Operator, coordinator: Coordinator
) -> None:
    running(namespace, coordinator)
    for _ in range(6):
        uid = uids(namespace)["digits-coordinator"]
        namespace.plane.request("DELETE", f"{namespace.core}/pods/digits-coordinator")
        eventually(
            lambda uid=uid: (
                uids(namespace).get("digits-coordinator", uid) != uid or namespace.status()["phase"] == "Failed"
            )
        )
        eventually(lambda: namespace.status()["phase"] != "Running", what="not Running with nothing running")
    eventually(lambda: namespace.status()["phase"] == "Failed")
    failed = namespace.condition("Failed")
    assert failed["reason"] == "CoordinatorFailed"
    assert "6 times without deciding a round" in failed["message"]
    eventually(lambda: namespace.pods() == {}, what="nothing holds a node")


def test_a_crashing_coordinator_ends_the_task(
    namespace: Namespace, operator: Operator, coordinator: Coordinator
) -> None:
    running(namespace, coordinator)
    namespace.stick_pod("digits-coordinator", "CrashLoopBackOff", restarts=3, code=1)
    eventually(lambda: namespace.condition("CoordinatorReady")["reason"] == "Crashing")
    eventually(lambda: namespace.status()["phase"] == "Starting")
    namespace.stick_pod("digits-coordinator", "CrashLoopBackOff", restarts=7, code=1)
    eventually(lambda: namespace.status()["phase"] == "Failed")
    assert "CrashLoopBackOff, Error, exit code 1" in namespace.condition("Failed")["message"]


def test_deleting_a_task_needs_no_operator(namespace: Namespace, operator: Operator) -> None:
    namespace.apply(manifest())
    eventually(lambda: len(namespace.all_children()) == 12)
    operator.kill()
    namespace.plane.kubectl("-n", namespace.name, "delete", "ctask", "digits", "--timeout=50s")
    eventually(lambda: namespace.all_children() == [], timeout=60)
    operator.start()
    eventually(lambda: f'namespace="{namespace.name}"' not in operator.read("/metrics"))


def test_a_steady_state_writes_nothing(namespace: Namespace, operator: Operator, coordinator: Coordinator) -> None:
    running(namespace, coordinator)
    eventually(lambda: namespace.condition("LearnersReady")["reason"] == "AllReady")

    def is_steady() -> bool:
        begin, asked = namespace.plane.audited(), coordinator.asked
        eventually(lambda: coordinator.asked >= asked + 3, what="three turns")
        return not namespace.plane.requests_of("collective-operator (", begin=begin)

    eventually(is_steady)
    version = namespace.task()["metadata"]["resourceVersion"]
    begin, asked = namespace.plane.audited(), coordinator.asked
    # What a coordinator says may change in ways that are no news.
    for turn in range(4):
        eventually(lambda asked=asked, turn=turn: coordinator.asked >= asked + 2 * turn)
        coordinator.say(learners=[{"name": "learner-0", "state": ("Training", "Testing")[turn % 2], "lastScore": None}])
    coordinator.said = b"{" * 100_000
    eventually(lambda: coordinator.asked >= asked + 10)
    # Nothing is even read, but for the listing of everything that comes now and then. (Tasks of tests before this one
    # may be going just now, in namespaces of their own.)
    requests_of = partial(namespace.plane.requests_of, "collective-operator (", begin=begin)
    assert requests_of(namespace=namespace.name) == []
    watches = {f"watch {kind}" for kind in KINDS}
    sent = [one for one in requests_of(namespace="") if one not in watches]
    in_turn = [f"list {kind}" for kind in KINDS]  # it may have been at it before, and be at it just now
    first = in_turn.index(sent[0]) if sent else 0
    assert sent == (in_turn * 2)[first : first + len(sent)]
    assert set(namespace.plane.requests_of("kopf/", begin=begin)) <= watches
    assert namespace.task()["metadata"]["resourceVersion"] == version
    assert namespace.status()["phase"] == "Running"


def test_two_tasks_and_a_stranger_keep_to_themselves(
    namespace: Namespace, operator: Operator, coordinator: Coordinator
) -> None:
    stranger = {
        "metadata": {"name": "one-learner-0", "labels": {"collectivelearning.dev/task": "one"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    namespace.plane.request("POST", f"{namespace.core}/pods", stranger)
    theirs = uids(namespace)["one-learner-0"]
    namespace.apply(manifest("one"))
    with Coordinator(uid="").serving() as other:
        start(namespace, other, "two")
        other.say(phase="Complete", reason="Completed", message="done")
        eventually(lambda: namespace.status("two")["phase"] == "Complete")
    found = namespace.await_reason("LearnersReady", "CreateRefused", "one")
    assert "is not this task's" in found["message"]
    assert namespace.status("one")["phase"] == "Pending"
    assert uids(namespace)["one-learner-0"] == theirs
    namespace.plane.request("DELETE", f"{namespace.core}/pods/one-learner-0")
    namespace.await_another("one-learner-0", theirs)


def test_a_new_task_of_an_old_name_starts_from_nothing(
    namespace: Namespace, operator: Operator, coordinator: Coordinator
) -> None:
    running(namespace, coordinator)
    namespace.plane.kubectl("-n", namespace.name, "delete", "ctask", "digits", "--wait=false")
    eventually(lambda: not namespace.plane.get(f"{namespace.tasks}/digits"))
    namespace.apply(manifest())
    uid = namespace.task()["metadata"]["uid"]
    eventually(
        lambda: (
            len(namespace.pods()) == 3
            and all(pod["metadata"]["ownerReferences"][0]["uid"] == uid for pod in namespace.pods().values())
        ),
        timeout=60,
    )
    assert namespace.status()["round"]["current"] == 0


def test_a_sigterm_ends_it_at_once_and_cleanly(
    namespace: Namespace, operator: Operator, coordinator: Coordinator
) -> None:
    running(namespace, coordinator)
    before = len(operator.log.read_text())
    operator.process.terminate()
    assert operator.process.wait(60) == 0
    assert "Traceback" not in operator.log.read_text()[before:]
    assert len(namespace.pods()) == 3


def test_metrics_speak_of_the_task(namespace: Namespace, operator: Operator, coordinator: Coordinator) -> None:
    running(namespace, coordinator)
    mine = f'name="digits",namespace="{namespace.name}"'
    series = (
        f"collective_task_round{{{mine}}} 1.0",
        f"collective_task_rounds_planned{{{mine}}} 20.0",
        f'collective_task_learners{{{mine},state="ready"}} 2.0',
        f'collective_task_condition{{{mine},reason="RoundsRunning",status="True",type="Progressing"}} 1.0',
        f'collective_task_phase{{{mine},phase="Running"}} 1.0',
        f"collective_task_round_timeout_seconds{{{mine}}} 600.0",
        f'collective_task_learner_states{{{mine},state="Ready"}} 2.0',
        f"collective_task_coordinator_attempts{{{mine}}} 0.0",
        'collective_reconcile_total{result="success"}',
        "collective_task_last_round_timestamp_seconds{",
    )

    def all_told() -> bool:
        text = operator.read("/metrics")
        assert [one for one in series if one not in text] == []
        return True

    eventually(all_told, what="metrics, which follow the status")
    namespace.plane.kubectl("-n", namespace.name, "delete", "ctask", "digits")
    eventually(lambda: mine not in operator.read("/metrics"), what="a task that is gone leaves no series")


def test_a_start_asks_for_nothing_that_it_knows(namespace: Namespace, operator: Operator) -> None:
    begin = namespace.plane.audited()
    namespace.apply(manifest())
    namespace.await_pods(3)
    eventually(lambda: [reason for _, reason, _ in namespace.events()].count("Accepted") == 1)

    def asked() -> list[str]:
        return namespace.plane.requests_of("collective-operator (", begin=begin, namespace=namespace.name)

    created = {
        "pods": 3,
        "secrets": 4,
        "services": 1,
        "configmaps": 1,
        "persistentvolumeclaims": 1,
        "networkpolicies": 2,
    }
    # The audit log has a request when it has been answered, a moment after what it made is there.
    eventually(lambda: {kind: asked().count(f"create {kind}") for kind in created} == created)
    rest = [request for request in asked() if request not in {f"create {kind}" for kind in created}]
    known = {"update collectivetasks", "create events", "get collectivetasks"}
    assert set(rest) <= known, "nothing is listed, and no Secret is looked for"
    assert rest[0] == asked()[0] == "update collectivetasks", "it is accepted first"


def test_watches_are_filtered_and_listings_paged(namespace: Namespace, operator: Operator) -> None:
    def asked() -> dict[tuple[str, str], set[str]]:
        found: dict[tuple[str, str], set[str]] = {}
        for line in namespace.plane.events():
            url = urlsplit(line["requestURI"])
            agent, resource = line.get("userAgent", ""), line.get("objectRef", {}).get("resource", "")
            # A task's own children are a few hundred at most, and listed by its name.
            if (
                agent.startswith(("kopf/", "collective-operator ("))
                and resource in KINDS
                and "/namespaces/" not in url.path
            ):
                found.setdefault((line["verb"], resource), set()).add(url.query)
        return found

    every = {(verb, kind) for verb in ("list", "watch") for kind in KINDS}
    eventually(lambda: asked().keys() >= every, what="that an operator which began just now lists and follows all")
    assert asked().keys() == every
    for (verb, resource), queries in asked().items():
        for query in map(parse_qs, queries):
            assert verb == "watch" or query["limit"] == ["500"]
            assert resource == KINDS[0] or query["labelSelector"] == ["collectivelearning.dev/task"]
