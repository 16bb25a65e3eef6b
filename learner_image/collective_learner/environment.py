"""What a learner's process is told by its environment, beside its arguments."""

STATE_DIR = "COLLECTIVE_STATE_DIR"
"""A folder of this learner alone for what must survive its restarts."""
