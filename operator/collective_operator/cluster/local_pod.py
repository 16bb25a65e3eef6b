"""Plays the kubelet for one pod: a process, restarted when it dies, and the status that a kubelet would write.

The reconcile decides by pod status alone, so what it reads here has to be what a kubelet writes, at the same moments:
a container that waits in CrashLoopBackOff, the exit code and the last words of the one before, readiness only once
the port answers. Liveness is not played: a process on a laptop is watched by the person before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from collective_operator.cluster.local_command import Program
from collective_operator.cluster.local_ports import LOOPBACK
from collective_operator.cluster.local_process import Guard, exit_code, kill, terminate
from collective_operator.cluster.local_readiness import Probe, is_ready
from collective_operator.cluster.protocol import Manifest
from collective_operator.wording import stamp

START_MARK = "--- "
"""Begins the line that each start writes into the log."""
_MESSAGE_BYTES = 4096
_FALLBACK_BYTES = 2048
_START_ERROR = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to wait before a restart: a kubelet's way, at a laptop's pace."""

    first_s: float = 1.0
    """After the second death in a row; the first is answered at once."""
    ceiling_s: float = 30.0
    """Each further wait is twice as long, up to this."""
    forget_after_s: float = 60.0
    """A program that ran this long has recovered: the next death is a first one."""

    def delay(self, deaths: int) -> float:
        """Return the seconds to wait after this many deaths in a row."""
        return 0.0 if deaths <= 1 else min(self.ceiling_s, self.first_s * 2.0 ** (deaths - 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSettings:
    """The kubelet's own settings."""

    backoff: Backoff = Backoff()
    probe_period_s: float = 0.25
    """How often a program that is not ready yet is asked."""
    grace_s: float = 5.0
    """The most seconds between SIGTERM and SIGKILL; less where the pod asks for less."""


class LocalPod:
    """One pod and its process.

    Parameters
    ----------
    manifest
        The pod as it was created; its status is kept here.
    program, directory, log
        What to run, where, and the file that takes what it prints.
    guard
        Starts processes.
    changed
        Called whenever the status has changed.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        program: Program,
        directory: Path,
        log: Path,
        guard: Guard,
        changed: Callable[[], None],
        settings: PodSettings,
    ) -> None:
        self.manifest = manifest
        self.log = log
        self._program = program
        self._directory = directory
        self._guard = guard
        self._changed = changed
        self._settings = settings
        self._container = manifest["spec"]["containers"][0]
        self._probe = Probe.of(self._container)
        self._process: asyncio.subprocess.Process | None = None
        self._stop = asyncio.Event()
        self._restarts = 0
        self.deaths = 0
        """How often the process ended by itself when it should not have."""
        self.was_ready = False
        """Whether it was ever ready."""
        self._last_state: Manifest = {}
        self._started_at = _now()
        self._set(phase="Pending", state=_waiting("ContainerCreating"))
        self._task = asyncio.create_task(self._run(), name=f"pod {manifest['metadata']['name']}")

    @property
    def pid(self) -> int | None:
        """The running process; None between two."""
        return None if self._process is None else self._process.pid

    @property
    def is_learner(self) -> bool:
        """Whether its label says so."""
        labels = self.manifest["metadata"].get("labels", {})
        return bool(labels.get("app.kubernetes.io/component") == "learner")

    @property
    def last_words(self) -> str:
        """The termination message of the last death."""
        return str(self._last_state.get("terminated", {}).get("message", ""))

    def serves(self, port: int) -> bool:
        """Tell whether this pod is ready on that port."""
        return self._probe.port == port and self.manifest["status"]["containerStatuses"][0]["ready"] is True

    async def stop(self) -> None:
        """End the process, politely first, and return once it is gone."""
        self._stop.set()
        if self._process is not None:
            asked = float(self.manifest["spec"].get("terminationGracePeriodSeconds", 30))
            await terminate(self._process, grace=min(asked, self._settings.grace_s))
        await self._task

    def kill(self) -> None:
        """End the process at once; `stop` returns soon after."""
        self._stop.set()
        if self._process is not None:
            kill(self._process)

    async def _run(self) -> None:
        deaths = 0
        while True:
            began = time.monotonic()
            terminated = await self._run_once()
            if self._stop.is_set() or not self._restarts_after(terminated["exitCode"]):
                phase = "Succeeded" if terminated["exitCode"] == 0 else "Failed"
                self._set(phase=phase, state={"terminated": terminated})
                return
            self._last_state = {"terminated": terminated}
            self.deaths += 1
            deaths = 1 if time.monotonic() - began >= self._settings.backoff.forget_after_s else deaths + 1
            delay = self._settings.backoff.delay(deaths)
            if delay:
                message = f"back-off {delay:.0f}s restarting failed container={self._container['name']}"
                self._set(phase="Running", state=_waiting("CrashLoopBackOff", message))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), delay)
                if self._stop.is_set():
                    return
            self._restarts += 1

    async def _run_once(self) -> Manifest:
        """Run the program to its end, and return its terminated state."""
        self._program.termination_log.unlink(missing_ok=True)
        started_at = _now()
        with self.log.open("ab") as log:
            log.write(f"{START_MARK}{started_at} start, restarts so far: {self._restarts}\n".encode())
            log.flush()
            log_begins = log.tell()
            try:
                process = await self._guard.start(
                    self._program.command, env=self._program.env, directory=self._directory, log=log
                )
            except OSError as error:
                # No process or memory to be had just now: a kubelet reports it so, and tries again.
                return _terminated(_START_ERROR, "StartError", started_at, str(error))
        self._process = process
        running = {"running": {"startedAt": started_at}}
        self._set(phase="Running", state=running)
        # A stop that came while the process was being started found none to end.
        if self._stop.is_set():
            kill(process)
        readiness = asyncio.create_task(self._await_readiness(running))
        await process.wait()
        readiness.cancel()
        self._guard.ended(process.pid)
        self._process = None
        code = exit_code(process.returncode or 0)
        return _terminated(code, "Error" if code else "Completed", started_at, self._last_words(code, log_begins))

    async def _await_readiness(self, running: Manifest) -> None:
        while True:
            if await is_ready(LOOPBACK, self._probe):
                self.was_ready = True
                self._set(phase="Running", state=running, ready=True)
                return
            await asyncio.sleep(self._settings.probe_period_s)

    def _last_words(self, code: int, log_begins: int) -> str:
        """Read the termination message; where the pod says so, the log's last lines stand in for an absent one."""
        with contextlib.suppress(FileNotFoundError):
            if text := self._program.termination_log.read_bytes()[:_MESSAGE_BYTES]:
                return text.decode(errors="replace")
        if code == 0 or self._container.get("terminationMessagePolicy") != "FallbackToLogsOnError":
            return ""
        with self.log.open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(log_begins, size - _FALLBACK_BYTES))
            return log.read().decode(errors="replace")

    def _restarts_after(self, code: int) -> bool:
        policy = self.manifest["spec"].get("restartPolicy", "Always")
        return policy == "Always" or (policy == "OnFailure" and code != 0)

    def _set(self, *, phase: str, state: Manifest, ready: bool = False) -> None:
        previous = self.manifest.get("status", {})
        self.manifest["status"] = {
            "phase": phase,
            "conditions": _conditions(previous.get("conditions", ()), ready=ready, finished=phase in _FINISHED),
            "hostIP": LOOPBACK,
            "podIP": LOOPBACK,
            "podIPs": [{"ip": LOOPBACK}],
            "startTime": self._started_at,
            "containerStatuses": [
                {
                    "name": self._container["name"],
                    "image": self._container.get("image", ""),
                    "imageID": "",
                    "ready": ready,
                    "started": "running" in state,
                    "restartCount": self._restarts,
                    "state": state,
                    "lastState": self._last_state,
                }
            ],
        }
        self._changed()


_FINISHED = ("Succeeded", "Failed")


def _conditions(previous: Any, *, ready: bool, finished: bool) -> list[Manifest]:
    reason = "PodCompleted" if finished else "ContainersNotReady"
    before = {condition["type"]: condition for condition in previous}
    conditions = []
    for kind, holds in (
        ("PodScheduled", True),
        ("Initialized", True),
        ("ContainersReady", ready),
        ("Ready", ready),
    ):
        condition: Manifest = {"type": kind, "status": str(holds)}
        if not holds:
            condition["reason"] = reason
        old = before.get(kind, {})
        same = old.get("status") == condition["status"]
        condition["lastTransitionTime"] = old["lastTransitionTime"] if same else _now()
        conditions.append(condition)
    return conditions


def _terminated(code: int, reason: str, started_at: str, message: str) -> Manifest:
    state = {"exitCode": code, "reason": reason, "startedAt": started_at, "finishedAt": _now()}
    return state | ({"message": message} if message else {})


def _waiting(reason: str, message: str | None = None) -> Manifest:
    return {"waiting": {"reason": reason} | ({"message": message} if message else {})}


def _now() -> str:
    return stamp(datetime.now(UTC))
