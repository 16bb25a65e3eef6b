"""Ports for servers that start later, or start again: each is one test's alone, also while nobody listens on it.

A port that is only looked up may be somebody else's a moment later: that of a test beside this one, say.  So it stays
bound, without listening, for as long as this process runs.  The system then gives it to nobody who asks for any port,
while a server that names it and sets SO_REUSEADDR (all of ours do) gets it.  Only Linux lets a server listen beside
such a binding; elsewhere the port is let go, and the short race remains.
"""

from __future__ import annotations

import socket
import sys

_HELD: list[socket.socket] = []
_TRIES = 1000


def free_port() -> int:
    """Give a port that nobody else is given."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """Give the first of so many ports in a row that nobody else is given."""
    for _ in range(_TRIES):
        held = [_bound(0)]
        first = int(held[0].getsockname()[1])
        try:
            held += [_bound(port) for port in range(first + 1, first + count)]
        except (OSError, OverflowError):
            _close(held)
            continue
        if sys.platform == "linux":
            _HELD.extend(held)
        else:
            _close(held)
        return first
    raise AssertionError(f"there are no {count} free ports in a row")


def _bound(port: int) -> socket.socket:
    """Bind a port that nobody has, not even in order to keep it; from then on a server may have it, too."""
    one = socket.socket()
    try:
        one.bind(("127.0.0.1", port))
    except BaseException:
        one.close()
        raise
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return one


def _close(sockets: list[socket.socket]) -> None:
    for one in sockets:
        one.close()
