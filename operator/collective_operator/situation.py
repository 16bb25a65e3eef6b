"""One look at a task: its spec, its pods, and what its coordinator says, each already understood.

Everything that decides or reports reads this and not manifests, so that the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Any

from collective_operator import conditions
from collective_operator.api import CollectiveTask
from collective_operator.cluster.protocol import Observed
from collective_operator.desired import names
from collective_operator.failures import Attempts, Failures, coordinator_attempts, learner_failures
from collective_operator.pods import Pod, Trouble, read_pod
from collective_operator.progress import Progress, read_progress, verdict_of
from collective_operator.reasons import Reason, Type

MISSING = "Missing"
"""The state of a learner without a pod, of which nothing is wrong."""
NOT_MADE_YET = frozenset({None, MISSING, Reason.CREATE_REFUSED, Reason.CODE_MISSING, Reason.SUSPENDED})
"""States of a learner whose next pod replaces none."""


SILENT_SECONDS = 60
"""One answer that did not come is no news: the kubelet says that the pod is well, and one that is ready now was asked a
moment ago."""


class Suspension(Enum):
    """How far a task has got with standing still."""

    NONE = auto()
    """It goes on."""
    GOING = auto()
    """It is to stand still, and has pods.  They all go, also when somebody wants it to go on meanwhile."""
    LINGERING = auto()
    """It is to stand still, and what is left of its pods should be gone for long: nobody hears of them.  When it is to
    go on it does, without them."""
    DONE = auto()
    """It stands still."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a task ended."""

    complete: bool
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A task as it is now."""

    task: CollectiveTask
    before: Mapping[str, Any]
    """The status as it stands."""
    pods: tuple[Pod, ...]
    """All of its pods."""
    learners: tuple[Pod | None, ...]
    """By index; None where there is no pod."""
    coordinator: Pod | None
    claim: Mapping[str, Any] | None
    """The claim of the coordinator's volume."""
    progress: Progress | None
    """What the coordinator says now; None when it says nothing."""
    verdict: Progress | None
    """The coordinator's last word, when it has spoken."""
    silent_seconds: float
    """How long the coordinator has not answered."""
    refused: Mapping[str, str]
    """Children that the cluster would not create or renew the keys of, and what it said."""
    suspension: Suspension
    learners_done: bool
    """Nothing is left for learners to do: the coordinator brings the result to its place."""
    failures: tuple[Failures, ...]
    """What is held against each learner, by index."""
    now: datetime
    absent_config_maps: frozenset[str] = frozenset()
    """What spec.learners.codeFrom names and is not there."""
    dashboard: str = ""
    """Where people see it drawn."""

    @property
    def ready_learners(self) -> int:
        """How many learner pods are ready."""
        return sum(pod is not None and pod.ready for pod in self.learners)

    @property
    def may_answer(self) -> bool:
        """Whether the coordinator runs and says nothing, and has not been silent for so long that it means anything."""
        runs = self.coordinator is not None and self.coordinator.running
        return runs and self.progress is None and self.silent_seconds < SILENT_SECONDS

    @property
    def decided_before(self) -> int:
        """How many rounds were decided when the status was written."""
        return int(self.before.get("round", {}).get("current", 0))

    def given_up(self, index: int) -> bool:
        """Tell whether a learner has crashed too often to be tried again."""
        return self.failures[index].count > self.task.spec.policy.backoff.limit

    def learner_before(self, index: int) -> Mapping[str, Any]:
        """Return what the status says of a learner."""
        return last_of(self.before, index)

    def learner_trouble(self, index: int) -> Trouble | None:
        """Tell what is wrong with a learner, or with making its pod."""
        pod = self.learners[index]
        if self.learners_done:
            return None
        if self.given_up(index):
            return self._why_given_up(index)
        if pod and (pod.trouble or pod.running):
            return pod.trouble
        return self.missing_code or (None if pod else self._refused_learner(index))

    @property
    def failed_import(self) -> Trouble | None:
        """Tell whose modules cannot be imported, and why; of several learners, the first."""
        troubles = (pod.trouble for pod in self.learners if pod and not self.learners_done)
        return next((trouble for trouble in troubles if trouble and trouble.reason is Reason.IMPORT_FAILED), None)

    @property
    def missing_code(self) -> Trouble | None:
        """Tell that the ConfigMap with the learners' modules is not there."""
        if not self.absent_config_maps:
            return None
        absent = ", ".join(sorted(self.absent_config_maps))
        return Trouble(
            reason=Reason.CODE_MISSING,
            message=f"there is no ConfigMap {absent}, which spec.learners.codeFrom names",
        )

    @property
    def coordinator_trouble(self) -> Trouble | None:
        """What is wrong with the coordinator, or with making its pod and what that needs."""
        if pod := self.coordinator:
            if pod.trouble or self.verdict or not pod.ended:
                return pod.trouble
            return Trouble(reason=Reason.CRASHING, message=f"{pod.name}: ended without a verdict")
        return self.refusal(names.coordinator(self.task.name)) or self.refusal(names.learners(self.task.name))

    @property
    def attempts(self) -> Attempts:
        """What is held against the coordinator."""
        if self.suspension is not Suspension.NONE:
            return Attempts()
        return coordinator_attempts(
            self.before.get("coordinator", {}),
            self.coordinator,
            trouble=self.coordinator_trouble,
            wanted=conditions.is_true(self.before, Type.ACCEPTED) and self._has_had_pods,
            progressed=self.progress is not None and self.progress.round.current > self.decided_before,
        )

    @property
    def _has_had_pods(self) -> bool:
        """Whether a pod of the task is, or was, seen.

        That its first ones are asked for is not written down: that would be one status more for each task, and should
        all of them be lost before any is seen, again and again, the time to begin in runs out.
        """
        told = self.before.get("learnerStatuses", ())
        return bool(
            self.pods
            or self.before.get("coordinator", {}).get("uid")
            or any(each["state"] not in NOT_MADE_YET for each in told)
        )

    @property
    def refused_guard(self) -> Trouble | None:
        """Tell what the cluster said of what all learners have in common: their Service, their NetworkPolicy."""
        return self.refusal(names.learners(self.task.name))

    def _refused_learner(self, index: int) -> Trouble | None:
        """Tell why the cluster would not create a learner: itself, or what it cannot do without."""
        name, guard = names.learner(self.task.name, index), names.learners(self.task.name)
        if name not in self.refused and guard in self.refused:
            return Trouble(reason=Reason.CREATE_REFUSED, message=f"{name}: {self.refused[guard]}")
        return self.refusal(name)

    @property
    def kept(self) -> list[Trouble]:
        """Tell what the cluster said of learners that are to go, and that it does not let go."""
        stay = {pod.name for pod in (self.coordinator, *(() if self.learners_done else self.learners)) if pod}
        return [refusal for pod in self.pods if pod.name not in stay and (refusal := self.refusal(pod.name))]

    def refusal(self, name: str) -> Trouble | None:
        """Tell what the cluster said when it would not create this child."""
        if name not in self.refused:
            return None
        return Trouble(reason=Reason.CREATE_REFUSED, message=f"{name}: {self.refused[name]}")

    def _why_given_up(self, index: int) -> Trouble:
        """Tell why, in the words of when it was: its pod, and what was wrong with it, are gone by now."""
        last, pod, name = self.learner_before(index), self.learners[index], names.learner(self.task.name, index)
        message = str(last.get("message", ""))
        if last.get("state") != Reason.BACKOFF_EXCEEDED:
            told = (pod.trouble.message if pod.trouble else pod.last_end) if pod else ""
            cause = told or message or "its container restarted"
            count = self.failures[index].count
            message = f"{name}: given up after crash {count} in a row; last: {cause.removeprefix(f'{name}: ')}"
        return Trouble(reason=Reason.BACKOFF_EXCEEDED, message=message)


