"""A server holds one buffer beside the learner's own weights, however often and however much is sent."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

SIZE = 40_000_000  # float32: 160 MB


def kilobytes(pid: int, what: str) -> int:
    found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_weights_are_held_twice_at_most(servers, connect) -> None:
    server = servers.start()
    peer = connect(server)
    peer.setup(size=SIZE)
    # Pages of zeros do not exist until they are written: set them, so that the model is there.
    peer.setup(size=SIZE, random=True)
    data = peer.current()
    own = kilobytes(server.process.pid, "VmRSS")
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")  # the peak starts anew
    for _ in range(3):
        peer.test(data)
        peer.current()
    peak = kilobytes(server.process.pid, "VmHWM")
    # One buffer, and what gRPC and the allocator keep of parts on their way; a second buffer would be 2.
    assert peak - own < 1.8 * len(data) / 1024
