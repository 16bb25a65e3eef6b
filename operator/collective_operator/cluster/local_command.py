"""From a container's spec to the process that stands for it.

A container's surroundings are a machine of its own: mounted folders, a network, ``/dev/termination-log``. A process
on a laptop has none of these, so what names them is rewritten or added here, and the manifests stay the cluster's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collective_operator.cluster.local_ports import LOOPBACK

TERMINATION_LOG = "/dev/termination-log"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

# A container listens on all addresses of its own network; a process shares the laptop's with the café's.
_SURROUNDINGS: Mapping[str, tuple[str, ...]] = {
    "collective_learner": ("--host",),
    "collective_coordinator": ("--host", "--termination-log"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A process to start."""

    command: tuple[str, ...]
    env: Mapping[str, str]
    termination_log: Path


def program_of(
    container: Mapping[str, Any],
    *,
    mounts: Mapping[str, Path],
    termination_log: Path,
    threads: int,
    gpus: Mapping[str, str],
) -> Program:
    """Translate a container.

    Parameters
    ----------
    container
        As in a pod's spec; the command must be a Python module's, ``["python", "-m", MODULE, ...]``.
    mounts
        The folder behind each mount path.
    termination_log
        The file behind the container's termination message path.
    threads
        How many threads a numeric library may start, unless the environment says.
    gpus
        The variables by which the process sees its GPUs.

    Raises
    ------
    ValueError
        The container runs something else than a Python module.
    """
    interpreter, *rest = container.get("command", ())
    if interpreter != "python" or rest[:1] != ["-m"]:
        raise ValueError(f"container {container['name']}: command {container.get('command')} is not python -m MODULE")
    module = rest[1]
    folders = {container.get("terminationMessagePath", TERMINATION_LOG): termination_log, **mounts}
    arguments = [_rewrite(argument, folders) for argument in (*rest[2:], *container.get("args", ()))]
    given = {argument.partition("=")[0] for argument in arguments}
    values = {"--host": LOOPBACK, "--termination-log": str(termination_log)}
    added = [f"{option}={values[option]}" for option in _SURROUNDINGS.get(module, ()) if option not in given]
    env = {
        # Bounded, or every learner would start a thread per core; and a fixed number keeps sums in a fixed order.
        **dict.fromkeys(THREAD_VARIABLES, str(threads)),
        # Keys of somebody's own servers are not for a run, whose processes speak in plain text.
        **{name: value for name, value in os.environ.items() if not name.startswith("COLLECTIVE_TLS_")},
        **gpus,
        "PYTHONUNBUFFERED": "1",
        **{variable["name"]: variable["value"] for variable in container.get("env", ()) if "value" in variable},
    }
    return Program(command=(sys.executable, "-m", module, *arguments, *added), env=env, termination_log=termination_log)


def _rewrite(argument: str, folders: Mapping[str, Path]) -> str:
    option, equals, value = argument.partition("=")
    if not equals:
        option, value = "", argument
    # The longest first: a mount may lie inside another.
    for mount in sorted(folders, key=len, reverse=True):
        if value == mount or value.startswith(f"{mount}/"):
            return f"{option}{equals}{folders[mount]}{value[len(mount) :]}"
    return argument


def mounts_of(pod: Mapping[str, Any], volumes: Mapping[str, Path]) -> dict[str, Path]:
    """Find the folder behind each mount path of a pod's first container.

    Parameters
    ----------
    pod
        The manifest.
    volumes
        The folder of each volume by its name in the pod; others (an emptyDir at /tmp) need no rewriting.
    """
    mounted: Sequence[Mapping[str, Any]] = pod["spec"]["containers"][0].get("volumeMounts", ())
    return {mount["mountPath"]: volumes[mount["name"]] for mount in mounted if mount["name"] in volumes}
