"""Parts become one buffer again: allocated once, after the announced size was found allowed, and filled in step.

The size is not zeroed and its pages are touched only as bytes arrive, so a peer that announces much and sends little
costs little.
"""

from __future__ import annotations

import hashlib

import numpy as np

from collective_learner.wire.parts import PartSequence, TooLargeError, WireError, parse_part


class Assembly:
    """Receives one stream of parts.

    Call `take` for every message, `hash_next` in step or later (it may run in another thread, one call at a time), and
    `finish` at the end.

    Parameters
    ----------
    limit
        The most bytes that the whole may have.
    """

    def __init__(self, *, limit: int) -> None:
        self._sequence = PartSequence(limit=limit)
        self._buffer: memoryview = memoryview(b"")
        self._hash = hashlib.sha256()
        self._filled = self._hashed = 0
        self._claimed: bytes | None = None
        self.summary: bytes | None = None
        """The serialised TrainingSummary, from the first part."""

    @property
    def total(self) -> int:
        """The announced size in bytes; 0 before the first part."""
        return self._sequence.total or 0

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
            try:
                self._buffer = np.empty(part.total, dtype=np.uint8).data
            except MemoryError as error:
                raise TooLargeError(f"there is no memory for weights of {part.total} bytes") from error
        if part.digest is not None:
            self._claimed = part.digest
        end = part.offset + part.payload.nbytes
        self._buffer[part.offset : end] = part.payload
        self._filled = end  # only now: another thread may be hashing up to here

    def hash_next(self) -> None:
        """Hash what has arrived since the last call."""
        end = self._filled
        self._hash.update(self._buffer[self._hashed : end])
        self._hashed = end

    def finish(self) -> tuple[memoryview, bytes]:
        """Check that nothing is missing.

        Returns
        -------
        buffer
            The whole, contiguous.
        digest
            Its SHA-256.

        Raises
        ------
        WireError
            The stream ended early, or the digest that came with it is that of other bytes.
        """
        self._sequence.finish()
        self.hash_next()
        digest = self._hash.digest()
        if self._claimed is not None and self._claimed != digest:
            raise WireError(f"the weights have the digest {digest.hex()}, their sender says {self._claimed.hex()}")
        return self._buffer, digest
