"""``python -m collective_learner`` is ``collective serve``: what a learner's pod runs.

The first process of a container does not hear a SIGTERM that it has no handler for, so there is one before anything is
imported; the server's own comes as soon as there is a server.
"""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))

from collective_learner.cli import serve

if __name__ == "__main__":
    serve(prog_name="python -m collective_learner")
