"""Reads the pickles that CIFAR-10 is published in, without running pickle.

Unpickling is running a program that the file brings along. These files need little of that language: a dict of texts,
lists of numbers, and one array of bytes. So this reads that little, opcode by opcode, into plain values, and refuses
everything else: no module is imported, nothing is called, no object is made. The three names of numpy that an array's
pickle holds are recognised as words, and stand for nothing but "here comes an array of unsigned bytes".

Source: the opcodes of Python's pickletools.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from collective_learner.data.places import DataRefusedError

_RECONSTRUCT = {"numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"}
_NDARRAY, _DTYPE = "numpy ndarray", "numpy dtype"
_NAMES = {*_RECONSTRUCT, _NDARRAY, _DTYPE}
_BYTE = ("u1", "|u1")


@dataclass(frozen=True)
class _Name:
    name: str


@dataclass
class _Dtype:
    kind: object


@dataclass
class _Array:
    state: tuple[Any, ...] = field(default=())


_MARK = object()


def read_pickle(data: bytes, name: str) -> object:
    """Read a pickle of dicts, lists, tuples, texts, whole numbers and arrays of unsigned bytes.

    Parameters
    ----------
    data
        The whole file.
    name
        For messages.

    Returns
    -------
    object
        Byte strings, as Python 2 wrote texts, are `bytes`.

    Raises
    ------
    DataRefusedError
        It holds anything else, or is torn.
    """
    try:
        return _finished(_Reader(data).run())
    except (IndexError, KeyError, TypeError, ValueError, struct.error, RecursionError, OverflowError) as error:
        raise DataRefusedError(f"{name}: not a pickle of plain values and arrays of bytes ({error})") from error


class _Reader:
    """A stack of values and a table of remembered ones: the machine that pickles are written for, less its powers."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> object:
        while True:
            code = chr(self.take(1)[0])
            if code == ".":
                (value,) = self.stack
                return value
            step = _STEPS.get(code)
            if step is None:
                raise ValueError(f"the opcode {code!r} at byte {self.at - 1} is not admitted")
            step(self)

    def take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.data):
            raise ValueError("it ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def line(self) -> str:
        end = self.data.index(b"\n", self.at)
        return self.take(end + 1 - self.at)[:-1].decode("ascii")

    def push(self, value: object) -> None:
        self.stack.append(value)

    def marked(self) -> list[Any]:
        """Take what was pushed since the last mark."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("a mark is missing")
        found = self.stack[at + 1 :]
        del self.stack[at:]
        return found

    def pop(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise ValueError("its stack is too small")
        found = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return found

    def remember(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def word(self) -> None:
        name = f"{self.line()} {self.line()}"
        if name not in _NAMES:
            raise ValueError(f"the name {name!r} is not admitted")
        self.push(_Name(name))

    def array(self) -> None:
        """Stand in for a call: of the function that makes an empty array, or of the type of its numbers."""
        called, arguments = self.pop(2)
        if not isinstance(called, _Name) or not isinstance(arguments, tuple):
            raise ValueError("a call is not admitted")
        if called.name == _DTYPE:
            self.push(_Dtype(_text(arguments[0])))
        elif called.name in _RECONSTRUCT and arguments[:1] == (_Name(_NDARRAY),):
            self.push(_Array())
        else:
            raise ValueError(f"a call of {called.name!r} is not admitted")

    def state(self) -> None:
        state = self.pop(1)[0]
        target = self.stack[-1]
        if isinstance(target, _Array) and isinstance(state, tuple):
            target.state = state
        elif not isinstance(target, _Dtype):
            raise ValueError("the state of an object is not admitted")

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("items without a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_text(key)] = value

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise ValueError("elements without a list")
        target.extend(items)


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("ascii")
    if isinstance(value, str):
        return value
    raise ValueError(f"a {type(value).__name__} in the place of a text")


# One line an opcode of those that the files hold, as Python 2 wrote them and as Python 3's protocol 3 would.
_STEPS = {
    "\x80": lambda r: r.take(1),  # the protocol's number
    "(": lambda r: r.push(_MARK),
    "}": lambda r: r.push({}),
    "]": lambda r: r.push([]),
    ")": lambda r: r.push(()),
    "N": lambda r: r.push(None),
    "\x88": lambda r: r.push(True),
    "\x89": lambda r: r.push(False),
    "K": lambda r: r.push(r.number("<B")),
    "M": lambda r: r.push(r.number("<H")),
    "J": lambda r: r.push(r.number("<i")),
    "U": lambda r: r.push(r.take(r.number("<B"))),
    "T": lambda r: r.push(r.take(r.number("<i"))),
    "C": lambda r: r.push(r.take(r.number("<B"))),
    "B": lambda r: r.push(r.take(r.number("<I"))),
    "X": lambda r: r.push(r.take(r.number("<I")).decode()),
    "t": lambda r: r.push(tuple(r.marked())),
    "\x85": lambda r: r.push(tuple(r.pop(1))),
    "\x86": lambda r: r.push(tuple(r.pop(2))),
    "\x87": lambda r: r.push(tuple(r.pop(3))),
    "a": lambda r: r.append(r.pop(1)),
    "e": lambda r: r.append(r.marked()),
    "s": lambda r: r.set_items(r.pop(2)),
    "u": lambda r: r.set_items(r.marked()),
    "q": lambda r: r.remember(r.number("<B")),
    "r": lambda r: r.remember(r.number("<I")),
    "h": lambda r: r.push(r.memo[r.number("<B")]),
    "j": lambda r: r.push(r.memo[r.number("<I")]),
    "c": lambda r: r.word(),
    "R": lambda r: r.array(),
    "b": lambda r: r.state(),
}


def _finished(value: Any) -> object:
    """Turn what stands for arrays into arrays, and refuse names that stand for nothing."""
    if isinstance(value, dict):
        return {key: _finished(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finished(each) for each in value]
    if isinstance(value, _Array):
        _, shape, dtype, by_columns, data = value.state
        if not isinstance(dtype, _Dtype) or dtype.kind not in _BYTE or not isinstance(data, bytes):
            raise ValueError("an array of something else than unsigned bytes")
        if not all(isinstance(size, int) and size >= 0 for size in shape) or math.prod(shape) != len(data):
            raise ValueError(f"an array of shape {shape} with {len(data)} bytes")
        return np.frombuffer(data, np.uint8).reshape(shape, order="F" if by_columns else "C")
    if value is None or isinstance(value, bool | int | str | bytes):
        return value
    raise ValueError("a name or a type that stands alone")
