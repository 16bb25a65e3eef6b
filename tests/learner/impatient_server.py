"""A server that gives up a silent stream after a second."""

import logging
import sys

import tiny  # noqa: F401 - registers

from collective_learner import DefaultMliFactory, GRPCServer

logging.basicConfig(level="INFO", stream=sys.stderr)
GRPCServer(DefaultMliFactory(), 0, "127.0.0.1", stall_s=1.0).run()
