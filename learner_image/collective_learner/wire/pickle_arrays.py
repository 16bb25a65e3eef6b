"""What a pickle may be made of here: numpy's arrays, and what numpy describes an array with.

The names in a pickle (``numpy.ndarray``, ``numpy.core.multiarray._reconstruct``, ...) are patterns that are compared,
never looked up: nothing is imported, nothing named by a peer is called. What an honest pickle says by calling these, is
done here by `numpy.frombuffer` on the bytes as they were received. Source of the forms: the ``__reduce_ex__`` of
ndarray, dtype and numpy's scalars, NumPy 1.17 to 2.4, pickle protocols 2 to 5.
"""

from __future__ import annotations

import codecs
import enum
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from collective_learner.wire.header import MAX_DIMENSIONS
from collective_learner.wire.parts import WireError

CODES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8")
"""The numbers that are admitted, as numpy writes their types."""

_MAX_TEXT_BYTES = 4096
_MAX_SIZE = 1 << 62
_CHUNK = 1 << 20


class Name(enum.Enum):
    """What a pickle may refer to."""

    NDARRAY = "ndarray"
    DTYPE = "dtype"
    RECONSTRUCT = "_reconstruct"
    FROM_BUFFER = "_frombuffer"
    SCALAR = "scalar"
    ENCODE = "encode"
    BYTES = "bytes"


