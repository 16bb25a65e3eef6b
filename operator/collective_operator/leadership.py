"""One operator acts at a time: a Lease says which, and whoever is not sure of it does nothing.

The leader renews the Lease and stops acting well before the others may take it: it counts from when it *asked* for its
last renewal, they count from when they *saw* it, and each counts on its own clock, so that clocks that differ, or jump,
mean nothing.  The clock goes on while the process is stopped or the machine sleeps: a leader that wakes up finds its
time over before it sends anything (`require`).  The times in the Lease are for people to read.

What such a leader had sent already does no harm by being late: children have deterministic names, deletions name a
uid, and a status is written over the version that was read.  Source of the Lease's meaning: Kubernetes' API reference,
coordination.k8s.io/v1, and its client-go package tools/leaderelection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from collective_operator.cluster.protocol import ClusterError, Manifest

_DURATION = "leaseDurationSeconds"
_MOST_TRANSITIONS = 2**31 - 1
"""That a Lease can tell of."""

_log = logging.getLogger(__name__)


class Leases(Protocol):
    """Where the one Lease is."""

    async def read(self) -> Manifest | None:
        """Read it; None when there is none."""

    async def create(self, spec: Manifest) -> Manifest:
        """Create it; that it is there already raises ClusterError with status 409."""

    async def replace(self, lease: Manifest, spec: Manifest) -> Manifest:
        """Give it another spec; that it has changed since it was read raises ClusterError with status 409."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long leadership lasts, in seconds."""

    lease_s: int = 10
    """After so long without a renewal others take the Lease."""

    act_s: float = 7.0
    """For so long after it asked for a renewal a leader acts; the rest is for requests that are under way."""

    retry_s: float = 2.0
    """How often a leader renews, and how often the others look."""

    again_s: float = 0.5
    """How soon a renewal that failed is tried again."""


class LeadershipLostError(Exception):
    """Somebody else leads, or nobody knows: end, and begin anew as one of those who wait."""


