"""What is wrong with a pod, in Kubernetes' own words.

Messages must be steady: a text with a growing back-off in it, or one that turns with the kubelet's tries, would make a
status write of every look at a broken pod.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from collective_operator.desired.names import COMPONENT_LABEL, COORDINATOR, LEARNER
from collective_operator.reasons import Reason
from collective_operator.wording import shortened, unstamp

_ERROR = "Error: "
"""Begins the last words of our programs."""

IMPORT_FAILED = 78
"""The exit status by which a learner says that its modules cannot be imported."""

_SIGNALLED = 128
"""Exit statuses above it are a signal's: what the program said last has then nothing to do with its end."""

_SAID_LIMIT = 200

_NOT_RUN = ("StartError", "ContainerCannotRun")
"""How container runtimes say that a container has ended before its program began; the message tells why."""

_NO_VOLUME = "unbound immediate PersistentVolumeClaims"
"""What the scheduler says of all volumes that do not come; why not, only an Event of the claim tells."""

_PASSING = re.compile(r"(?<!sha256:)\b[0-9a-f]{64}\b|(?<=\d):\d+(?=->)")
"""What is another at each try: a sandbox's or a container's id, and the port that a connection began at."""

_WAITING = {
    "ErrImagePull": Reason.IMAGE_UNAVAILABLE,
    "ImagePullBackOff": Reason.IMAGE_UNAVAILABLE,
    "ErrImageNeverPull": Reason.IMAGE_UNAVAILABLE,
    "InvalidImageName": Reason.IMAGE_UNAVAILABLE,
    "ImageInspectError": Reason.IMAGE_UNAVAILABLE,
    "RegistryUnavailable": Reason.IMAGE_UNAVAILABLE,
    "SignatureValidationFailed": Reason.IMAGE_UNAVAILABLE,
    "CreateContainerConfigError": Reason.CONTAINER_NOT_CREATED,
    "CreateContainerError": Reason.CONTAINER_NOT_CREATED,
    "RunContainerError": Reason.CONTAINER_NOT_CREATED,
    "PreCreateHookError": Reason.CONTAINER_NOT_CREATED,
    "PreStartHookError": Reason.CONTAINER_NOT_CREATED,
    "PostStartHookError": Reason.CONTAINER_NOT_CREATED,
    "CrashLoopBackOff": Reason.CRASHING,
}

Found = tuple[Reason, str] | None


def what_is_wrong(manifest: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]) -> Found:
    """Tell what the status of a pod says is wrong with it; what matters most, where there is more."""
    status = manifest.get("status") or {}
    container = own_container(manifest)
    beside = [each for each in _containers(status) if each is not container]
    ends = ends_of(container)
    return (
        _leaving(manifest, conditions)
        or _lost(manifest, conditions)
        or (None if _is_coordinator(manifest) else _failed_import(conditions, ends))
        or _container_trouble(container)
        or _not_up_since(container, conditions, ends)
        or _trouble_beside(beside)
        or _unscheduled(status, conditions)
        or ((Reason.CRASHING, "ended as Failed") if status.get("phase") == "Failed" else None)
    )


def waits_for_volume(found: Found) -> bool:
    """Tell whether it is a volume that does not come."""
    return found is not None and found[0] is Reason.UNSCHEDULABLE and _NO_VOLUME in found[1]


def complained_of(complaint: str | None, conditions: Mapping[str, Mapping[str, Any]]) -> Found:
    """Tell what an Event complains of, where the status says nothing."""
    if complaint is None:
        return None
    return (Reason.CONTAINER_NOT_CREATED if "PodScheduled" in conditions else Reason.UNSCHEDULABLE), complaint


