"""Nobody installs, and no program loads, what it does not use: by the distribution's metadata, and by importing."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = "collective-operator"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FRAMEWORKS = {"torch", "tensorflow", "tensorflow-cpu", "keras", "scikit-learn"}
CPU_BUILD, GPU_BUILD = "tensorflow-cpu", "tensorflow"
if (sys.platform, platform.machine()) != ("linux", "x86_64"):  # where one build is all there is
    CPU_BUILD, GPU_BUILD = GPU_BUILD, CPU_BUILD
MODULES = {"torch", "tensorflow", "keras", "sklearn"}


def brought(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> Iterator[str]:
    """Yield every distribution that installing ``name[extras]`` brings, as the installed packages' metadata has it."""
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    try:
        required = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return
    for text in required:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
            continue
        dependency = canonicalize_name(requirement.name)
        if dependency != PROJECT:
            yield dependency
        yield from brought(dependency, frozenset(requirement.extras), seen)


def closure(*extras: str) -> set[str]:
    return set(brought(PROJECT, frozenset(extras), set()))


@pytest.mark.parametrize(
    ("extras", "absent", "present"),
    [
        (["operator"], {"numpy", "grpcio", "protobuf", *FRAMEWORKS}, {"kopf", "pydantic"}),
        (["coordinator"], {"kopf", "kubernetes", "pydantic", *FRAMEWORKS}, {"grpcio", "aiohttp"}),
        (["operator", "coordinator"], {*FRAMEWORKS}, {"kopf", "grpcio"}),
        (["coordinator", "s3"], {"kopf", "mlflow-skinny", *FRAMEWORKS}, {"s3fs", "fsspec"}),
        (["coordinator", "mlflow"], {"kopf", "mlflow", "pandas", "s3fs", *FRAMEWORKS}, {"mlflow-skinny"}),
        (["coordinator", "tensorboard"], {"kopf", "tensorboard", *FRAMEWORKS}, {"tensorboardx"}),
        (["learner"], {"kopf", "kubernetes", "aiohttp", *FRAMEWORKS}, {"numpy", "grpcio"}),
        (["cluster"], {"grpcio", "kopf", "cryptography", *FRAMEWORKS}, {"kubernetes", "matplotlib"}),
        (["run", "sklearn"], {"torch", "tensorflow", "keras", "kopf", "kubernetes"}, {"scikit-learn", "rich"}),
        (["sklearn"], {"torch", "tensorflow", "keras", "kopf"}, {"scikit-learn"}),
        (["torch"], {"tensorflow", "tensorflow-cpu", "keras", "kopf", "opacus"}, {"torch", "pillow"}),
        (["torch-dp"], {"tensorflow", "tensorflow-cpu", "keras", "kopf"}, {"torch", "opacus"}),
        (["keras"], {"torch", GPU_BUILD, "kopf", "pillow"}, {CPU_BUILD, "keras", "scikit-learn"}),
        (["onnx"], {"torch", "tensorflow", "tensorflow-cpu", "keras", "kopf"}, {"onnxruntime", "skl2onnx", "tf2onnx"}),
        (["keras-cuda"], {"torch", "tensorflow-cpu", "kopf"}, {"tensorflow", "keras", "scikit-learn"}),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_extras_bring_what_they_need_and_no_more(extras: list[str], absent: set[str], present: set[str]) -> None:
    found = closure(*extras)
    assert present <= found
    assert absent & found == set()


def test_every_dependency_is_bounded() -> None:
    project = PYPROJECT["project"]
    groups = [
        project["dependencies"],
        *project["optional-dependencies"].values(),
        PYPROJECT["build-system"]["requires"],
    ]
    for requirement in (Requirement(text) for group in groups for text in group):
        if requirement.name != PROJECT:
            assert any(bound.operator in {"<", "==", "~="} for bound in requirement.specifier), str(requirement)


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    for pin in pins:
        # Names and versions only: neither this machine's builds (+cpu) nor places where packages came from.
        assert re.fullmatch(r"[a-z0-9-]+==([0-9]+!)?[0-9][a-z0-9.]*(post\d+)?( ; .+)?", pin), pin
    return {name: version for name, _, version in (pin.partition("==") for pin in pins)}


def test_constraints_hold_everything_that_is_installed() -> None:
    """Two machines get the same versions: nothing that an extra brings is free to differ."""
    pins = constraints()
    accelerators = re.compile(r"nvidia-|cuda-|triton$")  # what the CUDA build of torch brings, pinned by torch itself
    for name in closure(*PYPROJECT["project"]["optional-dependencies"]):
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if not accelerators.match(name):
            assert pins.get(name) == installed.partition("+")[0], name


def test_images_install_what_the_extras_say() -> None:
    """The Dockerfiles read pyproject.toml by themselves, before the package can be built."""
    for extras in ("operator,coordinator", "operator,coordinator,s3,mlflow,tensorboard", "sklearn", "run,sklearn"):
        done = subprocess.run(
            [sys.executable, "image_requirements.py", extras],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        direct = {canonicalize_name(Requirement(line).name) for line in done.stdout.splitlines()}
        assert direct <= closure(*extras.split(","))
        assert closure(*extras.split(",")) <= direct | {
            dependency for name in direct for dependency in brought(name, frozenset(), set())
        }


def test_images_refuse_an_unknown_extra() -> None:
    done = subprocess.run(
        [sys.executable, "image_requirements.py", "torhc"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "'torhc' is none of" in done.stderr


LOADS = """
import importlib, pkgutil, sys
package = importlib.import_module({package!r})
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not module.name.startswith({skipped!r}) and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""


@pytest.mark.parametrize(
    ("package", "skipped", "absent"),
    [
        # `collective run` draws its picture with matplotlib, on people's machines: not part of the control process.
        (
            "collective_operator",
            ("collective_operator.run",),
            {"numpy", "grpc", "collective_coordinator", "collective_learner", *MODULES},
        ),
        # Averaging reads weights as arrays, voting does not: what votes must run where no numpy is installed.
        (
            "collective_coordinator",
            ("collective_coordinator.aggregation", "collective_coordinator.strategies.fed"),
            {"numpy", "kopf", "kubernetes", "collective_operator", *MODULES},
        ),
    ],
    ids=["operator", "coordinator"],
)
def test_programs_load_only_what_they_run_on(package: str, skipped: tuple[str, ...], absent: set[str]) -> None:
    script = LOADS.format(package=package, skipped=skipped)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert absent & set(done.stdout.split()) == set()


def test_learner_loads_no_framework_by_itself() -> None:
    script = "import sys, collective_learner; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert {*MODULES, "kopf", "kubernetes"} & set(done.stdout.split()) == set()


ALONE = """
import sys
from importlib import metadata, util
from importlib.machinery import PathFinder

model, loader, allowed, blocked = sys.argv[1], sys.argv[2], set(sys.argv[3].split(",")), set(sys.argv[4].split(","))
owners = metadata.packages_distributions()


class OnlyInstalled(PathFinder):
    \"\"\"Finds what the extra brings, as if nothing else were installed.\"\"\"

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        brought = {each.lower().replace("_", "-") for each in owners.get(name.partition(".")[0], ())}
        return None if brought and not brought & allowed else PathFinder.find_spec(name, path, target)

    @classmethod
    def find_distributions(cls, context=None):
        found = PathFinder.find_distributions(context) if context else PathFinder.find_distributions()
        return [each for each in found if each.name.lower().replace("_", "-") in allowed]


sys.meta_path = [OnlyInstalled if finder is PathFinder else finder for finder in sys.meta_path]
assert not [name for name in blocked if util.find_spec(name)], "the others can still be imported"

import json

from collective_learner import DefaultMliFactory, GRPCLearnerClient, GRPCServer, ModelFormat
from collective_learner.tasks import load_builtin_tasks

load_builtin_tasks()
server = GRPCServer(mli_factory=DefaultMliFactory(), port=0, host="127.0.0.1")
server.start()
client = GRPCLearnerClient("alone", f"127.0.0.1:{server.port}")
client.start()
client.setup_ml(
    dataset_loader_name=loader,
    dataset_loader_parameters=json.dumps({"location": "0/40"}),
    model_arch_name=model,
    model_parameters="{}",
)
proposed = client.mli_propose_weights()
verdict = client.mli_test_weights(proposed)
client.mli_accept_weights(proposed)
exported = client.mli_get_current_model()
assert exported.model_format is ModelFormat.SAFETENSORS
assert "collective-operator[onnx]" in exported.description, exported.description
client.stop()
server.stop()
loaded = {name.partition(".")[0] for name in sys.modules}
assert not blocked & loaded
print(f"{model}: {verdict.vote_score:.3f}")
"""

OWN = {"sklearn": ("sklearn", "SKLEARN_DIGITS"), "torch": ("torch", "TORCH_DIGITS"), "keras": ("keras", "KERAS_DIGITS")}
OTHERS = {"onnx", "onnxruntime", "kopf", "kubernetes", "aiohttp", "pydantic", "matplotlib", "hypothesis", "pytest"}


@pytest.mark.parametrize("extra", OWN)
def test_a_learner_works_with_nothing_installed_but_its_own_extra(extra: str) -> None:
    """A whole round over gRPC, in a process that finds only what the extra's distributions hold."""
    module, model = OWN[extra]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs the extra `{extra}`")
    allowed = closure(extra, "") | {PROJECT}
    frameworks = {"torch": "torch", "tensorflow": CPU_BUILD, "keras": "keras", "sklearn": "scikit-learn"}
    blocked = OTHERS | {name for name, distribution in frameworks.items() if distribution not in allowed}
    assert not {"kopf", "onnx"} & allowed
    done = subprocess.run(
        [sys.executable, "-c", ALONE, model, "DIGITS", ",".join(allowed), ",".join(blocked)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(model)