_NAMES = {
    ("numpy", "ndarray"): Name.NDARRAY,
    ("numpy", "dtype"): Name.DTYPE,
    ("_codecs", "encode"): Name.ENCODE,  # how protocol 2 spells bytes
    ("__builtin__", "bytes"): Name.BYTES,
    ("builtins", "bytes"): Name.BYTES,
    **{
        (f"numpy.{core}.{module}", name.value): name
        for core in ("core", "_core")  # before and since NumPy 2
        for module, name in (
            ("multiarray", Name.RECONSTRUCT),
            ("multiarray", Name.SCALAR),
            ("numeric", Name.FROM_BUFFER),
        )
    },
}


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes of a pickle, where they lie."""

    view: memoryview


@dataclass(frozen=True, slots=True)
class Text:
    """A text of a pickle, as UTF-8, where it lies: what is huge is never decoded as a whole."""

    view: memoryview

    def __str__(self) -> str:
        if self.view.nbytes > _MAX_TEXT_BYTES:
            raise WireError(f"a name of {self.view.nbytes} bytes in pickled weights, {_MAX_TEXT_BYTES} are allowed")
        try:
            return bytes(self.view).decode()
        except UnicodeDecodeError as error:
            raise WireError(f"a name in pickled weights is no text: {error.reason}") from error


@dataclass(slots=True)
class Kind:
    """A numpy type on its way: its code, then its byte order."""

    code: str
    order: str | None = None

    def dtype(self) -> np.dtype[Any]:
        """Give the type.

        Raises
        ------
        WireError
            It was never completed.
        """
        if self.order is None:
            raise WireError("a type in pickled weights has no byte order")
        return np.dtype(self.order + self.code)


@dataclass(slots=True)
class Pending:
    """An array on its way: announced, then filled."""

    array: np.ndarray[Any, Any] | None = None


class Budget:
    """How many bytes all arrays together may have: no more than arrived, so nothing is paid once and told twice.

    Parameters
    ----------
    size
        The bytes that arrived.
    """

    def __init__(self, size: int) -> None:
        self._arrays = self._texts = size

    def array(self, size: int) -> None:
        """Take what an array needs.

        Raises
        ------
        WireError
            More is asked for than arrived.
        """
        self._arrays -= size
        self._check()

    def text(self, size: int) -> None:
        """Take what decoding a text needs that stands for bytes.

        Raises
        ------
        WireError
            More is asked for than arrived.
        """
        self._texts -= size
        self._check()

    def _check(self) -> None:
        if min(self._arrays, self._texts) < 0:
            raise WireError("pickled weights refer to the same bytes more than once")


def named(module: object, name: object) -> Name:
    """Recognise what a pickle refers to.

    Raises
    ------
    WireError
        It is not among what weights are made of.
    """
    found = _NAMES.get((str(module), str(name)))
    if found is None:
        raise WireError(
            f"pickled weights refer to {f'{module}.{name}'[:160]!r}; here they may hold numpy's arrays of numbers, "
            "in a list, tuple or dict, and nothing else"
        )
    return found


def called(name: object, arguments: object, budget: Budget) -> Pending | Kind | Raw:
    """Do what a pickle says by a call.

    Raises
    ------
    WireError
        It is no call that describes an array.
    """
    if isinstance(arguments, tuple):
        match name, arguments:
            case Name.RECONSTRUCT, (Name.NDARRAY, (0,), Raw()):
                return Pending()
            case Name.DTYPE, (Text() as code, bool() | 0 | 1, bool() | 0 | 1):
                return _kind(str(code))
            case Name.FROM_BUFFER, (Raw(view), Kind() as kind, tuple() as shape, Text() as order, *axes):
                return Pending(_from_buffer(view, kind, shape, str(order), axes, budget))
            case Name.SCALAR, (Kind() as kind, Raw(view)):
                return Pending(_array(view, kind, (), "C", budget))
            case Name.ENCODE | Name.BYTES, _:
                return _bytes(arguments, budget)
    what = name.value if isinstance(name, Name) else type(name).__name__
    raise WireError(f"pickled weights use {what} in a way that describes no array of numbers")


def completed(target: object, state: object, budget: Budget) -> None:
    """Give an array its numbers, or a type its byte order.

    Raises
    ------
    WireError
        It is neither, was given before, or the state is none of those that numpy writes.
    """
    match target, state:
        case Kind(order=None), (3, Text() as order, None, None, None, -1, -1, 0) if str(order) in ("<", ">", "|", "="):
            target.order = str(order)
        case Pending(array=None), (1, tuple() as shape, Kind() as kind, bool() as fortran, Raw(view)):
            target.array = _array(view, kind, shape, "F" if fortran else "C", budget)
        case _:
            raise WireError("pickled weights complete something that is no array of numbers")


def _kind(code: str) -> Kind:
    if code not in CODES:
        told = "objects" if code.startswith("O") else f"the type {code!r}"
        raise WireError(f"pickled weights hold {told}; admitted are {', '.join(CODES)}")
    return Kind(code)


def _bytes(arguments: tuple[object, ...], budget: Budget) -> Raw:
    match arguments:
        case ():
            return Raw(memoryview(b""))
        case Text(view), Text() as how if str(how) == "latin1":
            budget.text(view.nbytes)
            return Raw(memoryview(_latin1(view)))
        case _:
            raise WireError("pickled weights spell bytes in an unknown way")


def _from_buffer(
    view: memoryview, kind: Kind, shape: tuple[object, ...], order: str, axes: list[object], budget: Budget
) -> np.ndarray[Any, Any]:
    array = _array(view, kind, shape, order, budget)
    match axes:
        case [] | [None]:
            return array
        case [tuple() as turned] if sorted(map(repr, turned)) == sorted(map(repr, range(array.ndim))):
            return _native(array.transpose([int(str(axis)) for axis in turned]))
        case _:
            raise WireError("an array in pickled weights has axes that are no order of its own")


def _array(view: memoryview, kind: Kind, shape: tuple[object, ...], order: str, budget: Budget) -> np.ndarray[Any, Any]:
    if len(shape) > MAX_DIMENSIONS or not all(type(length) is int and 0 <= length <= _MAX_SIZE for length in shape):
        raise WireError("an array in pickled weights has no usable shape")
    if order not in ("C", "F", "K"):
        raise WireError(f"an array in pickled weights has the unknown order {order[:20]!r}")
    dtype = kind.dtype()
    lengths = [int(str(length)) for length in shape]
    if math.prod(lengths) * dtype.itemsize != view.nbytes:
        raise WireError(f"an array in pickled weights has {view.nbytes} bytes, its shape and type need another number")
    budget.array(view.nbytes)
    flat: np.ndarray[Any, Any] = np.frombuffer(view, dtype=dtype) if view.nbytes else np.empty(0, dtype=dtype)
    if kind.code == "b1" and flat.size and flat.view(np.uint8).max() > 1:
        raise WireError("an array of truth values in pickled weights holds other bytes than 0 and 1")
    try:
        return _native(flat.reshape(lengths, order="F" if order == "F" else "C"))
    except ValueError as error:  # lengths beside a 0 whose product no array can have
        raise WireError(f"an array in pickled weights has no usable shape: {error}") from error


def _native(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Bring an array into this machine's order and alignment, by a copy where it is not."""
    native = np.require(array, dtype=array.dtype.newbyteorder("="), requirements=["C", "A"]).view()
    native.flags.writeable = False
    return native


def _latin1(view: memoryview) -> bytearray:
    """Decode in pieces: as one text, a single character can make each of the others four bytes wide."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    found = bytearray()
    try:
        for at in range(0, view.nbytes, _CHUNK):
            piece = bytes(view[at : at + _CHUNK])
            found += decoder.decode(piece, final=at + _CHUNK >= view.nbytes).encode("latin-1")
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise WireError(f"bytes in pickled weights are not what protocol 2 writes: {error.reason}") from error
    return found
