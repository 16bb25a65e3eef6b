"""The status of a task: what `kubectl get ctask` prints and scripts read."""

from collective_operator.status.document import ended_unread, looked_at, refused_status, status_of

__all__ = ["ended_unread", "looked_at", "refused_status", "status_of"]
