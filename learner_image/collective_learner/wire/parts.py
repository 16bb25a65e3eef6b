"""WeightsPart by hand: the protobuf message around the bytes costs a quarter to a third of the throughput.

Generated messages copy the payload twice on each side (into the message, then onto the wire). Here a part is written
with one copy and read with none, and whoever only forwards parts passes the very bytes on. What is written is what
protobuf would write, so any peer with generated stubs reads it; what is read may come from any peer, its fields in any
order, unknown fields skipped. Source: the encoding guide at protobuf.dev/programming-guides/encoding.

`PartSequence` refuses a stream that lies about itself before anything is allocated for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

PART_BYTES = 1 << 19
"""Payload of the parts that we send: 256 kB to 1 MB moved fastest, and dozens of streams hold some parts each."""

MAX_MESSAGE_BYTES = 4 << 20
"""The largest message that we read: colearn's parts of 4,000,000 bytes and their frame; gRPC's own default limit."""

_UINT32_MAX = (1 << 32) - 1
_UINT64_MASK = (1 << 64) - 1

_WEIGHTS, _BYTE_INDEX, _TOTAL_BYTES, _SUMMARY, _BYTE_OFFSET, _DIGEST = 1, 2, 3, 10, 100, 101
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class WireError(ValueError):
    """What a peer sent is not what it should be; the message says what was wrong, for a person."""


class TooLargeError(WireError):
    """A stream announces or carries more than is allowed here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One WeightsPart, read.

    Parameters
    ----------
    payload
        The piece of the serialised weights, a view of the message that it came in.
    offset
        Where the piece belongs, in bytes from the start.
    total
        The size of the whole, in bytes, as announced by this part.
    summary
        A serialised TrainingSummary, or None.
    digest
        Digest of the whole, in the last part of peers that send it, or None.
    """

    payload: memoryview
    offset: int
    total: int
    summary: bytes | None = None
    digest: bytes | None = None


def encode_part(
    payload: bytes | memoryview | Sequence[memoryview],
    *,
    offset: int,
    total: int,
    summary: bytes | None = None,
    digest: bytes | None = None,
) -> bytes:
    """Serialise one WeightsPart.

    Parameters
    ----------
    payload
        The piece, contiguous bytes; or several that follow each other, so that none has to be joined before.
    offset, total
        Where it belongs and the size of the whole, in bytes.
    summary
        A serialised TrainingSummary; belongs in the first part.
    digest
        Digest of the whole; belongs in the last part.

    Returns
    -------
    bytes
        The message, ready for the wire.
    """
    views = (payload,) if isinstance(payload, bytes | memoryview) else payload
    size = sum(view.nbytes if isinstance(view, memoryview) else len(view) for view in views)
    pieces: list[bytes | memoryview] = [_tag(_WEIGHTS, _BYTES), _varint(size), *views]
    if offset and offset <= _UINT32_MAX:
        pieces += (_tag(_BYTE_INDEX, _VARINT), _varint(offset))
    pieces += (_tag(_TOTAL_BYTES, _VARINT), _varint(total))
    if summary is not None:
        pieces += (_tag(_SUMMARY, _BYTES), _varint(len(summary)), summary)
    if offset > _UINT32_MAX:
        pieces += (_tag(_BYTE_OFFSET, _VARINT), _varint(offset))
    if digest is not None:
        pieces += (_tag(_DIGEST, _BYTES), _varint(len(digest)), digest)
    return b"".join(pieces)


def encode_parts(
    data: bytes | memoryview, *, summary: bytes | None = None, digest: bytes | None = None, part_bytes: int = PART_BYTES
) -> Iterator[bytes]:
    """Cut contiguous bytes into serialised parts; the summary goes into the first, the digest into the last."""
    view = memoryview(data).cast("B")
    total = view.nbytes
    for offset in range(0, total, part_bytes) or (0,):
        last = offset + part_bytes >= total
        yield encode_part(
            view[offset : offset + part_bytes],
            offset=offset,
            total=total,
            summary=summary if offset == 0 else None,
            digest=digest if last else None,
        )


def cut_into_parts(
    pieces: Iterable[memoryview],
    *,
    total: int,
    summary: bytes | None = None,
    part_bytes: int = PART_BYTES,
) -> Iterator[bytes]:
    """Cut bytes that lie in several places into serialised parts.

    Parameters
    ----------
    pieces
        Views of contiguous bytes, together the whole, none of them empty.
    total
        The size of the whole, in bytes, at least 1.
    summary
        A serialised TrainingSummary.
    part_bytes
        The payload of each part but the last.
    """
    offset = size = 0
    waiting: list[memoryview] = []
    for piece in pieces:
        at = 0
        while at < piece.nbytes:
            view = piece[at : at + part_bytes - size]
            waiting.append(view)
            at += view.nbytes
            size += view.nbytes
            if size == part_bytes or offset + size == total:
                yield encode_part(waiting, offset=offset, total=total, summary=summary if offset == 0 else None)
                offset, size, waiting = offset + size, 0, []


def parse_part(message: bytes) -> Part:  # noqa: PLR0912 - one pass over one message, its cases side by side
    """Read one WeightsPart without copying its payload.

    Raises
    ------
    WireError
        When the message is no well-formed protobuf, or a known field has another type.
    """
    view = memoryview(message)
    end = len(message)
    payload, index, long_offset, total = view[:0], 0, 0, 0
    summary: bytes | None = None
    digest: bytes | None = None
    at = 0
    while at < end:
        key, at = _read_varint(message, at)
        field, kind = key >> 3, key & 7
        if kind == _BYTES:
            size, at = _read_varint(message, at)
            if size > end - at:
                raise WireError(f"a WeightsPart ends inside its field {field}")
            value = view[at : at + size]
            at += size
            if field == _WEIGHTS:
                payload = value
            elif field == _SUMMARY:
                # Repeated sub-messages merge, and concatenation is how protobuf defines merging.
                summary = (summary or b"") + bytes(value)
            elif field == _DIGEST:
                digest = bytes(value)
            elif field in (_BYTE_INDEX, _TOTAL_BYTES, _BYTE_OFFSET):
                raise WireError(f"field {field} of a WeightsPart is no number")
        elif kind == _VARINT:
            number, at = _read_varint(message, at)
            if field == _BYTE_INDEX:
                index = number & _UINT32_MAX
            elif field == _TOTAL_BYTES:
                total = number
            elif field == _BYTE_OFFSET:
                long_offset = number
            elif field in (_WEIGHTS, _SUMMARY, _DIGEST):
                raise WireError(f"field {field} of a WeightsPart is a number")
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
            if at > end:
                raise WireError(f"a WeightsPart ends inside its field {field}")
        else:
            raise WireError(f"a WeightsPart holds a field of the unknown wire type {kind}")
        if field == 0:
            raise WireError("a WeightsPart holds a field with the number 0")
    return Part(payload=payload, offset=long_offset or index, total=total, summary=summary, digest=digest)


class PartSequence:
    """Follows one stream of parts and refuses it at the first that does not fit.

    Parameters
    ----------
    limit
        The most bytes that the whole may have.
    """

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self.total: int | None = None
        """The announced size in bytes; None before the first part."""
        self.received = 0
        """Bytes seen so far."""

    def take(self, part: Part) -> None:
        """Check the next part.

        Raises
        ------
        TooLargeError
            The announced size is above the limit.
        WireError
            The size changed on the way, the piece does not start where the last one ended, is empty, or goes past the
            announced end.
        """
        if self.total is None:
            if part.total > self._limit:
                raise TooLargeError(f"the weights announce {part.total} bytes, the limit here is {self._limit}")
            self.total = part.total
        elif part.total != self.total:
            raise WireError(f"the weights announced {self.total} bytes in the first part, {part.total} in a later one")
        size = part.payload.nbytes
        if part.offset != self.received:
            raise WireError(f"a part starts at byte {part.offset}, the one before ended at {self.received}")
        if self.received + size > self.total:
            raise WireError(f"the parts hold more than the announced {self.total} bytes")
        if size == 0 and self.total:
            raise WireError(f"an empty part at byte {self.received} of {self.total}")
        self.received += size

    def finish(self) -> None:
        """Check that nothing is missing.

        Raises
        ------
        WireError
            No part came, or the stream ended before the announced size.
        """
        if self.total is None:
            raise WireError("the stream of weights held no part")
        if self.received != self.total:
            raise WireError(f"the stream of weights ended at byte {self.received} of {self.total}")


def _tag(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    for position in range(at, min(at + 10, len(message))):
        byte = message[position]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & _UINT64_MASK, position + 1
        shift += 7
    raise WireError("a WeightsPart holds a number that does not end")