def last_of(status: Mapping[str, Any], index: int) -> Mapping[str, Any]:
    """Return what a status says of a learner."""
    told = status.get("learnerStatuses", ())
    return told[index] if index < len(told) else {}


def look(
    *,
    task: CollectiveTask,
    before: Mapping[str, Any],
    observed: Observed,
    refused: Mapping[str, str],
    now: datetime,
    dashboard: str = "",
) -> Situation:
    """Understand what was observed."""
    pods = {
        name: read_pod(manifest, complaint=observed.complaints.get(name)) for name, manifest in observed.pods.items()
    }
    coordinator = pods.get(names.coordinator(task.name))
    said = read_progress(observed.progress, uid=task.uid) if coordinator else None
    verdict = said if said and said.is_verdict else verdict_of(coordinator)
    progress = verdict or (said if coordinator and coordinator.running else None)
    learners = tuple(pods.get(names.learner(task.name, index)) for index in range(task.spec.learners.size))
    suspension = _suspension(task, before, pods.values(), now)
    learners_done = suspension is Suspension.NONE and _are_learners_done(before, progress)
    counts = suspension is Suspension.NONE and not learners_done
    decided = progress.round.current if progress else before.get("round", {}).get("current", 0)
    return Situation(
        task=task,
        before=before,
        pods=tuple(pods.values()),
        learners=learners,
        coordinator=coordinator,
        claim=observed.volume_claims.get(names.coordinator(task.name)),
        progress=progress,
        verdict=verdict,
        silent_seconds=observed.silent_seconds,
        refused={**observed.unsecured, **observed.refused, **refused},
        suspension=suspension,
        learners_done=learners_done,
        failures=tuple(
            learner_failures(last_of(before, index), pod, decided=decided) if counts else Failures()
            for index, pod in enumerate(learners)
        ),
        now=now,
        absent_config_maps=observed.absent_config_maps,
        dashboard=dashboard,
    )


def _suspension(task: CollectiveTask, before: Mapping[str, Any], pods: Collection[Pod], now: datetime) -> Suspension:
    last = conditions.by_type(before).get(Type.SUSPENDED, {})
    going = last.get("reason") == Reason.SUSPENDING
    if not (task.spec.suspend or going):
        return Suspension.NONE
    if not pods:
        return Suspension.DONE
    if not all(pod.is_overdue(now) for pod in pods):
        return Suspension.GOING
    # That it stood still as far as it could is told before it goes on: its time to begin counts from then.
    goes_on = not task.spec.suspend and last.get("status") == "Unknown"
    return Suspension.NONE if goes_on else Suspension.LINGERING


def _are_learners_done(before: Mapping[str, Any], progress: Progress | None) -> bool:
    """Tell whether learners have done all that they can do.

    A coordinator that dies then finds that out again when it is back; until then they are not called back.
    """
    starting = progress and progress.phase == "Waiting" and progress.reason != Reason.WAITING_FOR_LEARNERS
    if progress and not progress.is_verdict and not starting:
        return progress.reason == Reason.UPLOADING_RESULT
    return conditions.by_type(before).get(Type.LEARNERS_READY, {}).get("reason") == Reason.FINISHED
