"""Reads pickled weights without unpickling them: a small machine that knows how arrays are written, and nothing else.

pickle itself runs what a peer sends. This machine has no instruction that could: names are compared with seven that
describe arrays (`pickle_arrays`), calls are recognised and done by hand, and everything else ends in a `WireError`.

It needs little more memory than the pickle has, whatever that says: arrays are views of what was received, the number
of instructions is bounded by the number of arrays that are expected, and no byte becomes part of two arrays.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

from collective_learner.wire.parts import WireError
from collective_learner.wire.pickle_arrays import Budget, Pending, Raw, Text, called, completed, named

PROTOCOLS = (2, 3, 4, 5)

_OPS_EACH = 120
"""Instructions for one array and its name: protocol 2 needs the most, some seventy."""
_OPS_AROUND = 64
_MAX_NAME_BYTES = 256
_OPCODES = {opcode.code: opcode.name for opcode in pickletools.opcodes}


class _Mark:
    __slots__ = ()


class _Nested(tuple[Any, ...]):
    """A tuple with a tuple in it, as an array's state has its shape: nothing needs to go deeper."""

    __slots__ = ()


class _Stop(Exception):  # noqa: N818 - the end, not an error
    pass


class Reader:
    """Reads one pickle.

    Parameters
    ----------
    data
        The whole of it.
    max_arrays
        The most arrays that it may hold.
    """

    def __init__(self, data: memoryview, *, max_arrays: int) -> None:
        self._data = data
        self._at = 0
        self._max_ops = _OPS_AROUND + _OPS_EACH * max_arrays
        self._budget = Budget(data.nbytes)
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def read(self) -> list[np.ndarray[Any, Any]] | dict[str, np.ndarray[Any, Any]]:
        """Read all of it.

        Returns
        -------
        list or dict
            Arrays over the memory of `data`; a tuple becomes a list.

        Raises
        ------
        WireError
            It is no pickle of arrays in a list, a tuple or a dict.
        """
        if self._take(1)[0] != 0x80 or self._take(1)[0] not in PROTOCOLS:
            raise WireError("the weights are no pickle of protocols 2 to 5, as --weights-format numpy-pickle has them")
        try:
            for _ in range(self._max_ops):
                code = self._take(1)[0]
                instruction = _INSTRUCTIONS.get(code)
                if instruction is None:
                    raise WireError(f"pickled weights use {_name(code)}, which arrays of numbers do not need")
                instruction(self)
        except _Stop:
            return self._result()
        raise WireError(f"pickled weights go on after {self._max_ops} instructions; the model needs fewer")

    def _result(self) -> list[np.ndarray[Any, Any]] | dict[str, np.ndarray[Any, Any]]:
        if self._at != self._data.nbytes:
            raise WireError(f"pickled weights end at byte {self._at} of {self._data.nbytes}")
        if len(self._stack) != 1:
            raise WireError("pickled weights end with something left over")
        found = self._stack[0]
        if isinstance(found, dict):
            return {name: _finished(name, value) for name, value in found.items()}
        if isinstance(found, list | tuple):
            return [_finished(str(index), value) for index, value in enumerate(found)]
        raise WireError("pickled weights must be a list, a tuple or a dict of arrays")

    def _take(self, count: int) -> memoryview:
        end = self._at + count
        if end > self._data.nbytes:
            raise WireError(f"pickled weights end in the middle, at byte {self._data.nbytes}")
        view = self._data[self._at : end]
        self._at = end
        return view

    def _number(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self._take(size), "little", signed=signed)

    def _line(self) -> Text:
        window = bytes(self._data[self._at : self._at + _MAX_NAME_BYTES])
        end = window.find(b"\n")
        if end < 0:
            raise WireError("a name in pickled weights does not end")
        view = self._take(end)
        self._at += 1
        return Text(view)

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _Mark:
            raise WireError("pickled weights take what is not there")
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        for at in range(len(self._stack) - 1, -1, -1):
            if self._stack[at] is _Mark:
                found = self._stack[at + 1 :]
                del self._stack[at:]
                return found
        raise WireError("pickled weights take what is not there")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _push_tuple(self, items: list[Any]) -> None:
        if any(isinstance(item, _Nested) for item in items):
            raise WireError("pickled weights are nested deeper than arrays need")
        self._push((_Nested if any(isinstance(item, tuple) for item in items) else tuple)(items))

    def _mark(self) -> None:
        self._push(_Mark)

    def _stop(self) -> None:
        raise _Stop

    def _frame(self) -> None:
        self._take(8)  # a hint for readers of files

    def _append(self, items: list[Any]) -> None:
        target = self._pop()
        if not isinstance(target, list):
            raise WireError("pickled weights append to something that is no list")
        target.extend(items)
        self._push(target)

    def _set(self, items: list[Any]) -> None:
        target = self._pop()
        if not isinstance(target, dict) or len(items) % 2:
            raise WireError("pickled weights name something in what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, Text):
                raise WireError("pickled weights have a name that is no text")
            name = str(key)
            if name in target:
                raise WireError(f"pickled weights have the name {name!r} twice")
            target[name] = value
        self._push(target)

    def _global(self, name: object, module: object) -> None:
        if not isinstance(module, Text) or not isinstance(name, Text):
            raise WireError("pickled weights refer to something by what is no name")
        self._push(named(module, name))

    def _global_lines(self) -> None:
        module = self._line()
        self._global(self._line(), module)

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        self._push(called(function, arguments, self._budget))

    def _build(self) -> None:
        state, target = self._pop(), self._pop()
        completed(target, state, self._budget)
        self._push(target)

    def _put(self, index: int) -> None:
        if not self._stack or self._stack[-1] is _Mark:
            raise WireError("pickled weights remember what is not there")
        self._memo[index] = self._stack[-1]

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise WireError("pickled weights refer to what they have not had")
        self._push(self._memo[index])

    def _long(self) -> None:
        size = self._number(1)
        if size > 8:
            raise WireError(f"pickled weights hold a whole number of {size} bytes")
        self._push(self._number(size, signed=True))


def _finished(name: str, value: object) -> np.ndarray[Any, Any]:
    if not isinstance(value, Pending) or value.array is None:
        raise WireError(f"the tensor {name[:80]!r} in pickled weights is no array of numbers")
    return value.array


def _name(code: int) -> str:
    known = _OPCODES.get(chr(code))
    return f"the instruction {known}" if known else f"the unknown instruction {code}"


_INSTRUCTIONS: dict[int, Callable[[Reader], None]] = {
    ord(code): instruction
    for code, instruction in {
        ".": Reader._stop,
        "(": Reader._mark,
        "]": lambda reader: reader._push([]),
        "}": lambda reader: reader._push({}),
        ")": lambda reader: reader._push(()),
        "a": lambda reader: reader._append([reader._pop()]),
        "e": lambda reader: reader._append(reader._pop_to_mark()),
        "s": lambda reader: reader._set([reader._pop(), reader._pop()][::-1]),
        "u": lambda reader: reader._set(reader._pop_to_mark()),
        "t": lambda reader: reader._push_tuple(reader._pop_to_mark()),
        "\x85": lambda reader: reader._push_tuple([reader._pop()]),
        "\x86": lambda reader: reader._push_tuple([reader._pop(), reader._pop()][::-1]),
        "\x87": lambda reader: reader._push_tuple([reader._pop(), reader._pop(), reader._pop()][::-1]),
        "N": lambda reader: reader._push(None),
        "\x88": lambda reader: reader._push(True),
        "\x89": lambda reader: reader._push(False),
        "K": lambda reader: reader._push(reader._number(1)),
        "M": lambda reader: reader._push(reader._number(2)),
        "J": lambda reader: reader._push(reader._number(4, signed=True)),
        "\x8a": Reader._long,
        "C": lambda reader: reader._push(Raw(reader._take(reader._number(1)))),
        "B": lambda reader: reader._push(Raw(reader._take(reader._number(4)))),
        "\x8e": lambda reader: reader._push(Raw(reader._take(reader._number(8)))),
        "\x96": lambda reader: reader._push(Raw(reader._take(reader._number(8)))),
        "\x8c": lambda reader: reader._push(Text(reader._take(reader._number(1)))),
        "X": lambda reader: reader._push(Text(reader._take(reader._number(4)))),
        "\x8d": lambda reader: reader._push(Text(reader._take(reader._number(8)))),
        "c": Reader._global_lines,
        "\x93": lambda reader: reader._global(reader._pop(), reader._pop()),
        "R": Reader._reduce,
        "b": Reader._build,
        "q": lambda reader: reader._put(reader._number(1)),
        "r": lambda reader: reader._put(reader._number(4)),
        "\x94": lambda reader: reader._put(len(reader._memo)),
        "h": lambda reader: reader._get(reader._number(1)),
        "j": lambda reader: reader._get(reader._number(4)),
        "\x95": Reader._frame,
    }.items()
}
