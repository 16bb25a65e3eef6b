"""What to do about the children of a task that goes on: make what is missing, replace what has ended.

And remove what the task no longer has, or no longer tries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from collective_operator import conditions
from collective_operator.cluster.protocol import Manifest, Observed, TaskEvent
from collective_operator.desired import Child, Platform, desired_children, names
from collective_operator.desired.likeness import says
from collective_operator.desired.service import put_right
from collective_operator.pods import Pod
from collective_operator.reasons import Reason, Type
from collective_operator.reconcile.actions import Create, Delete, Step, Update
from collective_operator.reconcile.cleanup import dismiss
from collective_operator.situation import NOT_MADE_YET, Situation

_MISSING_SECONDS = 15
"""How soon it is looked again for what a pod lacks."""


def upkeep(seen: Situation, observed: Observed, platform: Platform) -> Iterator[Step]:
    """Go through the children, in the order of their creation."""
    pods = {pod.name: pod for pod in seen.pods}
    others = {
        "Service": observed.services,
        "ConfigMap": observed.config_maps,
        "PersistentVolumeClaim": observed.volume_claims,
        "NetworkPolicy": observed.network_policies,
    }
    for child in desired_children(seen.task, platform):
        if child.kind != "Pod":
            there = others[child.kind].get(child.name)
            if child.name in observed.refused or _is_put_back(there, observed):
                continue
            if there is None:
                yield from _provide(child, seen)
            elif child.kind == "PersistentVolumeClaim" or says(there, wanted := child.build()):
                continue
            elif child.kind == "ConfigMap":
                yield _reconfigure(there, wanted["data"], seen)
            else:
                spec = put_right(there["spec"], wanted["spec"]) if child.kind == "Service" else wanted["spec"]
                yield Step(actions=(Update({**there, "spec": spec}),))
        elif child.index is not None and seen.learners_done:
            continue
        elif child.index is not None and seen.given_up(child.index):
            yield from _give_up(child.index, seen, observed)
        elif child.name not in pods:
            if _is_refused(child, seen, observed):
                continue
            # A pod that mounts what is not there would hang, and say so nowhere.
            waits = seen.missing_code and child.index is not None
            yield Step(wait=_MISSING_SECONDS) if waits else _make(child, seen)
        elif pods[child.name].ended and not pods[child.name].terminating:
            yield _clear_away(pods[child.name], observed.pods[child.name], child.index, seen)
    yield from _dismissals(seen, observed) if seen.learners_done else _removals(seen, observed)


def _is_refused(child: Child, seen: Situation, observed: Observed) -> bool:
    """Tell whether the cluster is not to be asked for a pod yet, or would have to be asked for what that needs."""
    guard = child.index is not None and names.learners(seen.task.name) in observed.refused
    return guard or child.name in observed.refused


def _is_put_back(there: Manifest | None, observed: Observed) -> bool:
    """Tell whether to write a child again would be in vain."""
    if there is None:
        return False
    version = observed.put_back.get((there["kind"], there["metadata"]["name"]))
    return version is not None and version == there["metadata"].get("resourceVersion")


def _provide(child: Child, seen: Situation) -> Iterator[Step]:
    """Create what pods need; but no second volume for a coordinator whose first one held decided rounds."""
    its_volume = child.kind == "PersistentVolumeClaim" and child.index is None
    if not (its_volume and seen.decided_before):
        yield Step(actions=(Create(child.build()),))


def _reconfigure(there: Manifest, data: Mapping[str, str], seen: Situation) -> Step:
    """Tell the coordinator of learners that join or leave; where there is none, it is no news to anybody."""
    message = f"{there['metadata']['name']}: written anew, for {seen.task.spec.learners.size} learners"
    event = TaskEvent(type="Normal", reason=Reason.RECONFIGURED, message=message)
    told = (event,) if seen.coordinator and there["metadata"]["name"] not in seen.refused else ()
    return Step(actions=(Update({**there, "data": dict(data)}),), events=told)


def _dismissals(seen: Situation, observed: Observed) -> Iterator[Step]:
    """Remove learners that have done all they can; but Kueue waits for others in the place of some that go early."""
    if seen.task.spec.queue_name is None:
        yield from dismiss(seen.task, observed)


def _removals(seen: Situation, observed: Observed) -> Iterator[Step]:
    """Remove learners that the task no longer has, once the coordinator has let go of them.

    It reads its configuration between two rounds, and a kubelet brings that a minute late: a learner that it still
    names takes part.  Where no coordinator answers there is nobody to wait for; one answer that did not come is none.
    """
    if seen.may_answer:
        return
    task = seen.task
    in_use = {learner.name for learner in seen.progress.learners} if seen.progress else set()
    for name, manifest in observed.pods.items():
        index = str((manifest["metadata"].get("labels") or {}).get(names.INDEX_LABEL))
        if not index.isdecimal() or name != names.learner(task.name, int(index)):
            continue
        going = "deletionTimestamp" in manifest["metadata"] or f"{names.LEARNER}-{index}" in in_use
        if int(index) >= task.spec.learners.size and not going:
            message = f"{name}: the task has {task.spec.learners.size} learners now"
            event = TaskEvent(type="Normal", reason=Reason.REMOVED, message=message)
            yield Step(actions=(Delete(manifest),), events=() if name in seen.refused else (event,))


def _give_up(index: int, seen: Situation, observed: Observed) -> Iterator[Step]:
    """Free what a learner holds that is not tried again, and tell why."""
    pod, trouble = seen.learners[index], seen.learner_trouble(index)
    if pod and trouble and not pod.terminating:
        event = TaskEvent(type="Warning", reason=trouble.reason, message=trouble.message)
        yield Step(actions=(Delete(observed.pods[pod.name]),), events=() if pod.name in seen.refused else (event,))


def _make(child: Child, seen: Situation) -> Step:
    """Create a pod, and tell when it is not the first of its name; not of one that is refused, as it is not made."""
    was_refused = False
    if child.index is None:
        last = seen.before.get("coordinator", {})
        known = bool(last.get("uid"))
        ready = conditions.by_type(seen.before).get(Type.COORDINATOR_READY, {})
        was_refused = ready.get("reason") == Reason.CREATE_REFUSED
    else:
        last = seen.learner_before(child.index)
        known = last.get("state") not in NOT_MADE_YET
    if not known or child.name in seen.refused:
        return Step(actions=(Create(child.build(), again=known),))
    # What was wrong with it just before it went is, most often, why; that another was not made at first is not.
    why = "" if was_refused else str(last.get("message", "")).removeprefix(f"{child.name}: ")
    cause = f" ({why})" if why and why != "is being deleted" else ""
    message = f"{child.name} is gone and is created anew{cause}"
    event = TaskEvent(type="Warning", reason=Reason.REPLACED, message=message)
    return Step(actions=(Create(child.build(), again=True),), events=(event,))


def _clear_away(pod: Pod, manifest: Manifest, index: int | None, seen: Situation) -> Step:
    """Remove a pod that has ended; it is created anew when it is gone, and only then that is told.

    Not before its time: a node that refuses pods must not be asked in a tight loop.
    """
    failures = seen.attempts.count + 1 if index is None else seen.failures[index].count
    pause = seen.task.spec.policy.backoff.delay(failures)
    # One that was made long from now tells of a clock that was set, and of no reason to wait for days.
    age = abs((seen.now - pod.created).total_seconds()) if pod.created else pause
    return Step(wait=pause - age) if age < pause else Step(actions=(Delete(manifest),))
