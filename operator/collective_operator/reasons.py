"""The words of a task's conditions and Events: closed sets, so that scripts and alerts can rely on them.

docs/conditions.md tells what each means. A coordinator's verdict brings its own word for how the task ended: those that
are known are passed on.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Type(StrEnum):
    """What a condition is about."""

    ACCEPTED = "Accepted"
    """The spec is valid, and this operator runs it."""
    LEARNERS_READY = "LearnersReady"
    """As many learner pods are ready as a round needs."""
    COORDINATOR_READY = "CoordinatorReady"
    """The coordinator's pod is ready."""
    PROGRESSING = "Progressing"
    """Rounds are being driven now."""
    SUSPENDED = "Suspended"
    """The task stands still, and none of its pods is there."""
    COMPLETE = "Complete"
    """All is done; nothing changes any more."""
    FAILED = "Failed"
    """It is over without success; nothing changes any more."""


class Reason(StrEnum):
    """Why a condition is what it is; also the reasons of Events."""

    ACCEPTED = "Accepted"
    TLS_OFF = "TLSOff"
    """It runs, and whoever reaches its pods can read and change what is learnt."""
    INVALID_SPEC = "InvalidSpec"

    ALL_READY = "AllReady"
    QUORUM_READY = "QuorumReady"
    """Some learners are missing, and the rest is enough."""
    SERVING = "Serving"
    STARTING = "Starting"
    """Nothing is wrong, it takes its time."""
    UNSCHEDULABLE = "Unschedulable"
    """No node takes the pod."""
    SCHEDULING_GATED = "SchedulingGated"
    """The pod waits for its turn: a queue holds it."""
    IMAGE_UNAVAILABLE = "ImageUnavailable"
    CONTAINER_NOT_CREATED = "ContainerNotCreated"
    """The node cannot make the container: a missing volume, Secret or ConfigMap."""
    CRASHING = "Crashing"
    """The program ends when it should not."""
    IMPORT_FAILED = "ImportFailed"
    """A learner's modules cannot be imported: another start cannot help."""
    CODE_MISSING = "CodeMissing"
    """The ConfigMap that spec.learners.codeFrom names is not there."""
    POD_LOST = "PodLost"
    """The pod was evicted, its node is gone, or somebody deleted it."""
    CREATE_REFUSED = "CreateRefused"
    """The API server does not let the child be created: a quota, a policy, a name taken by something else."""
    BACKOFF_EXCEEDED = "BackoffLimitExceeded"
    """It has crashed more often in a row than the task forgives, and is not tried again."""

    ROUNDS_RUNNING = "RoundsRunning"
    EXPORTING_MODEL = "ExportingModel"
    """The rounds are over, and learners write the model in other formats."""
    UPLOADING_RESULT = "UploadingResult"
    """The rounds are over, and nothing is left to be done by learners."""
    WAITING_FOR_LEARNERS = "WaitingForLearners"
    WAITING_FOR_COORDINATOR = "WaitingForCoordinator"
    COORDINATOR_SILENT = "CoordinatorSilent"
    """Its pod is ready, and the operator does not reach it: look for a NetworkPolicy."""

    NOT_SUSPENDED = "NotSuspended"
    SUSPENDING = "Suspending"
    """Its pods are on their way out."""
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    """It stood still, and goes on."""
    TASK_SUSPENDED = "TaskSuspended"
    """Of all else while a task stands still: there is nothing that could be ready."""

    NOT_FINISHED = "NotFinished"
    FINISHED = "Finished"
    COMPLETED = "Completed"
    """The verdict of a coordinator whose own word is not known here."""
    ROUNDS_COMPLETED = "RoundsCompleted"
    TEST_SCORE_REACHED = "TestScoreReached"
    NO_IMPROVEMENT = "NoImprovement"
    PRIVACY_BUDGET_SPENT = "PrivacyBudgetSpent"

    PRE_RUNNING_DEADLINE = "PreRunningDeadlineExceeded"
    ACTIVE_DEADLINE = "ActiveDeadlineExceeded"
    ABORTED = "Aborted"
    """Somebody has ended it."""
    VOLUME_LOST = "VolumeLost"
    """The coordinator's volume is gone, and the rounds that were decided with it."""
    COORDINATOR_FAILED = "CoordinatorFailed"
    """The coordinator crashed or was lost too often, or gave a verdict whose word is not known here."""
    BELOW_QUORUM = "BelowQuorum"
    SETUP_REFUSED = "SetupRefused"
    WEIGHTS_NOT_AVERAGED = "WeightsNotAveraged"
    INVALID_CONFIG = "InvalidConfig"
    STORAGE_FAILED = "StorageFailed"
    UPLOAD_FAILED = "UploadFailed"
    """The place that spec.result.location names takes nothing; what was learnt is on the coordinator's volume."""
    CHECKPOINT_DAMAGED = "CheckpointDamaged"
    STATE_OF_ANOTHER_TASK = "StateOfAnotherTask"

    RECONFIGURED = "Reconfigured"
    """Event only: the coordinator's configuration was written anew while the task runs."""
    CREDENTIALS_RENEWED = "CredentialsRenewed"
    """Event only: certificates were made anew while their pods run."""
    REMOVED = "Removed"
    """Event only: a learner's pod went, because the task has fewer learners now."""
    REPLACED = "Replaced"
    """Event only: a pod that was lost or had ended is made anew."""
    RETRIED = "Retried"
    """Event only: a task that had failed is tried again."""
    EXPIRED = "Expired"
    """Event only: the task is deleted, so long after its end as spec.policy.ttlSecondsAfterFinished says."""


