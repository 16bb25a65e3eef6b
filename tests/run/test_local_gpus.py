"""A laptop's GPUs are dealt out to learners in turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from collective_operator.api import parse_task
from collective_operator.cluster.local_command import program_of
from collective_operator.cluster.local_gpus import gpu_environment, gpus_of_machine
from collective_operator.desired import desired_children

from ..operator.world import PLATFORM, manifest


def pods(count: int, gpus: dict[str, object] | None) -> list[dict]:
    learners = {"count": count} | ({} if gpus is None else {"gpus": gpus})
    children = [child.build() for child in desired_children(parse_task(manifest(learners=learners)), PLATFORM)]
    return [child for child in children if child["kind"] == "Pod"]


@pytest.mark.parametrize(
    ("machine", "gpus", "expected"),
    [
        ("0,1,2,3", None, ["0", "1", "2", "3", "0"]),
        ("0,1,2,3", {"count": 1}, ["0", "1", "2", "3", "0"]),
        ("0,1,2,3", {"count": 2}, ["0,1", "2,3", "0,1", "2,3", "0,1"]),
        ("0,1,2,3", {"count": 3}, ["0,1,2", "3,0,1", "2,3,0", "1,2,3", "0,1,2"]),
        ("0,1", {"count": 8}, ["0,1"] * 5),
        ("6,GPU-ab", {"count": 1, "resource": "example.com/gpu"}, ["6", "GPU-ab", "6", "GPU-ab", "6"]),
        ("0,1", {"count": 0}, [""] * 5),
        ("", {"count": 1}, [None] * 5),
    ],
)
def test_each_learner_gets_what_its_task_says(machine: str, gpus, expected: list[str | None], monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", machine)
    found = gpus_of_machine()
    *learners, coordinator = sorted(pods(5, gpus), key=lambda pod: "coordinator" in pod["metadata"]["name"])
    assert len(learners) == 5
    assert [gpu_environment(pod, found).get("CUDA_VISIBLE_DEVICES") for pod in learners] == expected
    assert gpu_environment(coordinator, found) == {}
    for pod, visible in zip(learners, expected, strict=True):
        program = program_of(
            pod["spec"]["containers"][0],
            mounts={},
            termination_log=Path("/dev/null"),
            threads=1,
            gpus=gpu_environment(pod, found),
        )
        assert program.env["CUDA_VISIBLE_DEVICES"] == (machine if visible is None else visible)
        assert program.env.get("CUDA_DEVICE_ORDER") == (None if visible is None else "PCI_BUS_ID")
        assert program.env.get("COLLECTIVE_GPUS") == (None if gpus is None else str(gpus["count"]))


def test_gpus_are_those_that_the_driver_has_files_for(tmp_path: Path) -> None:
    assert gpus_of_machine({}, tmp_path) == ()
    for name in ("nvidia0", "nvidia1", "nvidia12", "nvidiactl", "nvidia-uvm", "nvidia-caps", "null"):
        (tmp_path / name).touch()
    assert gpus_of_machine({}, tmp_path) == ("0", "1", "2")
    assert gpus_of_machine({"CUDA_VISIBLE_DEVICES": " 2, 0"}, tmp_path) == ("2", "0")
    assert gpus_of_machine({"CUDA_VISIBLE_DEVICES": "1,-1,0"}, tmp_path) == ("1",)
    assert gpus_of_machine({"CUDA_VISIBLE_DEVICES": "-1"}, tmp_path) == ()