def own_container(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """Find our own container among those that a mesh, or the task itself, may have put beside it."""
    containers = (manifest.get("status") or {}).get("containerStatuses") or ()
    component = (manifest["metadata"].get("labels") or {}).get(COMPONENT_LABEL)
    names = (component,) if component in (LEARNER, COORDINATOR) else (LEARNER, COORDINATOR)
    ours = (container for container in containers if container.get("name") in names)
    return next(ours, next(iter(containers), {}))


def ends_of(container: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """List how the container ended, the newest first."""
    states = (container.get("state") or {}, container.get("lastState") or {})
    return [state["terminated"] for state in states if state.get("terminated")]


def holds(conditions: Mapping[str, Mapping[str, Any]], kind: str) -> bool:
    """Tell whether a condition is true."""
    return conditions.get(kind, {}).get("status") == "True"


def exit_words(ended: Mapping[str, Any]) -> str:
    """Tell how a container ended, and what its program said last."""
    code = ended.get("exitCode", "unknown")
    told = f"{ended['reason']}, exit code {code}" if ended.get("reason") else f"exit code {code}"
    said = _said(ended)
    return f"{told}: {said}" if said else told


def steady(words: str) -> str:
    """Leave out of a text what changes with each try."""
    return _PASSING.sub(lambda found: "" if found[0].startswith(":") else "...", words)


def _is_coordinator(manifest: Mapping[str, Any]) -> bool:
    """Tell by its name, which it keeps: labels may be lost, and the status of a container may have no name."""
    return str(manifest["metadata"]["name"]).endswith(f"-{COORDINATOR}")


def _containers(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _leaving(manifest: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]) -> Found:
    if "deletionTimestamp" not in manifest["metadata"]:
        return None
    words = ["is being deleted"]
    target = conditions.get("DisruptionTarget", {})
    if target.get("status") == "True":
        words += filter(None, [target.get("reason"), target.get("message")])
    elif lost := _lost(manifest, conditions):
        words.append(lost[1])
    finalizers = manifest["metadata"].get("finalizers") or ()
    ended = (manifest.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    # On no node there is nothing that would have to end first.
    if finalizers and (ended or not (manifest.get("spec") or {}).get("nodeName")):
        words.append(f"kept by its finalizers {', '.join(finalizers)}")
    return Reason.POD_LOST, ": ".join(words)


def _lost(manifest: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]) -> Found:
    status = manifest.get("status") or {}
    if status.get("reason") and status.get("phase") == "Failed":
        said = f": {status['message']}" if status.get("message") else ""
        return Reason.POD_LOST, f"{status['reason']}{said}"
    silent = _silent_node(manifest, conditions)
    return (Reason.POD_LOST, silent) if silent else None


def _silent_node(manifest: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Tell that nobody has heard of the pod's node for long: its pods are then said to be not ready, and no more."""
    status, ready = manifest.get("status") or {}, conditions.get("Ready", {})
    by_others = (
        status.get("phase") == "Running"
        and ready.get("status") == "False"
        and not ready.get("reason")
        and holds(conditions, "ContainersReady")
    )
    if by_others or status.get("reason") == "NodeLost" or ready.get("reason") == "NodeStatusUnknown":
        node = (manifest.get("spec") or {}).get("nodeName")
        return f"its node {node} does not answer" if node else "its node does not answer"
    return None


def _failed_import(conditions: Mapping[str, Mapping[str, Any]], ends: list[Mapping[str, Any]]) -> Found:
    """Tell why the last start failed to import, also while the next one is being tried."""
    if not ends or ends[0].get("exitCode") != IMPORT_FAILED or holds(conditions, "Ready"):
        return None
    lines = (ends[0].get("message") or "").strip().splitlines()
    # Where the log stands in for a message there are other lines before the error.
    begins = [number for number, line in enumerate(lines) if line.startswith(_ERROR)]
    told = "\n".join(lines[begins[-1] :] if begins else lines).removeprefix(_ERROR)
    return Reason.IMPORT_FAILED, told or f"a module cannot be imported, exit code {IMPORT_FAILED}"


def _container_trouble(container: Mapping[str, Any]) -> Found:
    state = container.get("state") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated")
    reason = _WAITING.get(waiting.get("reason", ""))
    last = next(iter(ends_of(container)), {})
    if last.get("reason") in _NOT_RUN and reason in (None, Reason.CRASHING) and (waiting or ended):
        # One text for a container that cannot be run, and for the pause after it.
        return Reason.CONTAINER_NOT_CREATED, ": ".join(filter(None, ["RunContainerError", last.get("message")]))
    if reason is Reason.CRASHING:
        return reason, ", ".join([waiting["reason"], *map(exit_words, ends_of(container)[:1])])
    if reason is not None:
        return reason, ": ".join(filter(None, _image_words(waiting)))
    if ended and ended.get("exitCode") != 0:
        return Reason.CRASHING, exit_words(ended)
    return None


def _not_up_since(
    container: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]], ends: list[Mapping[str, Any]]
) -> Found:
    """Tell of a crash for as long as the pod has not been ready since: it is no better for being tried once more."""
    running, ready = (container.get("state") or {}).get("running"), conditions.get("Ready", {})
    if running is None or not ends or not ends[0].get("exitCode") or ready.get("status") != "False":
        return None
    fell, started = unstamp(ready.get("lastTransitionTime")), unstamp(running.get("startedAt"))
    if fell is None or started is None or fell > started:
        return None
    return Reason.CRASHING, f"restarted after {exit_words(ends[0])}"


def _trouble_beside(containers: Sequence[Mapping[str, Any]]) -> Found:
    """Tell what is wrong with a container that somebody laid beside ours: without it the pod does not start either."""
    for container in containers:
        if found := _container_trouble(container) or _once_more(container):
            return found[0], f"container {container.get('name')}: {found[1]}"
    return None


def _once_more(container: Mapping[str, Any]) -> Found:
    """Tell of the crash of a container that is tried once more, and has not come as far as being of use."""
    last = ((container.get("lastState") or {}).get("terminated")) or {}
    if container.get("ready") or not (container.get("state") or {}).get("running") or not last.get("exitCode"):
        return None
    return Reason.CRASHING, f"restarted after {exit_words(last)}"


def _image_words(waiting: Mapping[str, Any]) -> tuple[str, str]:
    """Give what the kubelet waits for, and why; one text for a pull that fails and for the pause after it."""
    reason, message = waiting["reason"], waiting.get("message") or ""
    if reason in ("ErrImagePull", "ImagePullBackOff"):
        return "ImagePullBackOff", message.partition(": ErrImagePull: ")[2] or message
    return reason, message


def _unscheduled(status: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]) -> Found:
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") != "False" or status.get("phase", "Pending") != "Pending":
        return None
    word = scheduled.get("reason") or "Unschedulable"
    reason = Reason.SCHEDULING_GATED if word == Reason.SCHEDULING_GATED else Reason.UNSCHEDULABLE
    return reason, ": ".join(filter(None, [word, scheduled.get("message")]))


def _said(ended: Mapping[str, Any]) -> str:
    """Find the line in which a program told why it ends: the last one that is no detail of another."""
    if ended.get("exitCode", 0) >= _SIGNALLED or not ended.get("exitCode"):
        return ""
    lines = [line for line in str(ended.get("message") or "").splitlines() if line.strip() and not line[0].isspace()]
    return shortened(lines[-1].removeprefix(_ERROR), _SAID_LIMIT) if lines else ""
