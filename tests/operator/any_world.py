"""A server, the operator's own turns on it, and all that others may do to them before and during each of them."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import jsonschema

from collective_operator.api.annotations import ABORT, RETRY
from collective_operator.cluster.kubernetes import KubernetesCluster
from collective_operator.cluster.memory import Memory
from collective_operator.cluster.protocol import ClusterError, Manifest, TaskKey
from collective_operator.controller import Outcome, reconcile_once
from collective_operator.credentials.keeper import Keeper
from collective_operator.credentials.vigil import Vigil
from collective_operator.desired import names

from .model_server import TASK, ModelServer, copied
from .specs import SCHEMA, task_of
from .virtual_time import VirtualLoop
from .world import PLATFORM, START, progress

KEY = TaskKey("default", "digits")
LIFE = timedelta(days=90)
STATUS = jsonschema.Draft202012Validator(SCHEMA["status"])
COORDINATOR = "digits-coordinator"


def without_generation(status: Manifest) -> Manifest:
    """Leave out of a status which version of the spec it speaks of."""
    conditions = [{**condition, "observedGeneration": None} for condition in status.get("conditions", ())]
    return {**status, "observedGeneration": None, "conditions": conditions}


class World:
    """A server, an operator, and all that may happen to them."""

    def __init__(self, spec: Manifest, loop: VirtualLoop) -> None:
        task = task_of(spec)
        task["metadata"] |= {"creationTimestamp": START.isoformat(), "labels": {}}
        task["spec"].pop("managedBy", None)
        self.server = ModelServer(task)
        self.server.before_create, self.server.before_status = self._before_create, self._before_status
        self.said: Manifest | None = None
        self._decided = -1
        """Rounds that the coordinator has told of; none yet, or it began anew."""
        self.ended: dict[str, Manifest] = {}
        self.skew = timedelta()
        self.edited = False
        self._loop = loop
        self._valid: Manifest = {}
        self.begins_anew()

    # -- the operator

    def begins_anew(self) -> None:
        api: Any = self.server
        self.memory = Memory()
        self.cluster = KubernetesCluster(
            api=api,
            ask=self._ask,
            memory=self.memory,
            keeper=Keeper(api=api, life=LIFE, clock=lambda: self.server.now + self.skew),
            vigil=Vigil(clock=lambda: self._loop.now, life=LIFE),
        )

    async def turn(self) -> Outcome | None:
        self.edited = False
        try:
            outcome = await reconcile_once(self.cluster, KEY, now=self.server.now + self.skew, platform=PLATFORM)
        except ClusterError:
            outcome = None
        self._check()
        return outcome

    async def _ask(self, pod: Any) -> Manifest | None:
        return copied(self.said)

    # -- what must hold

    def _status(self) -> Manifest:
        return (self.server.task or {}).get("status") or {}

    def condition(self, kind: str) -> Manifest:
        (found,) = [found for found in self._status()["conditions"] if found["type"] == kind]
        return found

    def _check(self) -> None:
        task = self.server.task
        if task is None or "status" not in task:
            return
        if task["status"] != self._valid:
            STATUS.validate(task["status"])
            json.dumps(task["status"], allow_nan=False)
            self._valid = task["status"]
        uid = task["metadata"]["uid"]
        if task["metadata"].get("annotations", {}).get(RETRY) == task["status"].get("completionTime", "never"):
            return  # it is about to begin again
        if has_ended(task["status"]):
            end = without_generation(task["status"])
            assert self.ended.setdefault(uid, end) == end, "what has ended stays as it was"
        else:
            assert uid not in self.ended, "it has ended"

    def _before_create(self, made: Manifest) -> None:
        task = self.server.task
        if task is None or made["metadata"]["ownerReferences"][0]["uid"] != task["metadata"]["uid"] or self.edited:
            return  # it was the task's when the turn began
        accepted = [found["status"] for found in self._status()["conditions"] if found["type"] == "Accepted"]
        assert accepted == ["True"]
        assert not has_ended(self._status()), "nothing is made of what has ended"
        if made["kind"] == "Pod":
            assert not task["spec"].get("suspend"), "what stands still has no pods"
            assert made["metadata"]["name"] == COORDINATOR or made["metadata"]["labels"][names.INDEX_LABEL]

    def _before_status(self, status: Manifest) -> None:
        # Of one that somebody says has ended, who also wrote this phase, the operator only says that it has looked.
        if status.get("phase") == "Suspended" and not has_ended(status):
            labelled = [name for name, pod in self.server.owned("Pod").items() if _is_labelled(pod)]
            assert not labelled, "it says that none is there"

    # -- what others do

    def happens(self, what: Sequence[Any]) -> None:
        name, *arguments = what
        getattr(self, name)(*arguments)

    def pod_is(self, name: str, status: Manifest) -> None:
        if found := self.server.owned("Pod").get(name):
            self.server.put({**found, "status": {"podIP": "10.0.0.1", **status}})

    def is_lost(self, child: tuple[str, str]) -> None:
        self.server.remove(*child)

    def is_going(self, child: tuple[str, str]) -> None:
        if (found := self.server.objects.get(child)) and child[0] in ("Pod", "PersistentVolumeClaim"):
            self.server.put(found, deletionTimestamp=self.server.now.isoformat())

    def is_edited(self, how: str) -> None:
        task = self.server.task
        if task is None:
            return
        self.edited = True
        spec = copied(task["spec"])
        if how in ("suspend", "resume"):
            spec["suspend"] = how == "suspend"
        elif "count" in spec["learners"]:
            spec["learners"]["count"] = 4 if how == "more" else max(1, spec.get("policy", {}).get("minLearners", 1))
        self.server.put({**task, "spec": spec}, generation=task["metadata"]["generation"] + 1)

    def is_aborted(self, why: str) -> None:
        self._annotate(ABORT, why)

    def is_retried(self) -> None:
        """What has failed may begin again, when just this end is named."""
        status = self._status()
        if status.get("phase") == "Failed" and "completionTime" in status:
            self._annotate(RETRY, status["completionTime"])
            self.ended.pop(self.server.objects[TASK, "digits"]["metadata"]["uid"], None)

    def _annotate(self, annotation: str, value: str) -> None:
        task = self.server.task
        if task is not None:
            self.edited = True
            self.server.put(task, annotations={**task["metadata"].get("annotations", {}), annotation: value})

    def is_another(self) -> None:
        task = self.server.task
        if task is None:
            return
        self.edited = True
        self.server.remove(TASK, "digits")
        fresh = {key: value for key, value in task.items() if key != "status"}
        fresh["metadata"] = {**task_of({})["metadata"], "labels": {}, "uid": f"{task['metadata']['uid']}+"}
        self.server.put(fresh)

    def is_told_of(self, status: Manifest) -> None:
        """Somebody else writes the task's status: an operator of another version, or a person."""
        if task := self.server.task:
            self.edited = True
            self.ended.pop(task["metadata"]["uid"], None)
            self.server.put({**task, "status": status})

    def is_dated(self, child: tuple[str, str], time: str) -> None:
        """An object tells another time of its making, as one does that was made by a clock that was set."""
        if found := self.server.objects.get(child):
            self.server.put(found, creationTimestamp=time)

    def is_taken(self, child: tuple[str, str], by: str, labelled: bool) -> None:
        kind, name = child
        if child in self.server.objects or self.server.task is None:
            return
        uid = {"nobody": None, "another": "somebody", "the task": self.server.task["metadata"]["uid"]}[by]
        labels = {names.TASK_LABEL: "digits", names.COMPONENT_LABEL: names.COORDINATOR}
        metadata: Manifest = {"name": name, "labels": labels if labelled else {}}
        if uid:
            metadata["ownerReferences"] = [{"uid": uid, "name": "x", "kind": TASK, "apiVersion": "v1"}]
        members: dict[str, Manifest] = {
            "Pod": {"spec": {"containers": [{"name": "c"}]}, "status": {"phase": "Running"}},
            "ConfigMap": {"data": {}},
            "Secret": {"data": {}},
        }
        self.server.put({"kind": kind, "metadata": metadata, **members.get(kind, {"spec": {}})})

    def is_damaged(self, child: tuple[str, str], key: str, position: int) -> None:
        """A bit of what a Secret holds turns over; at 12 it is a certificate's version."""
        found = self.server.objects.get(child)
        if found is None or child[0] != "Secret" or not found["data"].get(key):
            return
        begin, *lines, end = base64.b64decode(found["data"][key]).splitlines()
        content = bytearray(base64.b64decode(b"".join(lines)))
        content[position % len(content)] ^= 1 << position % 8
        pem = b"\n".join((begin, base64.encodebytes(bytes(content)), end))
        self.server.put({**found, "data": {**found["data"], key: base64.b64encode(pem).decode()}})

    def loses_its_labels(self, child: tuple[str, str]) -> None:
        if found := self.server.objects.get(child):
            self.server.put(found, labels={})

    def is_refused(self, names: frozenset[str]) -> None:
        self.server.refused = names

    def clock_jumps(self, seconds: int) -> None:
        self.skew += timedelta(seconds=seconds)

    def time_passes(self, seconds: float) -> None:
        self.server.now += timedelta(seconds=seconds)
        self._loop.now += seconds
        self.server.collect_garbage()

    def watches_tell(self, chosen: Sequence[bool], backwards: bool) -> None:
        news, self.server.news = self.server.news, []
        told = [one for position, one in enumerate(news) if position >= len(chosen) or chosen[position]]
        for kind, seen, gone in reversed(told) if backwards else told:
            if kind != "Secret":
                self.memory.tell(kind, seen, gone=gone)

    def says(self, phase: str, reason: str, current: int) -> None:
        uid = self.server.task["metadata"]["uid"] if self.server.task else ""
        self.said, self._decided = progress(phase, current, uid=uid, reason=reason), current

    def says_whatever(self, answer: Manifest | None) -> None:
        self.said = answer

    # -- and when all is calm again

    def is_calmed(self) -> None:
        self.server.refused, self.said, self._decided = frozenset(), None, -1
        task = self.server.task
        for (kind, name), found in list(self.server.objects.items()):
            if kind != TASK and (name not in self.server.owned(kind) or not _is_labelled(found)):
                self.server.remove(kind, name)
        if task is None:
            return
        code = task["spec"]["learners"].get("codeFrom")
        if code and ("ConfigMap", code["configMapRef"]["name"]) not in self.server.objects:
            self.server.put({"kind": "ConfigMap", "metadata": {"name": code["configMapRef"]["name"]}, "data": {}})

    def kubelet(self) -> None:
        """Run what is to run, end what is to go, and have the coordinator drive rounds to the end."""
        for name, found in self.server.owned("Pod").items():
            phase = (found.get("status") or {}).get("phase")
            if "deletionTimestamp" in found["metadata"]:
                self.server.remove("Pod", name)
            elif phase not in ("Succeeded", "Failed"):
                ready = {
                    "phase": "Running",
                    "podIP": "10.0.0.1",
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "containerStatuses": [{"name": "learner", "restartCount": 0, "state": {"running": {}}}],
                }
                if found.get("status") != ready:
                    self.server.put({**found, "status": ready})
        self.server.collect_garbage()
        coordinator = self.server.owned("Pod").get(COORDINATOR)
        if coordinator is None or self.server.task is None:
            self.said, self._decided = None, -1
        else:
            current = self._decided + 1
            self.says("Running" if current < 6 else "Complete", "UploadingResult" if current == 5 else "", current)


def has_ended(status: Manifest) -> bool:
    """Tell whether a status says that the task is over; a task that was only refused may begin yet."""
    found = {condition["type"]: condition for condition in status.get("conditions", ())}
    failed, complete = found.get("Failed", {}), found.get("Complete", {})
    return complete.get("status") == "True" or (failed.get("status") == "True" and failed["reason"] != "InvalidSpec")


def _is_labelled(child: Manifest) -> bool:
    return (child["metadata"].get("labels") or {}).get(names.TASK_LABEL) == "digits"
