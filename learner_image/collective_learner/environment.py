"""What a learner's process is told by its environment, beside its arguments."""

STATE_DIR = "COLLECTIVE_STATE_DIR"
"""A folder of this learner alone for what must survive its restarts."""

GPUS = "COLLECTIVE_GPUS"
"""How many GPUs its task gives the learner; where nobody says, it takes one of those that it sees."""
TLS_CERT = "COLLECTIVE_TLS_CERT"
TLS_KEY = "COLLECTIVE_TLS_KEY"
TLS_CA = "COLLECTIVE_TLS_CA"
"""The three files of one side of TLS."""

TLS_CLIENT = "COLLECTIVE_TLS_CLIENT"
"""Who may call a learner, by the names in their certificates, with spaces between."""
