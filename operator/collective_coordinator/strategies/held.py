"""The weights that all learners hold, read piece by piece beside the trainers' streams.

For strategies whose proposal depends on where everyone stands. The file may be larger than memory, so nothing of it is
kept.
"""

from __future__ import annotations

import os

from collective_coordinator.aggregation.layout import Layout, header_bytes, parse_layout
from collective_coordinator.errors import LearnerError
from collective_coordinator.spool import StoredWeights, read_exactly


class HeldWeights:
    """Reads the current weights; its calls block.

    Parameters
    ----------
    current
        Where they are.
    layout
        What the trainers sent.

    Raises
    ------
    LearnerError
        The trainers sent another model; the message names a tensor.
    """

    def __init__(self, current: StoredWeights, layout: Layout) -> None:
        self._file = os.open(current.path, os.O_RDONLY | os.O_CLOEXEC)
        prefix = read_exactly(self._file, 0, min(8, current.size))
        self._data = header_bytes(prefix)
        held = parse_layout(read_exactly(self._file, 0, self._data))
        if difference := held.difference(layout):
            raise LearnerError(f"sent another model than the current one: {difference}")

    def __del__(self) -> None:
        os.close(self._file)

    def read(self, begin: int, size: int) -> bytes:
        """Read `size` bytes of the data, from `begin` on."""
        return read_exactly(self._file, self._data + begin, size)
