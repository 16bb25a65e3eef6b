"""The status of a task: what `kubectl get ctask` prints and scripts read."""

from collective_operator.status.document import looked_at, refused_status, status_of

__all__ = ["looked_at", "refused_status", "status_of"]
