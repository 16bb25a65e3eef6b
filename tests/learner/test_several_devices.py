"""A served learner that trains on several devices: its metrics, its stops, and no process that outlives it."""

from __future__ import annotations

import contextlib
import json
import signal
import urllib.request
from pathlib import Path

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from collective_learner.gpus import GpuCollector
from collective_learner.wire import interface_pb2 as pb

pytest.importorskip("torch", reason="PyTorch is not installed")
import torch

if not Path("/proc/self/task").exists():
    pytest.skip("finds processes in /proc", allow_module_level=True)


def ranks_of(server) -> set[int]:
    """The processes that a server started, but for the one that looks after multiprocessing's resources."""
    children = set()
    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            children |= set(map(int, (task / "children").read_text().split()))
    return {pid for pid in children if "spawn_main" in command_of(pid)}


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def setup(peer, **loader) -> None:
    request = pb.RequestMLSetup(
        dataset_loader_name="SEVERAL_DATA",
        dataset_loader_parameters=json.dumps({"location": "", **loader}),
        model_arch_name="SEVERAL",
    )
    answer = peer.stub.MLSetup(request, timeout=120)
    assert answer.status == pb.SUCCESS, answer.description


def metrics(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def gone(pids: set[int]) -> bool:
    return not any(map(command_of, pids))  # of a zombie there is none


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    folder = tmp_path / "gate"
    folder.mkdir()
    return folder


def start(servers, monkeypatch: pytest.MonkeyPatch, gate: Path, *options: str):
    with monkeypatch.context() as patch:
        patch.setenv("SEVERAL_GATE", str(gate))
        patch.setenv("TMPDIR", str(gate))
        return servers.start(*options, program=("-m", "collective_learner", "--import=several"))


@pytest.mark.slow
def test_a_learner_on_two_devices_serves_stops_and_leaves_nobody_behind(
    servers, connect, eventually, gate, free_port, monkeypatch
) -> None:
    server = start(servers, monkeypatch, gate, f"--metrics-port={free_port}")
    peer = connect(server)
    setup(peer)
    assert not ranks_of(server)  # nobody trains yet
    assert "collective_examples_per_second" not in metrics(free_port)
    _, parts = peer.propose(120)
    assert parts[0].training_summary.examples == 50
    told = metrics(free_port)
    assert told["collective_examples_total"] == 50
    assert 0 < told["collective_examples_per_second"] < 1e6
    first = ranks_of(server)
    assert len(first) == 2

    setup(peer, label=3)
    eventually(lambda: gone(first), what="the end of those that trained the model before")
    (gate / "closed").touch()
    training = peer.proposing(120)
    eventually((gate / "reached").exists, what="a batch")
    assert 50 <= metrics(free_port)["collective_examples_total"] < 100
    training.cancel()
    # The learner is free again although its processes still are at their batch.
    assert peer.stub.GetCurrentWeights(Empty(), timeout=60).next().total_bytes > 0
    assert (gate / "closed").exists()
    second = ranks_of(server)
    assert len(second) == 2

    server.process.send_signal(signal.SIGKILL)
    server.wait()
    eventually(lambda: gone(second), what="the end of all processes")
    assert not [*gate.glob("collective-learner-*")]


@pytest.mark.slow
def test_a_signal_in_the_middle_of_a_training_ends_them_all(servers, connect, eventually, gate, monkeypatch) -> None:
    server = start(servers, monkeypatch, gate, "--grace=30")
    peer = connect(server)
    setup(peer, label=3)
    (gate / "closed").touch()
    training = peer.proposing(120)
    eventually((gate / "reached").exists, what="a batch")
    ranks = ranks_of(server)
    server.terminate()
    with pytest.raises(grpc.RpcError) as refused:
        list(training)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert server.wait() == 0
    eventually(lambda: gone(ranks), what="the end of all processes")
    assert not [*gate.glob("collective-learner-*")]


class _Driver:
    """Answers as NVML does, where there is no GPU to ask: three of them, of which the second does not tell its use."""

    class NVMLError(Exception):
        """As the driver's interface raises it."""

    def nvmlDeviceGetCount(self) -> int:
        return 3

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index > 2:
            raise self.NVMLError("Invalid Argument")
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        return {"GPU-b": 1, "MIG-c": 2}[uuid]

    def nvmlDeviceGetMemoryInfo(self, gpu: int):
        return type("Memory", (), {"used": 1000 * gpu, "total": 5000})

    def nvmlDeviceGetUtilizationRates(self, gpu: int):
        if gpu == 1:
            raise self.NVMLError("Not Supported")
        return type("Rates", (), {"gpu": 10 * gpu})


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, {("memory_bytes", "0"): 0, ("memory_bytes", "1"): 1000, ("memory_bytes", "2"): 2000,
                ("utilization_ratio", "0"): 0, ("utilization_ratio", "2"): 0.2}),
        ("2, GPU-b", {("memory_bytes", "0"): 2000, ("memory_bytes", "1"): 1000, ("utilization_ratio", "0"): 0.2}),
        ("MIG-c,7,0", {("memory_bytes", "0"): 2000, ("utilization_ratio", "0"): 0.2}),
        ("", {}),
        ("-1", {}),
    ],
)  # fmt: skip
def test_gpus_are_told_as_far_as_the_driver_tells(visible, expected, monkeypatch) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("collective_learner.gpus._driver", _Driver)
    found = {
        (sample.name.removeprefix("collective_gpu_"), sample.labels["gpu"]): sample.value
        for family in GpuCollector().collect()
        for sample in family.samples
    }
    capacities = {gpu: found.pop((part, gpu)) for part, gpu in [*found] if part == "memory_capacity_bytes"}
    assert capacities == dict.fromkeys((gpu for part, gpu in expected if part == "memory_bytes"), 5000)
    assert found == pytest.approx(expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there are GPUs to tell of")
def test_without_a_gpu_nothing_is_told_of_any() -> None:
    collector = GpuCollector()
    assert [*collector.collect(), *collector.collect()] == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, PyTorch sees none")
def test_a_gpu_tells_of_its_memory() -> None:
    pytest.importorskip("pynvml", reason="needs nvidia-ml-py")
    taken = torch.empty(1 << 28, device="cuda", dtype=torch.uint8)
    memory, capacity, *_ = GpuCollector().collect()
    assert memory.name == "collective_gpu_memory_bytes"
    assert capacity.samples[0].value >= memory.samples[0].value >= taken.numel()
