"""Weights as a pickled list of numpy arrays: what the original colearn's orchestrators send and expect.

Opt-in (``--weights-format numpy-pickle``), for learners that such an orchestrator drives. What goes out is written by
hand, so that every array goes onto the wire as it lies in memory, and with the names that numpy had before version 2,
which all versions read. What comes in is read by `pickle_reader`, which runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from collective_learner.mli import Weights
from collective_learner.wire.codec import EncodedWeights, encode
from collective_learner.wire.parts import WireError
from collective_learner.wire.pickle_reader import Reader

_SLACK_ARRAYS = 8
"""Arrays more than the model has that are still read, so that their number can be told."""

_PROTOCOL = b"\x80\x04"
_RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
_NATIVE = b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


def encode_pickled(weights: Weights) -> EncodedWeights:
    """Lay out weights as a pickled list of arrays, without copying them; a dict's names stay here.

    Raises
    ------
    WireError
        A tensor has a type that cannot travel so: what the codec refuses, and bfloat16.
    """
    ours = encode(weights).weights  # in order, and refused where it must be
    given = ours.weights
    arrays = [*given.items()] if isinstance(given, Mapping) else [(str(at), array) for at, array in enumerate(given)]
    pieces: list[memoryview] = []
    waiting = _PROTOCOL + b"]("
    for name, array in arrays:
        if array.dtype.name == "bfloat16":
            raise WireError(f"the tensor {name!r} is of bfloat16, which plain numpy cannot unpickle; convert it first")
        waiting += _RECONSTRUCT + _state(array.shape, array.dtype.str)
        pieces.append(memoryview(waiting + b"\x8e" + array.nbytes.to_bytes(8, "little")))
        if array.nbytes:
            pieces.append(array.reshape(-1).view(np.uint8).data)
        waiting = b"tb"
    pieces.append(memoryview(waiting + b"e."))
    return EncodedWeights(pieces=tuple(pieces), total=sum(piece.nbytes for piece in pieces), weights=ours)


def decode_pickled(data: bytes | bytearray | memoryview, *, names: tuple[str, ...] | None, count: int) -> Weights:
    """Read pickled weights; nothing of them is run.

    Parameters
    ----------
    data
        The whole, contiguous. The arrays are views of it where they lie aligned.
    names
        The names of the model's tensors, for a list that is to become a dict; None for a model that has a list.
    count
        How many tensors the model has.

    Raises
    ------
    WireError
        It is no pickle of numeric arrays in a list, a tuple or a dict, or of another number of them.
    """
    view = memoryview(data).cast("B").toreadonly()
    found = Reader(view, max_arrays=count + _SLACK_ARRAYS).read()
    if len(found) != count:
        raise WireError(f"the weights are {len(found)} tensors, the model has {count}")
    if isinstance(found, dict) or names is None:
        return Weights(weights=found)
    return Weights(weights=dict(zip(names, found, strict=True)))


def _state(shape: tuple[int, ...], kind: str) -> bytes:
    """Write what stands before an array's bytes: version, shape, type, and that the order is C's."""
    lengths = b"".join(b"\x8a\x08" + length.to_bytes(8, "little", signed=True) for length in shape)
    code, order = kind[1:].encode(), kind[:1].encode()
    dtype = b"cnumpy\ndtype\n" + _text(code) + b"\x89\x88\x87R" + b"(K\x03" + _text(order) + _NATIVE
    return b"(K\x01(" + lengths + b"t" + dtype + b"\x89"


def _text(text: bytes) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text
