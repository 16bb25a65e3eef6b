"""A world for the pure reconcile: a task, its children as dicts, and what a decision does to them."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from collective_operator.cluster.protocol import Observed
from collective_operator.desired import NetworkRules, Platform
from collective_operator.desired.credentials import has_credential
from collective_operator.reconcile import Create, Decision, Delete, Update, reconcile

Manifest = dict[str, Any]

START = datetime(2026, 1, 1, tzinfo=UTC)
PLATFORM = Platform(learner_image="learner:1", coordinator_image="operator:1", network=NetworkRules())
FIELDS = {
    "Pod": "pods",
    "Service": "services",
    "ConfigMap": "config_maps",
    "PersistentVolumeClaim": "volume_claims",
    "NetworkPolicy": "network_policies",
}


def manifest(**spec: Any) -> Manifest:
    return {
        "apiVersion": "collectivelearning.dev/v1alpha1",
        "kind": "CollectiveTask",
        "metadata": {"name": "digits", "namespace": "default", "uid": "task-uid", "generation": 1},
        "spec": {
            "model": {"name": "M"},
            "dataLoader": {"name": "D"},
            "rounds": 20,
            "learners": {"count": 2},
            **spec,
        },
    }


def progress(phase: str = "Running", current: int = 1, **members: Any) -> Manifest:
    return {
        "version": 1,
        "uid": "task-uid",
        "phase": phase,
        "reason": "",
        "message": "",
        "round": {"current": current, "total": 20, "accepted": current},
        "latest": None,
        "learners": [],
        "result": None,
        **members,
    }


class World:
    """Holds what exists; `look` decides and, unless told otherwise, does it."""

    def __init__(self, **spec: Any) -> None:
        self.task = manifest(**spec)
        self.children: dict[str, dict[str, Manifest]] = {field: {} for field in FIELDS.values()}
        self.progress: Any = None
        self.now = START
        self.refused: dict[str, str] = {}
        self.absent: frozenset[str] = frozenset()
        self.silent: float = 0
        self.platform = PLATFORM
        self.complaints: dict[str, str] = {}
        self.deleted = False
        """Whether the task itself was."""
        self.lingering: set[str] = set()
        """Pods that take their time to go."""
        self.put_back: dict[tuple[str, str], str] = {}
        self.may_release = True
        self.credentials_due = False
        self.secured: set[str] = set()
        """The pods that have keys."""
        self.made = 0
        self.told: list[tuple[str, str]] = []

    @property
    def status(self) -> Manifest:
        return self.task.get("status", {})

    @property
    def pods(self) -> dict[str, Manifest]:
        return self.children["pods"]

    def observed(self) -> Observed:
        return Observed(
            **copy.deepcopy(self.children),
            absent_config_maps=self.absent,
            progress=copy.deepcopy(self.progress),
            silent_seconds=self.silent,
            complaints=self.complaints,
            put_back=self.put_back,
            may_release=self.may_release,
            credentials_due=self.credentials_due,
        )

    def look(self, after: float = 0) -> Decision:
        self.now += timedelta(seconds=after)
        decision = reconcile(
            task=copy.deepcopy(self.task),
            observed=self.observed(),
            now=self.now,
            platform=self.platform,
            refused=self.refused,
        )
        if decision.secure:
            self.secured |= {credential.pod for credential in decision.secure.credentials}
        for action in decision.actions:
            kind, name = action.manifest["kind"], action.manifest["metadata"]["name"]
            if kind == "CollectiveTask":
                assert isinstance(action, Delete)
                self.deleted = True
                continue
            here = self.children[FIELDS[kind]]
            match action:
                case Create(child):
                    if name not in self.refused:
                        assert name not in here, f"{name} is there already"
                        self.made += 1
                        here[name] = copy.deepcopy(child)
                        here[name]["metadata"] |= {"uid": f"uid-{self.made}", "creationTimestamp": self.now.isoformat()}
                        if kind == "Pod":
                            assert not has_credential(child) or name in self.secured, f"{name} has no key"
                            here[name]["status"] = {"phase": "Pending"}
                case Delete(child):
                    assert here[name]["metadata"]["uid"] == child["metadata"]["uid"]
                    if name in self.lingering:
                        leaves = self.now + timedelta(seconds=30)
                        here[name]["metadata"]["deletionTimestamp"] = leaves.isoformat()
                    else:
                        del here[name]
                case Update(child):
                    assert here[name]["metadata"]["uid"] == child["metadata"]["uid"]
                    here[name] = copy.deepcopy(child)
        if decision.status is not None:
            json.dumps(decision.status, allow_nan=False)
            self.task["status"] = copy.deepcopy(decision.status)
        self.told += [(event.type, str(event.reason)) for event in decision.events]
        return decision

    def settle(self) -> None:
        """Look until nothing is to be done now."""
        for _ in range(20):
            decision = self.look()
            if decision.status is None and not decision.actions:
                return
        raise AssertionError("it does not settle")

    def spend(self, seconds: float) -> Decision:
        """Look when this time has passed, and as often as it takes then."""
        decision = self.look(seconds)
        self.settle()
        return decision

    def condition(self, kind: str) -> Manifest:
        return {found["type"]: found for found in self.status["conditions"]}[kind]

    def run(self, name: str, *, restarts: int = 0) -> None:
        self.pods[name]["status"] = {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"restartCount": restarts, "ready": True, "state": {"running": {}}}],
        }

    def wait(self, name: str, reason: str, message: str = "", **status: Any) -> None:
        self.pods[name]["status"] = {
            "phase": "Pending",
            "containerStatuses": [{"restartCount": 0, "state": {"waiting": {"reason": reason, "message": message}}}],
            **status,
        }

    def end(self, name: str, code: int, message: str = "", *, restarting: bool = False) -> None:
        """Say of a pod that its program ended, and, if so, that the next one starts."""
        ended = {"terminated": {"exitCode": code, "reason": "Error", "message": message}}
        states = {"state": {"running": {}}, "lastState": ended} if restarting else {"state": ended}
        self.pods[name]["status"] = {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [{"restartCount": int(restarting), "ready": False, **states}],
        }

    def run_all(self) -> None:
        for name in self.pods:
            self.run(name)


def running(**spec: Any) -> World:
    """A task whose rounds run."""
    world = World(**spec)
    world.settle()
    world.run_all()
    world.progress = progress()
    world.settle()
    assert world.status["phase"] == "Running"
    return world
