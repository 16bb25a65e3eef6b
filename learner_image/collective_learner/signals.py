"""SIGTERM and SIGINT, heard by a server in its thread, whatever the main thread is busy with.

Python runs handlers in the main thread alone, and only between two instructions there: not while a library is being
loaded or initialised for an import. The signal's number, though, is written to a file descriptor at once, and the
server's event loop reads it.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from typing import Any, Self

_STOPPING = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """A context in which the two signals are heard; entered in the main thread."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._before: dict[signal.Signals, Any] = {}
        self._descriptor_before = -1

    def __enter__(self) -> Self:
        self._reader.setblocking(False)
        self._writer.setblocking(False)  # asked for by set_wakeup_fd
        self._before = {number: signal.getsignal(number) for number in _STOPPING}
        self._descriptor_before = self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._descriptor_before)
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._reader.close()
        self._writer.close()

    def insist(self) -> None:
        """Hear them again: a module that was imported may have taken them for itself."""
        self._listen()

    def tell(self, loop: asyncio.AbstractEventLoop, listener: Callable[[int], None]) -> None:
        """Call the listener on the loop with the number of each signal, also of those that came before."""

        def read() -> None:
            for number in self._reader.recv(64):
                if number in _STOPPING:  # others have handlers, too
                    listener(number)

        loop.add_reader(self._reader, read)

    def _listen(self) -> int:
        before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in _STOPPING:
            signal.signal(number, _heard)  # a handler there must be, or nothing is written
        return before


def _heard(number: int, frame: object) -> None:
    """Do nothing here."""
