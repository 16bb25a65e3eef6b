"""Places that namespaces share: none of them can take them all.

An admission webhook that hangs holds whatever is created in its namespace for ten seconds or thirty, and the next one
then.  Those of other namespaces must not stand in line behind that.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Shares:
    """So many places; who comes first is served first.

    Parameters
    ----------
    places
        How many there are.
    of_one
        How many of them one namespace may hold.
    """

    def __init__(self, places: int, *, of_one: int) -> None:
        self._all = asyncio.Semaphore(places)
        # A namespace that is gone leaves some hundred bytes.
        self._own: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(of_one))

    async def take(self, namespace: str) -> None:
        """Wait for a place."""
        own = self._own[namespace]
        await own.acquire()
        try:
            await self._all.acquire()
        except BaseException:
            own.release()
            raise

    def give_back(self, namespace: str) -> None:
        """Leave a place that was taken."""
        self._all.release()
        self._own[namespace].release()

    @asynccontextmanager
    async def place(self, namespace: str) -> AsyncIterator[None]:
        """Hold a place while a block runs."""
        await self.take(namespace)
        try:
            yield
        finally:
            self.give_back(namespace)
