"""The two ways in which things go wrong: one learner's fault, which a round survives, and the end of the task.

Keeping them apart as types is what lets the round loop go on without a learner and still never swallow what ends the
task: nothing catches `TaskFailedError` but the program itself.
"""

from __future__ import annotations

import grpc


class TaskFailedError(Exception):
    """The task cannot go on; the verdict says why.

    Parameters
    ----------
    reason
        CamelCase, from a closed set, for machines.
    message
        For people.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class LearnerError(Exception):
    """One learner did not do what it was asked to do.

    Parameters
    ----------
    message
        What happened, for people, without the learner's name.
    code
        The status of the call; None when the call went well and its content did not.
    learner
        Whose fault it is, where the raiser knows.
    """

    def __init__(self, message: str, *, code: grpc.StatusCode | None = None, learner: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.learner = learner


class BudgetSpentError(LearnerError):
    """The learner may not train any more, so that its data's privacy lasts; it still tests and votes."""


class TooFewTrainersError(Exception):
    """So many trainers were left out of a round that the others are not enough; who and why has been told before."""


class SetupRefusedError(LearnerError):
    """The learner will not load this data or build this model; asking again cannot help."""


class NobodyTrainsError(Exception):
    """No learner of the task may train any more; the message says why, learner by learner."""


def storage_failure(doing: str, error: OSError) -> TaskFailedError:
    """Say that the disk did not take what must be kept: what was accepted before stays as it was."""
    where = f" ({error.filename})" if error.filename else ""
    return TaskFailedError("StorageFailed", f"{doing}: {error.strerror or error}{where}")
