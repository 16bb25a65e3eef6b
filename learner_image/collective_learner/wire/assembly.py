"""Parts become one buffer again: allocated once, after the announced size was found allowed, and filled in step.

The size is not zeroed and its pages are touched only as bytes arrive, so a peer that announces much and sends little
costs little. Nor is there a buffer while what arrives is what the receiver has anyway: a proposal that comes back to
the learner that made it is compared instead of kept twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from collective_learner.wire.codec import EncodedWeights
from collective_learner.wire.parts import PartSequence, TooLargeError, WireError, parse_part


class Assembly:
    """Receives one stream of parts.

    Call `take` for every message, `hash_next` in step or later (it may run in another thread, one call at a time), and
    `finish` at the end.

    Parameters
    ----------
    limit
        The most bytes that the whole may have.
    known
        Weights that are at hand, and may be those that arrive; let go as soon as they are not.
    """

    def __init__(self, *, limit: int, known: EncodedWeights | None = None) -> None:
        self._known = known
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

    @property
    def known(self) -> EncodedWeights | None:
        """The known weights, if all that arrived is as there; then `finish` gives no buffer."""
        return self._known

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
            if self._known is None or self._known.total != part.total:
                self._allocate(part.total)
        if part.digest is not None:
            self._claimed = part.digest
        end = part.offset + part.payload.nbytes
        if self._known is not None and not _are_equal(part.payload, self._known.between(part.offset, end)):
            self._allocate(part.total)
        if self._known is None:
            self._buffer[part.offset : end] = part.payload
        self._filled = end  # only now: another thread may be hashing up to here

    def hash_next(self) -> None:
        """Hash what has arrived since the last call."""
        end = self._filled
        known = self._known  # once: another thread may be giving it up
        for view in (self._buffer[self._hashed : end],) if known is None else known.between(self._hashed, end):
            self._hash.update(view)
        self._hashed = end

    def finish(self) -> tuple[memoryview, bytes]:
        """Check that nothing is missing.

        Returns
        -------
        buffer
            The whole, contiguous; empty if it is `known`.
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

    def _allocate(self, total: int) -> None:
        try:
            buffer = np.empty(total, dtype=np.uint8).data
        except MemoryError as error:
            raise TooLargeError(f"there is no memory for weights of {total} bytes") from error
        if self._known is not None:
            at = 0
            for view in self._known.between(0, self._filled):
                buffer[at : at + view.nbytes] = view
                at += view.nbytes
        self._buffer = buffer
        self._known = None  # only now: another thread may be hashing


def _are_equal(payload: memoryview, views: Iterable[memoryview]) -> bool:
    at = 0
    for view in views:
        # By numpy, because memoryviews compare number by number.
        mine, theirs = (np.frombuffer(each, dtype=np.uint8) for each in (payload[at : at + view.nbytes], view))
        if not np.array_equal(mine, theirs):
            return False
        at += view.nbytes
    return at == payload.nbytes
