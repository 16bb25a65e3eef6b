"""What the command lines of learners and of the coordinator have in common."""

from __future__ import annotations

LOG_LEVELS = ("debug", "info", "warning", "error")


def dashes(token: str) -> str:
    """Let underscores stand for dashes in option names."""
    return token.replace("_", "-")


SETTINGS = {"token_normalize_func": dashes, "help_option_names": ["-h", "--help"]}
"""Of commands that people call."""
