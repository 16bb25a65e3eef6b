"""Who leads: in a world of slow, lost and late answers, on virtual time; never two at once, and soon somebody."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collective_operator.cluster.protocol import ClusterError
from collective_operator.leadership import Leadership, LeadershipLostError, Timing

from .specs import examples
from .virtual_time import on_virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


class Store:
    """The API server's copy of the Lease."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.writes: list[str] = []

    def write(self, spec: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        self.lease = {"metadata": {"resourceVersion": str(self.version)}, "spec": dict(spec)}
        self.writes.append(spec["holderIdentity"])
        return copy.deepcopy(self.lease)


class Way:
    """One process' way to the store; `delay` says how long each leg of a request takes, or that it is lost."""

    def __init__(self, store: Store, delay: Callable[[], float | None] = lambda: 0.0) -> None:
        self.store = store
        self.delay = delay

    async def _leg(self) -> None:
        seconds = self.delay()
        if seconds is None:
            await asyncio.sleep(2)
            raise ClusterError(status=0, message="no answer")
        await asyncio.sleep(seconds)

    async def read(self) -> dict[str, Any] | None:
        await self._leg()
        answer = copy.deepcopy(self.store.lease)
        await self._leg()
        return answer

    async def create(self, spec: dict[str, Any]) -> dict[str, Any]:
        await self._leg()
        if self.store.lease is not None:
            raise ClusterError(status=409, message="it exists")
        answer = self.store.write(spec)
        await self._leg()
        return answer

    async def replace(self, lease: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
        await self._leg()
        if self.store.lease is None:
            raise ClusterError(status=404, message="there is none")
        if self.store.lease["metadata"]["resourceVersion"] != lease["metadata"]["resourceVersion"]:
            raise ClusterError(status=409, message="it has changed")
        answer = self.store.write(spec)
        await self._leg()
        return answer


def operator(name: str, way: Way, *, ahead: float = 0.0) -> Leadership:
    return Leadership(leases=way, identity=name, clock=lambda: now() + ahead)


async def after(seconds: float) -> None:
    await asyncio.sleep(seconds)


def test_the_first_leads_and_the_second_waits_for_as_long_as_the_first_renews() -> None:
    async def main() -> None:
        store = Store()
        one, two = operator("one", Way(store)), operator("two", Way(store), ahead=1e6)
        await one.acquire()
        keeping, waiting = asyncio.create_task(one.keep()), asyncio.create_task(two.acquire())
        await after(300)
        assert one.leads() and not waiting.done()
        keeping.cancel()  # killed
        killed = now()
        await waiting
        assert two.leads() and not one.leads()
        assert now() - killed <= Timing().lease_s + Timing().retry_s < 15
        assert store.lease and store.lease["spec"]["leaseTransitions"] == 1

    on_virtual_time(main)


def test_what_is_given_back_is_taken_at_the_next_look() -> None:
    async def main() -> None:
        store = Store()
        one, two = operator("one", Way(store)), operator("two", Way(store))
        await one.acquire()
        waiting = asyncio.create_task(two.acquire())
        await after(5)
        await one.release()
        assert not one.leads()
        released = now()
        await waiting
        assert two.leads() and now() - released <= Timing().retry_s

    on_virtual_time(main)


def test_it_is_given_back_also_while_it_is_being_renewed() -> None:
    """Whoever ends does not wait for the answer of a renewal that has arrived."""

    async def main() -> None:
        store = Store()
        one, two = operator("one", Way(store, lambda: 0.1)), operator("two", Way(store))
        await one.acquire()
        keeping, waiting = asyncio.create_task(one.keep()), asyncio.create_task(two.acquire())
        await after(Timing().retry_s + 0.15)
        assert len(store.writes) == 2
        keeping.cancel()
        await asyncio.wait({keeping})
        await one.release()
        released = now()
        await waiting
        assert now() - released <= Timing().retry_s

    on_virtual_time(main)


def test_a_leader_that_was_stopped_does_not_act_when_it_wakes_up() -> None:
    async def main() -> None:
        store, stopped = Store(), [0.0]
        one = Leadership(leases=Way(store), identity="one", clock=lambda: now() + stopped[0])
        await one.acquire()
        keeping = asyncio.create_task(one.keep())
        await after(3)
        stopped[0] = 7.1  # its clock went on, and nothing else
        assert not one.leads()
        writes = len(store.writes)
        with pytest.raises(LeadershipLostError, match="could not renew its lease in time"):
            await keeping
        assert len(store.writes) == writes

    on_virtual_time(main)


def test_a_lease_that_somebody_else_has_taken_is_lost_at_once() -> None:
    async def main() -> None:
        store = Store()
        one = operator("one", Way(store))
        await one.acquire()
        keeping = asyncio.create_task(one.keep())
        await after(1)
        assert store.lease
        store.write({**store.lease["spec"], "holderIdentity": "two"})
        with pytest.raises(LeadershipLostError, match="has lost its lease to two"):
            await keeping
        assert not one.leads()
        await one.release()
        assert store.lease["spec"]["holderIdentity"] == "two"

    on_virtual_time(main)


def test_a_label_on_the_lease_and_a_lost_answer_lose_nothing() -> None:
    async def main() -> None:
        store = Store()
        delays: list[float | None] = []
        one = operator("one", Way(store, lambda: delays.pop(0) if delays else 0.0))
        await one.acquire()
        keeping = asyncio.create_task(one.keep())
        await after(1)
        assert store.lease
        store.version += 1
        store.lease["metadata"] = {"resourceVersion": str(store.version), "labels": {"team": "ml"}}
        await after(3)
        delays[:] = [0.0, None]  # the next renewal arrives, and its answer does not
        await after(10)
        assert one.leads() and not keeping.done()
        keeping.cancel()

    on_virtual_time(main)


@pytest.mark.parametrize("seconds", [86_400, 1, None])
def test_a_duration_that_somebody_has_written_into_the_lease_moves_nobody(seconds: int | None) -> None:
    async def main() -> None:
        store = Store()
        one, two = operator("one", Way(store)), operator("two", Way(store))
        await one.acquire()
        keeping, waiting = asyncio.create_task(one.keep()), asyncio.create_task(two.acquire())
        await after(5)
        assert store.lease
        store.write({**store.lease["spec"], "leaseDurationSeconds": seconds})
        for _ in range(100):
            await after(0.1)
            assert one.leads() and not two.leads()
        keeping.cancel()  # killed
        killed = now()
        await waiting
        assert now() - killed <= Timing().lease_s + Timing().retry_s

    on_virtual_time(main)


def deleted(store: Store) -> None:
    store.lease = None


def without_its_holder(store: Store) -> None:
    assert store.lease
    store.write({**store.lease["spec"], "holderIdentity": ""})


@pytest.mark.parametrize("tamper", [deleted, without_its_holder])
def test_a_lease_that_somebody_tampers_with_is_not_taken_while_its_holder_acts(tamper: Callable[[Store], None]) -> None:
    async def main() -> None:
        store = Store()
        one, two = operator("one", Way(store)), operator("two", Way(store))
        await one.acquire()
        keeping = asyncio.create_task(one.keep())
        await after(1)
        waiting = asyncio.create_task(two.acquire())
        await after(3.5)  # half a second before the second looks, and a second and a half before the first renews
        tamper(store)
        with pytest.raises(LeadershipLostError, match="lost its lease to nobody"):
            while not keeping.done():
                assert not (one.leads() and two.leads())
                await after(0.1)
            await keeping
        await waiting
        assert two.leads()

    on_virtual_time(main)


def test_a_lease_that_has_been_passed_on_as_often_as_can_be_told_is_passed_on() -> None:
    async def main() -> None:
        store = Store()
        most = 2**31 - 1
        store.write({"holderIdentity": "gone", "leaseDurationSeconds": 10, "leaseTransitions": most})
        one = operator("one", Way(store))
        await one.acquire()
        assert store.lease and store.lease["spec"]["leaseTransitions"] == most

    on_virtual_time(main)


def test_a_foreign_lease_with_nothing_in_it_is_free() -> None:
    async def main() -> None:
        store = Store()
        store.lease = {"metadata": {"resourceVersion": "0"}, "spec": {}}
        one = operator("one", Way(store))
        await one.acquire()
        assert one.leads() and store.writes == ["one"]

    on_virtual_time(main)


@settings(max_examples=examples(30))
@given(seed=st.integers(0, 2**32 - 1), lossy=st.floats(0, 0.5), stops=st.booleans())
def test_there_are_never_two_and_soon_one(seed: int, lossy: float, stops: bool) -> None:
    chance = random.Random(seed)
    troubled = [True]

    def delay() -> float | None:
        if not troubled[0]:
            return 0.01
        if chance.random() < lossy:
            return None
        return chance.choice([0.0, 0.1, 1.0, 3.9, 12.0 if stops else 0.5])

    async def main() -> None:
        store = Store()
        claims: list[Leadership] = []

        async def life(name: str) -> None:
            for number in range(10_000):
                claim = operator(f"{name}-{number}", Way(store, delay), ahead=chance.uniform(-1e6, 1e6))
                claims.append(claim)
                try:
                    await claim.acquire()
                    if chance.random() < 0.3:
                        async with asyncio.timeout(chance.uniform(0, 60)):
                            await claim.keep()
                    await claim.keep()
                except TimeoutError:
                    if chance.random() < 0.5:
                        await claim.release()
                    # else killed: whatever it holds runs out
                    claims.remove(claim)
                except LeadershipLostError:
                    assert not claim.leads()
                    claims.remove(claim)

        lives = [asyncio.create_task(life(name)) for name in ("one", "two", "three")]
        for _ in range(2_000):
            await after(0.1)
            assert sum(claim.leads() for claim in claims) <= 1
            for done in lives:
                assert not done.done(), done.exception()
        troubled[0] = False
        await after(60)
        assert store.writes
        for running in lives:
            running.cancel()
        await asyncio.wait(lives)

    on_virtual_time(main)
