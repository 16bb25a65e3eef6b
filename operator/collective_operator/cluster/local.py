"""A laptop as a cluster of one task: pods are processes, the volume is the run's folder.

It implements the same protocol as Kubernetes does, so `collective run` is decided by the operator's own reconcile. The
children live in memory: they end with this process, and a run that goes on later creates them anew, with new ports,
around the same volume, as a cluster does after it lost every node.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from collective_operator.api import KIND
from collective_operator.cluster.local_command import mounts_of, program_of
from collective_operator.cluster.local_gpus import gpu_environment, gpus_of_machine
from collective_operator.cluster.local_pod import LocalPod, PodSettings
from collective_operator.cluster.local_ports import LOOPBACK
from collective_operator.cluster.local_process import Guard
from collective_operator.cluster.protocol import (
    ClusterError,
    Manifest,
    Observed,
    Secured,
    TaskEvent,
    TaskKey,
    named_config_map,
)
from collective_operator.wording import stamp

if TYPE_CHECKING:
    from collective_operator.securing import Secure

_KINDS = ("Service", "ConfigMap", "PersistentVolumeClaim")
_STATUS_TIMEOUT_S = 2.0


class LocalCluster:
    """Runs one task's children as processes of this machine.

    Parameters
    ----------
    task
        The CollectiveTask, with its uid.
    directory
        The run's folder, which is also the volume of the task; children put their files there.
    coordinator_port
        Where the coordinator answers /status.
    learners
        How many processes share this machine's cores.
    guard
        Starts the processes; its owner closes it when the cluster is closed.
    on_event
        Gets every Event as it is emitted.
    folders
        Folders that stand for ConfigMaps of somebody else, by name.
    settings
        How pods are restarted and ended.
    """

    def __init__(
        self,
        task: Manifest,
        *,
        directory: Path,
        coordinator_port: int,
        learners: int,
        guard: Guard,
        on_event: Callable[[TaskEvent], None],
        folders: Mapping[str, Path] | None = None,
        settings: PodSettings | None = None,
    ) -> None:
        self._task = copy.deepcopy(task)
        self._directory = directory.resolve()
        self._private = self._directory / ".run"
        self._logs = self._directory / "logs"
        # What an earlier run left there described processes that are gone.
        shutil.rmtree(self._private, ignore_errors=True)
        self._private.mkdir(parents=True)
        self._logs.mkdir(exist_ok=True)
        self._coordinator_port = coordinator_port
        self._threads = max(1, (os.cpu_count() or 1) // max(1, learners))
        self._gpus = gpus_of_machine()
        self._on_event = on_event
        self._folders = {name: folder.resolve() for name, folder in (folders or {}).items()}
        self._settings = settings or PodSettings()
        self._guard = guard
        self._known: dict[str, LocalPod] = {}
        self._pods: dict[str, LocalPod] = {}
        self._objects: dict[str, dict[str, Manifest]] = {kind: {} for kind in _KINDS}
        self._deletions: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    async def get_task(self, key: TaskKey, *, anew: bool = True) -> Manifest | None:
        """Read the task."""
        metadata = self._task["metadata"]
        known = TaskKey(metadata.get("namespace", "default"), metadata["name"])
        return copy.deepcopy(self._task) if key == known else None

    async def observe(self, task: Manifest, *, anew: bool = True) -> Observed:
        """List the children, and ask the coordinator how far it is."""
        progress = await self._progress()
        named = named_config_map(task)
        is_there = named is None or self._folders.get(named, self._config_folder(named)).is_dir()
        return Observed(
            pods={name: copy.deepcopy(pod.manifest) for name, pod in self._pods.items()},
            services=copy.deepcopy(self._objects["Service"]),
            config_maps=copy.deepcopy(self._objects["ConfigMap"]),
            volume_claims=copy.deepcopy(self._objects["PersistentVolumeClaim"]),
            absent_config_maps=frozenset() if is_there or named is None else frozenset({named}),
            progress=progress,
        )

    async def create(self, manifest: Manifest, *, strictly: bool = True) -> None:
        """Create a child; one of that name being there already is fine."""
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        if name in (self._pods if kind == "Pod" else self._objects[kind]):
            return
        created = copy.deepcopy(manifest)
        created["metadata"] |= {
            "uid": str(uuid.uuid4()),
            "creationTimestamp": stamp(datetime.now(UTC)),
        }
        if kind == "Pod":
            self._pods[name] = self._known[name] = self._start(created)
            return
        if kind == "ConfigMap":
            self._write_config(name, created.get("data", {}))
        elif kind == "PersistentVolumeClaim":
            created["status"] = {"phase": "Bound"}
        self._objects[kind][name] = created

    async def update(self, manifest: Manifest) -> None:
        """Replace a child that was observed; a program finds its new configuration in the old place."""
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        there = self._objects.get(kind, {}).get(name)
        if there is None or there["metadata"]["uid"] != manifest["metadata"]["uid"]:
            raise ClusterError(status=409, message=f"{kind} {name} is another one now")
        if kind == "ConfigMap":
            self._write_config(name, manifest.get("data", {}))
        self._objects[kind][name] = copy.deepcopy(manifest)

    async def delete(self, manifest: Manifest) -> None:
        """Delete exactly this child; a pod goes once its process has.  A task is somebody's file here, and stays."""
        kind, name, uid = manifest["kind"], manifest["metadata"]["name"], manifest["metadata"].get("uid")
        if kind == KIND:
            return
        if kind != "Pod":
            if self._objects[kind].get(name, {}).get("metadata", {}).get("uid") == uid:
                del self._objects[kind][name]
            return
        pod = self._pods.get(name)
        if pod is None or pod.manifest["metadata"]["uid"] != uid or "deletionTimestamp" in pod.manifest["metadata"]:
            return
        pod.manifest["metadata"]["deletionTimestamp"] = stamp(datetime.now(UTC))
        deletion = asyncio.create_task(self._remove(name, pod))
        self._deletions.add(deletion)
        deletion.add_done_callback(self._deletions.discard)

    async def release(self, pod: Manifest) -> None:
        """Do nothing: there is no Kueue here."""

    async def secure(self, task: Manifest, action: Secure) -> Secured:
        """Do nothing: processes of one person on one machine have no TLS, so there is nothing to see to."""
        return Secured()

    async def update_status(self, task: Manifest, status: Mapping[str, Any]) -> None:
        """Replace the task's status."""
        self._task["status"] = copy.deepcopy(dict(status))

    def emit(self, task: Manifest, events: Sequence[TaskEvent]) -> None:
        """Hand events to the one who watches."""
        for event in events:
            self._on_event(event)

    async def changed(self, timeout_s: float) -> None:
        """Wait until a pod's status changed, at most so long."""
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        except TimeoutError:
            return
        self._changed.clear()

    def log_of(self, pod: str) -> Path:
        """Return the file that takes what a pod prints."""
        prefix = f"{self._task['metadata']['name']}-"
        return self._logs / f"{pod.removeprefix(prefix)}.log"

    def wake(self) -> None:
        """Let `changed` return."""
        self._changed.set()

    def pods(self) -> Mapping[str, LocalPod]:
        """Return the last pod of each name that there ever was, also after its deletion."""
        return dict(self._known)

    async def close(self) -> None:
        """End every process, and return once they are gone."""
        await asyncio.gather(*(pod.stop() for pod in self._pods.values()), *self._deletions)

    def kill(self) -> None:
        """End every process at once; a `close` that waits for them then returns."""
        for pod in self._pods.values():
            pod.kill()

    def _start(self, manifest: Manifest) -> LocalPod:
        name = manifest["metadata"]["name"]
        containers = manifest["spec"]["containers"]
        if len(containers) != 1 or manifest["spec"].get("initContainers"):
            raise ValueError(f"pod {name}: a laptop runs pods of exactly one container")
        termination_log = self._private / f"{name}.termination-log"
        volumes = {}
        for volume in manifest["spec"].get("volumes", ()):
            if "configMap" in volume:
                config_map = volume["configMap"]["name"]
                volumes[volume["name"]] = self._folders.get(config_map) or self._config_folder(config_map)
            elif "persistentVolumeClaim" in volume:
                volumes[volume["name"]] = self._directory
        return LocalPod(
            manifest,
            program=program_of(
                containers[0],
                mounts=mounts_of(manifest, volumes),
                termination_log=termination_log,
                threads=self._threads,
                gpus=gpu_environment(manifest, self._gpus),
            ),
            # The user's own folder: `python -m` puts it on the path, so that `learners.imports` finds modules in it.
            directory=Path.cwd(),
            log=self.log_of(name),
            guard=self._guard,
            changed=self._changed.set,
            settings=self._settings,
        )

    def _write_config(self, name: str, data: Mapping[str, str]) -> None:
        folder = self._config_folder(name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for key, text in data.items():
                # Replaced at once, as a kubelet does: who reads it meanwhile never sees a half.
                aside = folder / f".{key}.tmp"
                aside.write_text(text, encoding="utf-8")
                aside.replace(folder / key)
        except OSError as error:
            raise ClusterError(status=0, message=f"{folder}: {error.strerror}") from error

    def _config_folder(self, name: str) -> Path:
        return self._private / name

    async def _remove(self, name: str, pod: LocalPod) -> None:
        await pod.stop()
        del self._pods[name]
        self._changed.set()

    async def _progress(self) -> Mapping[str, Any] | None:
        if not any(pod.serves(self._coordinator_port) for pod in self._pods.values()):
            return None
        url = f"http://{LOOPBACK}:{self._coordinator_port}/status"
        timeout = aiohttp.ClientTimeout(total=_STATUS_TIMEOUT_S)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
                document = await answer.json() if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, json.JSONDecodeError):
            return None
        return document if isinstance(document, dict) else None
