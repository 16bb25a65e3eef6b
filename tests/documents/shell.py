"""Who runs which command of the pages: closed lists, so that one that nobody runs is found.

`collective` is tried in test_commands.py beside this, and with `kubectl` and `helm` on a real API server in
tests/cluster/test_documents.py. What is left is here, with the reason.
"""

from __future__ import annotations

import re

from .pages import Command, every_command

NOT_RUN = {
    r"docker push .*": "to a registry of yours; tests/e2e brings its images to a node",
    r"pip install '.*": "from PyPI; that there are such extras is tried, and tests/repository tries what they bring",
    r"python (keras|grpc)_tutorial\.py": "tests/run/test_tutorials.py runs both",
    r"kubectl port-forward .*": "goes on until it is stopped; tests/cluster/test_results.py forwards a port",
    r"kubectl (-n \S+ )?get workloads": "wants Kueue",
    r"make .*": "that there is such a target, with such variables, is tried; they are what CI runs",
    r"collective (watch|results|plot|abort|retry)\b.*": "tests/cluster/test_commands.py and test_results.py",
    r"collective run .*": "tests/run runs tasks; that its options are right is tried",
    r"collective (serve|serve-many|probe|demo)\b.*": "tests/learner/test_cli.py, tests/run/test_tutorials.py",
    r"collective (export|predict) .*": "tests/learner/export/test_learners_document.py",
}
"""Commands that are not run as they stand, and who runs their like."""

HERE = ("check", "init", "data", "completion")
"""Commands of `collective` that need neither a cluster nor time."""

IN_A_CLUSTER = ("list", "status", "logs", "suspend", "resume")
"""Those that are run in one, as they stand."""

OWN = {
    "CONTRIBUTING.md": "tests/coordinator/test_own_strategy.py",
    "docs/cli.md": "tests/commands/test_cli_document.py",
    "docs/learners.md": "tests/learner/export/test_learners_document.py",
    "docs/results.md": "tests/coordinator/test_delivery.py",
    "examples/tutorials/grpc_tutorial.md": "tests/run/test_tutorials.py",
    "examples/tutorials/keras_tutorial.md": "tests/run/test_tutorials.py",
}
"""Pages that have tests of their own for all of their Python, their tasks and their `collective`."""


def not_run(command: Command) -> str | None:
    """Why a command is not run as it stands; None when it is."""
    text = re.sub(r"^(?:[A-Z_]+=(?:'[^']*'|\S+) )*(?:\.venv/bin/|kubectl (?=collective ))?", "", command.text)
    return next((reason for shape, reason in NOT_RUN.items() if re.fullmatch(shape, text, re.DOTALL)), None)


def of(*programs: str) -> list[Command]:
    """All commands of these programs."""
    return [command for command in every_command() if command.program in programs]