_POD_TROUBLE = frozenset(
    {
        Reason.UNSCHEDULABLE,
        Reason.SCHEDULING_GATED,
        Reason.IMAGE_UNAVAILABLE,
        Reason.CONTAINER_NOT_CREATED,
        Reason.CRASHING,
        Reason.POD_LOST,
        Reason.CREATE_REFUSED,
    }
)
_LEARNER_TROUBLE = _POD_TROUBLE | {Reason.IMPORT_FAILED, Reason.CODE_MISSING, Reason.BACKOFF_EXCEEDED}
_COMPLETE_VERDICTS = frozenset(
    {Reason.ROUNDS_COMPLETED, Reason.TEST_SCORE_REACHED, Reason.NO_IMPROVEMENT, Reason.PRIVACY_BUDGET_SPENT}
)
_FAILED_VERDICTS = frozenset(
    {
        Reason.BELOW_QUORUM,
        Reason.SETUP_REFUSED,
        Reason.WEIGHTS_NOT_AVERAGED,
        Reason.INVALID_CONFIG,
        Reason.STORAGE_FAILED,
        Reason.UPLOAD_FAILED,
        Reason.CHECKPOINT_DAMAGED,
        Reason.STATE_OF_ANOTHER_TASK,
        Reason.PRIVACY_BUDGET_SPENT,
    }
)
JUDGED = frozenset(
    {
        Reason.INVALID_SPEC,
        Reason.PRE_RUNNING_DEADLINE,
        Reason.ACTIVE_DEADLINE,
        Reason.ABORTED,
        Reason.VOLUME_LOST,
        Reason.COORDINATOR_FAILED,
        Reason.IMPORT_FAILED,
        Reason.BACKOFF_EXCEEDED,
    }
)
"""Failures that the operator finds by itself: the coordinator, if there is one, has not spoken and does not leave."""

_OVER = frozenset({Reason.TASK_SUSPENDED, Reason.FINISHED, Reason.INVALID_SPEC})

REASONS: Mapping[Type, frozenset[Reason]] = {
    Type.ACCEPTED: frozenset({Reason.ACCEPTED, Reason.TLS_OFF, Reason.INVALID_SPEC}),
    Type.LEARNERS_READY: _LEARNER_TROUBLE | {Reason.ALL_READY, Reason.QUORUM_READY, Reason.STARTING} | _OVER,
    Type.COORDINATOR_READY: _POD_TROUBLE | {Reason.SERVING, Reason.STARTING} | _OVER,
    Type.PROGRESSING: _OVER
    | {
        Reason.ROUNDS_RUNNING,
        Reason.EXPORTING_MODEL,
        Reason.UPLOADING_RESULT,
        Reason.WAITING_FOR_LEARNERS,
        Reason.WAITING_FOR_COORDINATOR,
        Reason.COORDINATOR_SILENT,
    },
    Type.SUSPENDED: frozenset(
        {Reason.NOT_SUSPENDED, Reason.SUSPENDING, Reason.SUSPENDED, Reason.RESUMED, Reason.FINISHED}
    ),
    Type.COMPLETE: _COMPLETE_VERDICTS | {Reason.COMPLETED, Reason.NOT_FINISHED, Reason.FINISHED},
    Type.FAILED: _FAILED_VERDICTS | JUDGED | {Reason.NOT_FINISHED, Reason.FINISHED},
}
"""All reasons that a condition may have."""

EVENTS = frozenset(
    {
        Reason.RECONFIGURED,
        Reason.CREDENTIALS_RENEWED,
        Reason.REMOVED,
        Reason.REPLACED,
        Reason.RETRIED,
        Reason.EXPIRED,
    }
)
"""Reasons of Events alone; each change of a condition is an Event with the condition's reason."""

TROUBLE = (_LEARNER_TROUBLE | {Reason.INVALID_SPEC, Reason.COORDINATOR_SILENT}) - {Reason.SCHEDULING_GATED}
"""Reasons that somebody should look at."""

QUIET = frozenset(
    {
        Reason.NOT_FINISHED,
        Reason.FINISHED,
        Reason.STARTING,
        Reason.WAITING_FOR_LEARNERS,
        Reason.WAITING_FOR_COORDINATOR,
        Reason.NOT_SUSPENDED,
        Reason.TASK_SUSPENDED,
    }
)
"""Reasons that are no news."""


def reason_of_verdict(word: str, *, complete: bool) -> Reason:
    """Take a coordinator's own word for how its task ended, when it is one of those that are known."""
    known, otherwise = (
        (_COMPLETE_VERDICTS, Reason.COMPLETED) if complete else (_FAILED_VERDICTS, Reason.COORDINATOR_FAILED)
    )
    return next((reason for reason in known if reason == word), otherwise)
