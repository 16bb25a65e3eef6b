"""What `collective run` says when it does not even start."""

from __future__ import annotations

from collections.abc import Sequence


class RefusedError(Exception):
    """The input cannot be run: exit status 2, and every problem on a line of its own."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
