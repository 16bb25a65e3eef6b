"""``python -m collective_coordinator``: what the coordinator's pod runs.

The first process of a container does not hear a SIGTERM that it has no handler for, so there is one before anything
that takes time is imported; nothing has begun then that needs an end in order.
"""

import os
import signal

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))

from collective_coordinator.cli import coordinate

if __name__ == "__main__":
    coordinate(prog_name="python -m collective_coordinator")
