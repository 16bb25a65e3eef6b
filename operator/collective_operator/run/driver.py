"""Drives one run: the operator's reconcile again and again, until the task has ended or somebody interrupts.

Woken by processes that start, get ready or die, and by the clock, since rounds announce themselves to nobody. Whatever
happens here, every process has ended when this returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from collective_operator import conditions
from collective_operator.cluster.local import LocalCluster
from collective_operator.cluster.local_ports import LoopbackPorts
from collective_operator.cluster.local_process import Guard, kill
from collective_operator.cluster.protocol import TaskEvent, TaskKey
from collective_operator.controller import reconcile_once
from collective_operator.run.code_folder import OPTION
from collective_operator.run.platform import LocalPlatform, local_platform
from collective_operator.run.result import result_of
from collective_operator.run.rounds import RoundsFile
from collective_operator.run.task_file import TaskFile
from collective_operator.run.verdict import LEARNER_CRASHING, crash_at_start, tails
from collective_operator.run.view import Ended, View
from collective_operator.run.workdir import LOGS, PLOT, RESULT, ROUNDS, Workdir

COMPLETE, FAILED, INTERRUPTED = 0, 1, 130
MODELS = ("model.safetensors", "model.bin")
EXPORTS = ("model.onnx", "model-card.md")
BEST_MODELS = tuple(f"best-{name}" for name in MODELS)
_POLL_S = 0.2
_LEAVING_S = 5.0
"""How long a coordinator that gave its verdict may take to leave by itself."""
_PLOT_S = 120.0


@dataclass(slots=True)
class _Told:
    """Passes on what happens, in its order; no event again that was the last: a crash loop is news once."""

    view: View
    decided: RoundsFile
    last: TaskEvent | None = None

    def rounds(self) -> None:
        """Tell the rounds that were decided since."""
        for record in self.decided.new():
            self.view.round(record)

    def __call__(self, event: TaskEvent) -> None:
        if event != self.last:
            self.rounds()
            self.view.event(event)
        self.last = event


@dataclass(slots=True)
class _Interruption:
    """Ctrl-C, SIGTERM or the end of the terminal: the first ends the run in order, the second at once."""

    cluster: LocalCluster
    view: View
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        # Under nohup the end of the terminal is meant to be survived.
        numbers = tuple(number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN)
        for number in numbers:
            loop.add_signal_handler(number, self._ask)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _ask(self) -> None:
        if self.asked.is_set():
            self.cluster.kill()
        else:
            self.view.note("ending every process; once more to insist")
        self.asked.set()
        self.cluster.wake()


async def drive(file: TaskFile, workdir: Workdir, view: View, code: Mapping[str, Path]) -> int:
    """Run a task to its end.

    Parameters
    ----------
    file, workdir, view
        What to run, where, and how to tell.
    code
        The folders of the ConfigMaps that the task names.

    Returns
    -------
    int
        0 Complete, 1 Failed, 130 interrupted.
    """
    rounds = RoundsFile(workdir.path / ROUNDS)
    decided = sum(1 for _ in rounds.new())
    told = _Told(view, rounds)
    learners = file.task.spec.learners.size
    with contextlib.closing(LoopbackPorts()) as ports, contextlib.closing(Guard()) as guard:
        platform = local_platform(ports, learners=learners)
        cluster = LocalCluster(
            workdir.manifest(file),
            directory=workdir.path,
            coordinator_port=platform.coordinator_port,
            learners=learners,
            guard=guard,
            on_event=told,
            folders=code,
        )
        interruption = _Interruption(cluster, view)
        with interruption.listening():
            view.begin(
                name=file.task.name,
                workdir=workdir.path,
                rounds=file.task.spec.rounds,
                learners=learners,
                decided=decided,
            )
            if file.task.spec.suspend:
                view.note("spec.suspend is true, and nobody here would resume the task: it runs")
            try:
                key = TaskKey(file.task.namespace, file.task.name)
                ending = await _until_over(cluster, key, platform, told, interruption.asked)
            finally:
                await cluster.close()
            if ending is None:
                return _interrupted(file, workdir, view, code)
            told.rounds()
            # The result comes last: a run that is cut off before it is not finished, and can be gone on with.
            await draw(workdir.path, guard, view, interruption.asked)
            if interruption.asked.is_set():
                return _interrupted(file, workdir, view, code)
            result = result_of(
                ending.status,
                phase=ending.phase,
                reason=ending.reason,
                message=ending.message,
                model=next((name for name in MODELS if (workdir.path / name).exists()), None),
            )
            workdir.write_result(result)
            for export in result["formats"]:
                if "message" in export:
                    view.note(f"no {export['name']}: {export['message']}")
        logs = tails(cluster.pods(), ending.message, logs=workdir.path / LOGS) if ending.phase == "Failed" else ()
        view.end(Ended(result=result, workdir=workdir.path, files=files_of(workdir.path), logs=logs))
        return exit_status(result)


def _interrupted(file: TaskFile, workdir: Workdir, view: View, code: Mapping[str, Path]) -> int:
    options = [f"{OPTION}={name}={folder}" for name, folder in code.items()]
    command = shlex.join(["collective", "run", str(file.path), "--workdir", str(workdir.path), *options])
    view.note(f"interrupted; to go on: {command}")
    return INTERRUPTED


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ending:
    status: Mapping[str, Any]
    phase: str
    reason: str
    message: str


async def _until_over(
    cluster: LocalCluster,
    key: TaskKey,
    platform: LocalPlatform,
    told: _Told,
    interrupted: asyncio.Event,
) -> _Ending | None:
    """Reconcile until the task has ended; None when it was interrupted before."""
    leave_by: float | None = None
    clock = asyncio.get_running_loop().time
    while True:
        outcome = await reconcile_once(cluster, key, now=datetime.now(UTC), platform=platform)
        status: Mapping[str, Any] = outcome.task.get("status", {}) if outcome.task else {}
        told.rounds()
        told.view.status(status)
        if interrupted.is_set():
            return None
        ending = _ending_of(status)
        if ending is not None:
            leave_by = leave_by or clock() + _LEAVING_S
            if clock() > leave_by or not any(pod.pid for pod in cluster.pods().values()):
                return ending
        elif crash := crash_at_start(cluster.pods()):
            return _Ending(status=status, phase="Failed", reason=LEARNER_CRASHING, message=crash)
        await cluster.changed(_POLL_S if outcome.requeue_after is None else min(_POLL_S, outcome.requeue_after))


def _ending_of(status: Mapping[str, Any]) -> _Ending | None:
    if (found := conditions.ending(status)) is None:
        return None
    return _Ending(status=status, phase=found["type"], reason=found["reason"], message=found.get("message", ""))


async def draw(path: Path, guard: Guard, view: View, interrupted: asyncio.Event) -> None:
    """Draw rounds.png, by a program of its own; without a picture the run is none the worse."""
    if not (path / ROUNDS).exists() or (path / ROUNDS).stat().st_size == 0:
        return
    log = path / LOGS / "plot.log"
    with log.open("wb") as output:
        process = await guard.start(
            (sys.executable, "-m", "collective_coordinator.plot", str(path / ROUNDS), str(path / PLOT)),
            env=os.environ,
            directory=Path.cwd(),
            log=output,
        )
    waits = [asyncio.ensure_future(process.wait()), asyncio.ensure_future(interrupted.wait())]
    try:
        await asyncio.wait(waits, timeout=_PLOT_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        kill(process)
        await process.wait()
        guard.ended(process.pid)
        waits[1].cancel()
    if process.returncode:
        lines = log.read_text(errors="replace").strip().splitlines()
        view.note(f"{PLOT} was not drawn: {lines[-1] if lines else f'exit status {process.returncode}'}")


def files_of(path: Path) -> list[str]:
    """Name what a run left for people."""
    found = [name for name in (*MODELS, *EXPORTS, *BEST_MODELS, RESULT, ROUNDS, PLOT) if (path / name).exists()]
    return [*found, f"{LOGS}/"]


def exit_status(result: Mapping[str, Any]) -> int:
    """Return 0 for Complete, 1 for anything else."""
    return COMPLETE if result["phase"] == "Complete" else FAILED
