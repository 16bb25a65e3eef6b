"""Where a rank's process begins: what must hold before PyTorch is imported, and that no rank outlives its learner.

The learner may end by SIGKILL, which asks nobody; then its ranks must not hold a GPU's memory. A thread waits for that,
because a rank itself may be waiting in a collective operation for ranks that are no more.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import sys
import threading
from multiprocessing import reduction
from multiprocessing.connection import Connection
from pathlib import Path

from collective_learner.learners.ddp.place import Place

_LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
_ASK_S = 1.0


def main(place: Place, connection: Connection[bytes, bytes]) -> None:
    """Be a rank until the learner ends it, or is no more."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is the learner's to answer; here it needs no traceback
    threading.Thread(target=_end_with_learner, args=(place,), name="end-with-learner", daemon=True).start()
    # All ranks are on this machine, and nobody else is to connect to them.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", _LOOPBACK)
    os.environ.setdefault("NCCL_SOCKET_IFNAME", _LOOPBACK)
    # DistributedDataParallel warns of what is meant so, see `rank`.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    incoming, outgoing = reduction.recv_handle(connection), reduction.recv_handle(connection)
    from collective_learner.learners.ddp.channel import Channel  # noqa: PLC0415 - PyTorch reads the above as it loads
    from collective_learner.learners.ddp.rank import work  # noqa: PLC0415

    work(place, Channel(connection, outgoing, incoming))


def _end_with_learner(place: Place) -> None:
    learner = multiprocessing.parent_process()
    assert learner is not None  # noqa: S101 - a rank was started by multiprocessing
    # The sentinel alone would not do: processes that the learner forked, to load data, hold it open.
    while os.getppid() == learner.pid:
        if multiprocessing.connection.wait([learner.sentinel], timeout=_ASK_S):
            break
    shutil.rmtree(Path(place.meeting).parent, ignore_errors=True)  # the learner's to do, and others' at this moment
    os._exit(1)
