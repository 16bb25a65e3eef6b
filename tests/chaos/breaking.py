"""Does to one task what its plan says: signals, cut networks, full disks, a second coordinator."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any

from disk import Disk
from kubelet import Kubelet
from plan import COORDINATOR, CUT, FULL, KILL, PAUSE, SECOND, Fault
from proxy import Proxy
from tally import POLL_S, BrokenError, Tally

END_WITHIN_S = 5.0
"""After SIGTERM: 2 s by contract, and what a loaded machine takes."""
_TURN_S = 0.1


class Breaker:
    """Breaks one task.

    Parameters
    ----------
    faults
        What to do, in order.
    reached
        Tells whether a fault's time has come.
    spawn
        Has a fault go on beside those that follow.
    kubelet, proxies, disk
        What to do it to.
    tally
        Counts.
    """

    def __init__(
        self,
        faults: tuple[Fault, ...],
        *,
        reached: Callable[[Fault], bool],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        kubelet: Kubelet,
        proxies: list[Proxy],
        disk: Disk,
        tally: Tally,
    ) -> None:
        self._faults = faults
        self._reached = reached
        self._spawn = spawn
        self._kubelet = kubelet
        self._proxies = proxies
        self._disk = disk
        self._tally = tally

    async def run(self) -> None:
        """Do all of it."""
        for fault in self._faults:
            while not self._reached(fault):  # noqa: ASYNC110 - other processes' files tell nobody
                await asyncio.sleep(POLL_S if fault.told else POLL_S / 5)
            await asyncio.sleep(fault.delay_s)
            self._spawn(self._apply(fault))

    async def _apply(self, fault: Fault) -> None:
        match fault.kind:
            case "kill" | "terminate":
                await self._kill(fault)
            case "pause":
                await self._pause(fault)
            case "cut":
                await self._cut(fault)
            case "full disk":
                await self._disk.emptied()
                self._tally.faults[FULL] += 1
                await self._disk.fill(fault.seconds, room=fault.room)
            case "second coordinator":
                self._tally.faults[SECOND] += 1
                await self._kubelet.second_coordinator()

    async def _kill(self, fault: Fault) -> None:
        child = await self._kubelet.victim(fault.victim)
        role = _role(fault.victim)
        self._kubelet.trouble(fault.victim)
        self._kubelet.wait_s[fault.victim] = fault.seconds
        self._tally.faults[f"{fault.kind} {role}"] += 1
        if fault.kind == KILL:
            child.send(signal.SIGKILL)
            return
        child.send(signal.SIGTERM)
        child.send(signal.SIGCONT)
        seconds = await _seconds_until(child.exited)
        self._tally.slowest_s[role] = max(self._tally.slowest_s[role], seconds)
        if seconds > END_WITHIN_S:
            raise BrokenError(f"a {role} took {seconds:.1f} s to end after SIGTERM")

    async def _pause(self, fault: Fault) -> None:
        child = await self._kubelet.victim(fault.victim)
        self._kubelet.trouble(fault.victim)
        self._tally.faults[f"{PAUSE} {_role(fault.victim)}"] += 1
        child.send(signal.SIGSTOP)
        await asyncio.sleep(fault.seconds)
        child.send(signal.SIGCONT)
        self._kubelet.trouble(fault.victim)

    async def _cut(self, fault: Fault) -> None:
        proxy = self._proxies[fault.victim]
        self._kubelet.trouble(fault.victim)
        self._tally.faults[f"{CUT} ({fault.cut})"] += 1
        match fault.cut:
            case "refuse":
                await proxy.refuse(fault.seconds)
            case "stall" | "lose":
                await proxy.stall(fault.seconds, lose=fault.cut == "lose")
            case "delay":
                await proxy.delay(fault.seconds)
            case "snap":
                await proxy.snap(fault.room, fault.seconds)
        self._kubelet.trouble(fault.victim)


async def _seconds_until(event: asyncio.Future[int]) -> float:
    """Wait, and count the time in which this process had its turns: in a machine that stands still nobody can end."""
    seconds = 0.0
    while not event.done():
        started = time.monotonic()
        await asyncio.wait({event}, timeout=_TURN_S)
        seconds += min(time.monotonic() - started, 2 * _TURN_S)
    return seconds


def _role(victim: int) -> str:
    return "coordinator" if victim == COORDINATOR else "learner"
