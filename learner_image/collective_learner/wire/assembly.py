"""Parts become one buffer again: allocated once, after the announced size was found allowed, and filled in step.

The size is not zeroed and its pages are touched only as bytes arrive, so a peer that announces much and sends little
costs little. Nothing is hashed here: weights are checked against their name when they are taken, not on the way.
"""

from __future__ import annotations

import numpy as np

from collective_learner.wire.parts import PartSequence, TooLargeError, parse_part


class Assembly:
    """Receives one stream of parts: call `take` for every message, and `finish` at the end.

    Parameters
    ----------
    limit
        The most bytes that the whole may have.
    """

    def __init__(self, *, limit: int) -> None:
        self._sequence = PartSequence(limit=limit)
        self._buffer: memoryview = memoryview(b"")
        self._claimed: bytes | None = None
        self.summary: bytes | None = None
        """The serialised TrainingSummary, from the first part."""

    def take(self, message: bytes) -> None:
        """Put the next part in its place.

        Raises
        ------
        TooLargeError
            More is announced than is allowed, or than there is memory.
        WireError
            The part does not fit.
        """
        part = parse_part(message)
        first = self._sequence.total is None
        self._sequence.take(part)
        if first:
            self.summary = part.summary
            self._allocate(part.total)
        if part.digest is not None:
            self._claimed = part.digest
        self._buffer[part.offset : part.offset + part.payload.nbytes] = part.payload

    def finish(self) -> tuple[memoryview, bytes | None]:
        """Check that nothing is missing.

        Returns
        -------
        buffer
            The whole, contiguous.
        digest
            What its sender says it is called, unchecked; None when it says nothing.

        Raises
        ------
        WireError
            The stream ended early.
        """
        self._sequence.finish()
        return self._buffer, self._claimed

    def _allocate(self, total: int) -> None:
        try:
            self._buffer = np.empty(total, dtype=np.uint8).data
        except MemoryError as error:
            raise TooLargeError(f"there is no memory for weights of {total} bytes") from error
