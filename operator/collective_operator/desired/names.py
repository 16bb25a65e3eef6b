"""Names and labels of a task's children.

Names are deterministic: a second create of the same child is a conflict and not a second child, whatever a cache said.
"""

from __future__ import annotations

LEARNER = "learner"
COORDINATOR = "coordinator"

TASK_LABEL = "collectivelearning.dev/task"
INDEX_LABEL = "collectivelearning.dev/learner-index"
SITE_LABEL = "collectivelearning.dev/site"
COMPONENT_LABEL = "app.kubernetes.io/component"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGER = "collective-operator"


def learners(task: str) -> str:
    """Name the headless Service of the learners."""
    return f"{task}-learners"


def learner(task: str, index: int) -> str:
    """Name a learner's pod."""
    return f"{task}-learner-{index}"


def coordinator(task: str) -> str:
    """Name the coordinator's pod, its ConfigMap and its volume claim."""
    return f"{task}-coordinator"


def labels(task: str, component: str) -> dict[str, str]:
    """Label a child of a task; selectors use the task and the component."""
    return {
        "app.kubernetes.io/name": "collective-learning",
        COMPONENT_LABEL: component,
        MANAGED_BY_LABEL: MANAGER,
        TASK_LABEL: task,
    }
