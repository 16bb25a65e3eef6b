"""CollectiveTask as typed, frozen objects: what the rest of the operator works with, instead of nested dicts."""

from collective_operator.api.parse import Problem, TaskInvalid, parse_task
from collective_operator.api.task import (
    API_VERSION,
    GROUP,
    KIND,
    PLURAL,
    VERSION,
    CollectiveTask,
    CollectiveTaskSpec,
    is_managed_elsewhere,
)

__all__ = [
    "API_VERSION",
    "GROUP",
    "KIND",
    "PLURAL",
    "VERSION",
    "CollectiveTask",
    "CollectiveTaskSpec",
    "Problem",
    "TaskInvalid",
    "is_managed_elsewhere",
    "parse_task",
]
