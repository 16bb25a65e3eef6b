"""What a learner's process is told by its environment, beside its arguments."""

STATE_DIR = "COLLECTIVE_STATE_DIR"
"""A folder of this learner alone for what must survive its restarts."""

GPUS = "COLLECTIVE_GPUS"
"""How many GPUs its task gives the learner; where nobody says, it takes one of those that it sees."""
