"""When a coordinator is asked how far it is, and how long it has said nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from collective_operator.cluster.coordinator_status import AskCoordinator
from collective_operator.cluster.memory import Record
from collective_operator.cluster.protocol import Manifest
from collective_operator.progress import read_progress

_SAME_TURN_SECONDS = 1.0
"""An answer this young is that of the look before in the same turn."""
_PATIENCE, _MOST_PATIENT_SECONDS = 4, 30.0
"""Who has been silent is asked again after a quarter of that time: a thousand that hang must not hold up the others."""


class Asking:
    """Asks coordinators, and remembers in a task's record what they answered.

    Parameters
    ----------
    ask
        The way to them.
    """

    def __init__(self, ask: AskCoordinator) -> None:
        self._ask = ask

    async def progress(
        self, coordinator: Manifest | None, record: Record, *, of: str, anew: bool
    ) -> tuple[dict[str, Any] | None, float]:
        """Ask the coordinator of a task, and tell how many seconds it has not answered.

        Parameters
        ----------
        coordinator
            Its pod; None when there is none.
        record
            The task's.
        of
            The task's uid: what is another's word, or makes no sense, is no answer.
        anew
            Whether this is a second look in one turn, for which the answer to the first will do.
        """
        if coordinator is None or not _answers(coordinator):
            record.heard, record.answer = ("", 0.0), None
            return None, 0.0
        clock, uid = asyncio.get_running_loop().time, coordinator["metadata"]["uid"]
        if record.heard[0] != uid:
            record.heard, record.answer = (uid, clock()), None
        patience = min((clock() - record.heard[1]) / _PATIENCE, _MOST_PATIENT_SECONDS)
        if record.answer and record.answer[1] is None and clock() - record.answer[0] < patience:
            said = None
        elif record.answer and anew and clock() - record.answer[0] < _SAME_TURN_SECONDS:
            said = record.answer[1]
        else:
            said = await self._ask(coordinator)
            said = said if read_progress(said, uid=of) else None
            record.answer = (clock(), said)
        if said is not None:
            record.heard = (uid, clock())
        return said, clock() - record.heard[1]


def _answers(pod: Mapping[str, Any]) -> bool:
    """Tell whether there may be somebody to ask."""
    status = pod.get("status") or {}
    return status.get("phase") == "Running" and "podIP" in status and "deletionTimestamp" not in pod["metadata"]