def boottime() -> float:
    """Seconds on a clock that also counts while the machine sleeps, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Leadership:
    """The claim of one operator process to the Lease.

    Parameters
    ----------
    leases
        Where the Lease is.
    identity
        Names this process, and no other that ever was.
    timing
        How long leadership lasts.
    clock
        Seconds; goes on while the process is stopped.
    """

    def __init__(
        self, *, leases: Leases, identity: str, timing: Timing | None = None, clock: Callable[[], float] = boottime
    ) -> None:
        self._leases = leases
        self._identity = identity
        self._timing = timing or Timing()
        self._clock = clock
        self._lease: Manifest = {}
        self._acts_until = float("-inf")

    def leads(self) -> bool:
        """Tell whether this process may act now."""
        return self.remaining() > 0

    def remaining(self) -> float:
        """Tell for how many seconds it may still act if nothing more is heard; not above 0 when it may not."""
        return self._acts_until - self._clock()

    async def acquire(self) -> None:
        """Wait until this process leads; an API server that does not answer is waited for."""
        seen: tuple[object, ...] | None = None
        seen_at, lasts = self._clock(), 0.0
        told: str | None = None
        while True:
            wait = self._timing.retry_s
            try:
                lease = await self._leases.read()
                now = self._clock()
                # Whoever held one that somebody has deleted acts until its next renewal.
                if lease is not None and (what := _version(lease)) != seen:
                    seen, seen_at, lasts = what, now, self._lasts(lease)
                free_in = lasts - (now - seen_at)
                if free_in <= 0:
                    await self._take(lease)
                    _log.info("%s leads", self._identity)
                    return
                holder = _spec(lease).get("holderIdentity")
                if holder != told:
                    _log.info("%s leads, %s waits", holder, self._identity)
                    told = holder
                wait = min(wait, free_in)
            except ClusterError as error:
                if error.status != 409:
                    _log.warning("the lease cannot be had: %s", error)
            await asyncio.sleep(wait)

    async def keep(self) -> None:
        """Renew, for as long as that works.

        Raises
        ------
        LeadershipLostError
            Somebody else has the Lease, or it could not be renewed in time.
        """
        pause = self._timing.retry_s
        while True:
            await asyncio.sleep(min(pause, max(0.0, self.remaining())))
            pause = self._timing.again_s
            if self.leads():
                try:
                    async with asyncio.timeout(self.remaining()):
                        await self._renew()
                        pause = self._timing.retry_s
                except ClusterError as error:
                    _log.warning("the lease was not renewed: %s", error)
                except TimeoutError:
                    _log.warning("the lease was not renewed: no answer")
            if not self.leads():
                raise LeadershipLostError(f"{self._identity} could not renew its lease in time")

    async def release(self) -> None:
        """Stop acting, and let another operator begin at once."""
        led, self._acts_until = self.leads(), float("-inf")
        if not led:
            return
        with contextlib.suppress(ClusterError, LeadershipLostError, TimeoutError):  # then it runs out
            async with asyncio.timeout(self._timing.retry_s):
                await self._rewrite(_given_back)
                _log.info("%s has given the lease back", self._identity)

    async def _take(self, lease: Manifest | None) -> None:
        asked = self._clock()
        now = _stamp()
        spec = {
            "holderIdentity": self._identity,
            _DURATION: self._timing.lease_s,
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": 0
            if lease is None
            else min(int(_spec(lease).get("leaseTransitions") or 0) + 1, _MOST_TRANSITIONS),
        }
        self._lease = await (self._leases.create(spec) if lease is None else self._leases.replace(lease, spec))
        self._acts_until = asked + self._timing.act_s

    async def _renew(self) -> None:
        asked = self._clock()
        await self._rewrite(self._renewed)
        self._acts_until = asked + self._timing.act_s

    async def _rewrite(self, changed: Callable[[Manifest], dict[str, Any]]) -> None:
        """Give the Lease that this process holds another spec."""
        try:
            self._lease = await self._leases.replace(self._lease, changed(self._lease))
        except ClusterError as error:
            if error.status not in (404, 409):
                raise
            # Somebody has written to it: another operator, or a person who put a label on it; or an earlier renewal
            # did arrive, and only its answer was lost, or not waited for.
            found = await self._leases.read()
            if found is None or _spec(found).get("holderIdentity") != self._identity:
                self._acts_until = float("-inf")
                holder = "nobody" if found is None else _spec(found).get("holderIdentity") or "nobody"
                raise LeadershipLostError(f"{self._identity} has lost its lease to {holder}") from error
            self._lease = await self._leases.replace(found, changed(found))

    def _renewed(self, lease: Manifest) -> dict[str, Any]:
        """Write a spec anew, also what a person may have changed: how long the others wait when this process dies."""
        return {**_spec(lease), _DURATION: self._timing.lease_s, "renewTime": _stamp()}

    def _lasts(self, lease: Manifest) -> float:
        """Seconds that it is good for after a renewal, at least those in which a leader acts; none when given back.

        Whoever gives it back leaves no duration in it: where there is one and no holder, a person has taken the holder
        out, who acts until it comes to know that.
        """
        spec = _spec(lease)
        said = float(spec.get(_DURATION) or 0)
        return max(said, self._timing.lease_s) if spec.get("holderIdentity") else said


def _spec(lease: Manifest | None) -> dict[str, Any]:
    return (lease or {}).get("spec") or {}


def _given_back(lease: Manifest) -> dict[str, Any]:
    left = {name: value for name, value in _spec(lease).items() if name != _DURATION}
    return {**left, "holderIdentity": ""}


def _version(lease: Manifest | None) -> tuple[object, ...]:
    """Tell a renewal from the one before; by what it says, since whoever writes a label renews nothing."""
    spec = _spec(lease)
    return tuple(spec.get(field) for field in ("holderIdentity", "acquireTime", "renewTime", "leaseTransitions"))


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
