"""Which GPUs of this machine each learner gets: the device plugin's part on a laptop.

Frameworks take what they see: without this every learner would train on the first GPU, or on all of them. So GPUs are
dealt out in turn, as many to each learner as its task says, and one where it says nothing; with fewer GPUs than that
learners share them. What somebody has set CUDA_VISIBLE_DEVICES to is all that there is to deal out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from collective_operator.desired import names
from collective_operator.desired.learner_pod import GPUS

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_ORDER = "CUDA_DEVICE_ORDER"


def gpus_of_machine(environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> tuple[str, ...]:
    """Name the GPUs that there are, as CUDA_VISIBLE_DEVICES does.

    Parameters
    ----------
    environment
        May name some, by numbers or by UUIDs.
    devices
        Where NVIDIA's driver has a file for each.
    """
    chosen = environment.get(_VISIBLE)
    if chosen is None:
        found = [path for path in devices.glob("nvidia*") if path.name.removeprefix("nvidia").isdecimal()]
        return tuple(str(index) for index in range(len(found)))
    # CUDA stops at the first that is not there, such as -1.
    named: list[str] = []
    for name in map(str.strip, chosen.split(",")):
        if not name or name.startswith("-"):
            break
        named.append(name)
    return tuple(named)


def gpu_environment(pod: Mapping[str, Any], gpus: Sequence[str]) -> dict[str, str]:
    """Give the variables by which a pod's process sees its GPUs, and no others.

    Parameters
    ----------
    pod
        The manifest; a learner's says which learner it is, and how many GPUs its task gives it.
    gpus
        Those of the machine; where there are none, nothing is said.
    """
    index = pod["metadata"].get("labels", {}).get(names.INDEX_LABEL)
    if index is None or not gpus:
        return {}
    env = {each["name"]: each.get("value", "") for each in pod["spec"]["containers"][0].get("env", ())}
    asked = env.get(GPUS, "")
    count = min(int(asked) if asked.isdecimal() else 1, len(gpus))
    mine = [gpus[(int(index) * count + turn) % len(gpus)] for turn in range(count)]
    # By their places on the bus: the numbers mean the same to CUDA and to whoever asks the driver.
    return {_ORDER: os.environ.get(_ORDER, "PCI_BUS_ID"), _VISIBLE: ",".join(mine)}
