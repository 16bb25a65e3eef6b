"""Loopback ports for processes that start later, and start again.

A port that is only looked up may belong to someone else a moment later, and a learner that restarts needs the port
under which the coordinator knows it. So each port stays bound, without listening, for the whole run: the system then
gives it to nobody who asks for any port, while a server that names it and sets SO_REUSEADDR (all of ours do) gets it.
Only Linux lets a server listen beside such a binding; elsewhere the port is let go, and the short race remains.
"""

from __future__ import annotations

import socket
import sys

LOOPBACK = "127.0.0.1"


class LoopbackPorts:
    """Ports of the loopback interface, reserved until closed."""

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def reserve(self) -> int:
        """Return a port that no one else will be given."""
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((LOOPBACK, 0))
        port: int = holder.getsockname()[1]
        if sys.platform == "linux":
            self._held.append(holder)
        else:
            holder.close()
        return port

    def close(self) -> None:
        """Let go of all ports."""
        for holder in self._held:
            holder.close()
        self._held.clear()
