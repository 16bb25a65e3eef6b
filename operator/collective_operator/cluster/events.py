"""An Event about a task, as Kubernetes wants it."""

from __future__ import annotations

import socket
from datetime import UTC, datetime

from collective_operator.api import API_VERSION, KIND
from collective_operator.cluster.protocol import Manifest, TaskEvent
from collective_operator.desired import names
from collective_operator.wording import shortened, stamp

_MESSAGE_LIMIT = 1000


def event_about(task: Manifest, event: TaskEvent) -> Manifest:
    """Build the manifest of an Event that happens now."""
    metadata, now = task["metadata"], stamp(datetime.now(UTC))
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "type": event.type,
        "reason": str(event.reason),
        "message": shortened(event.message, _MESSAGE_LIMIT),
        "count": 1,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "source": {"component": names.MANAGER},
        "reportingComponent": names.MANAGER,
        "reportingInstance": socket.gethostname(),
    }
