"""A server that looks for renewed certificates many times a second: `serve`, with its options."""

import sys

from collective_learner import listener
from collective_learner.cli import serve

listener.LOOK_S = 0.05
serve(["--port=0", "--metrics-port=0", "--host=127.0.0.1", "--import=tiny", *sys.argv[1:]])
