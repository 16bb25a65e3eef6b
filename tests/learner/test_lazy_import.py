from __future__ import annotations

import subprocess
import sys

import collective_learner

PROGRAM = """
import sys
import {module}
heavy = {{"numpy", "grpc", "google", "torch", "tensorflow", "keras", "sklearn", "safetensors", "prometheus_client"}}
print(",".join(sorted({{name.partition(".")[0] for name in sys.modules}} & heavy)))
"""


def loaded_by(module: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(module=module)], capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.strip().split(",")) - {""}


def test_importing_the_package_loads_neither_numpy_nor_grpc_nor_a_framework() -> None:
    assert loaded_by("collective_learner") == set()
    assert loaded_by("collective_learner.mli") == set()
    assert loaded_by("collective_learner.factory") == set()


def test_parts_are_read_without_numpy() -> None:
    assert loaded_by("collective_learner.wire.parts, collective_learner.wire.methods") == set()


def test_the_server_loads_neither_a_framework_nor_numpy_before_it_answers() -> None:
    assert loaded_by("collective_learner.cli") == {"grpc", "google", "prometheus_client"}


def test_every_public_name_is_there() -> None:
    for name in collective_learner.__all__:
        if name != "KerasLearner":  # TensorFlow is not imported into the process of the tests; keras_cases use it
            assert getattr(collective_learner, name) is not None
    assert set(collective_learner.__all__) <= set(dir(collective_learner))
