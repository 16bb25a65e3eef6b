"""Names and labels of a task's children.

Names are deterministic: a second create of the same child is a conflict and not a second child, whatever a cache said.
"""

from __future__ import annotations

LEARNER = "learner"
COORDINATOR = "coordinator"
AUTHORITY = "authority"

TASK_LABEL = "collectivelearning.dev/task"
INDEX_LABEL = "collectivelearning.dev/learner-index"
SITE_LABEL = "collectivelearning.dev/site"
TLS_LABEL = "collectivelearning.dev/tls"
"""On a pod that has a key; its value is that of spec.tls.mode."""
IMAGE_ANNOTATION = "collectivelearning.dev/coordinator-image"
"""On the coordinator's ConfigMap, which outlives its pod: what can read its volume."""
COMPONENT_LABEL = "app.kubernetes.io/component"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGER = "collective-operator"


def learners(task: str) -> str:
    """Name the headless Service of the learners, and their NetworkPolicy."""
    return f"{task}-learners"


def learner(task: str, index: int) -> str:
    """Name a learner's pod."""
    return f"{task}-learner-{index}"


def coordinator(task: str) -> str:
    """Name the coordinator's pod, its ConfigMap, its volume claim and its NetworkPolicy."""
    return f"{task}-coordinator"


def authority(task: str) -> str:
    """Name the Secret with the key that signs all others of a task; no pod mounts it."""
    return f"{task}-ca"


def credential(pod: str) -> str:
    """Name the Secret that one pod mounts."""
    return f"{pod}-tls"


def labels(task: str, component: str) -> dict[str, str]:
    """Label a child of a task; selectors use the task and the component."""
    return {
        "app.kubernetes.io/name": "collective-learning",
        COMPONENT_LABEL: component,
        MANAGED_BY_LABEL: MANAGER,
        TASK_LABEL: task,
    }
