"""What a training on several devices is made of, without any: splitting a batch, choosing devices, carrying tensors."""

from __future__ import annotations

import itertools
import os
from multiprocessing import Pipe

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")
import torch
from torch import nn

from collective_learner.environment import GPUS
from collective_learner.learners.ddp.channel import Channel, ClosedError, memory_file
from collective_learner.learners.ddp.pieces import pieces_of
from collective_learner.learners.torch_devices import devices_of

torch.set_num_threads(1)
_WEIGHTS = torch.tensor([0.2, 1.0, 3.0])


def _ratio(outputs, labels):
    return (outputs.logsumexp(dim=1) - outputs.gather(1, labels[:, None])[:, 0]).mean()


CRITERIA = {
    "mean": nn.CrossEntropyLoss(),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "weighted": nn.CrossEntropyLoss(weight=_WEIGHTS),
    "ignoring": nn.CrossEntropyLoss(ignore_index=1),
    "everything": nn.CrossEntropyLoss(weight=_WEIGHTS, ignore_index=1, label_smoothing=0.1),
    "likelihood": nn.NLLLoss(weight=_WEIGHTS),
    "function": _ratio,
}


@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_pieces_gradients_are_the_batchs(criterion, size: int, count: int) -> None:
    model = nn.Linear(5, 3).double()
    if hasattr(criterion, "to"):
        criterion = criterion.to(torch.float64)
    generator = torch.Generator().manual_seed(size)
    inputs = torch.randn(size, 5, dtype=torch.float64, generator=generator)
    labels = torch.randint(0, 3, (size,), generator=generator)
    labels[0] = 0  # one that counts
    loss = criterion(model(inputs), labels)
    expected = torch.autograd.grad(loss, model.weight)[0]
    pieces = pieces_of(inputs, labels, criterion, count)
    assert len(pieces) == count
    total = sum(piece.share * criterion(model(piece.inputs), piece.labels) for piece in pieces)
    assert total.item() == pytest.approx(loss.item(), rel=1e-12)
    assert torch.allclose(torch.autograd.grad(total, model.weight)[0], expected, rtol=1e-12)
    assert {piece.weight for piece in pieces} == {1 if getattr(criterion, "reduction", "") == "sum" else size}
    if size >= count and not hasattr(criterion, "ignore_index"):
        assert torch.equal(torch.cat([piece.inputs for piece in pieces]), inputs)
        assert max(len(piece.labels) for piece in pieces) - min(len(piece.labels) for piece in pieces) <= 1


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        ([torch.zeros(4, 2), torch.zeros(3)], torch.zeros(4), r"a tensor of shape \(3,\) in a batch of 4 examples"),
        ({"text": ["a"] * 4}, torch.zeros(4), "a str in a batch of 4 examples cannot be split among devices"),
        (torch.zeros(4), [1, 2, 3, 4], "labels of type list; one tensor is needed on several devices"),
    ],
)
def test_what_cannot_be_split_is_refused_by_name(inputs, labels, message: str) -> None:
    with pytest.raises(ValueError, match=f"train_loader: {message}"):
        pieces_of(inputs, labels, nn.CrossEntropyLoss(), 2)


def test_tensors_of_all_kinds_arrive_as_they_were() -> None:
    near, far = Pipe()
    one_way, other_way = memory_file(), memory_file()
    here = Channel(near, one_way, other_way)
    there = Channel(far, os.dup(other_way), os.dup(one_way))
    kinds = (torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.complex64)
    message = {
        "kinds": [torch.arange(7).to(kind) for kind in kinds],
        "turned": torch.arange(12.0).view(3, 4).T,
        "empty": torch.zeros(0, 3),
        "number": torch.tensor(5.0),
        "parameter": nn.Parameter(torch.ones(2)),
        7: ("text", None, 1.5),
    }
    sent = [message, {"large": torch.arange(300_000.0)}, {"small": torch.ones(1)}, "no tensor"]
    try:
        for keep, each in itertools.product([True, False], sent):
            here.send(each, keep=keep)
            assert here.unread
            got = there.receive()
            assert here.take() is None
            assert not here.unread
            assert torch.utils._pytree.tree_structure(got) == torch.utils._pytree.tree_structure(each)
            for own, other in zip(*map(torch.utils._pytree.tree_leaves, (each, got)), strict=True):
                if isinstance(own, torch.Tensor):
                    assert own.dtype == other.dtype
                    assert torch.equal(own.detach(), other)
                else:
                    assert own == other
            if not keep and each != "no tensor":
                assert os.fstat(one_way).st_size == 0  # the memory was given back
    finally:
        there.close()
    with pytest.raises(ClosedError):
        here.send("anybody there?")
        here.receive()
    here.close()


def test_devices_are_those_of_the_task(monkeypatch, caplog) -> None:
    def names(device=None, count=None) -> list[str]:
        return [str(each) for each in devices_of(device, count)]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv(GPUS, "2")  # a task's, on a laptop without any
    assert names() == names("cpu") == ["cpu"]
    assert names("cpu", 3) == ["cpu"] * 3
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert names() == names("cuda") == ["cuda:0", "cuda:1"]
    assert names("cuda:2") == ["cuda:2"]
    assert names("cpu") == ["cpu"]
    assert names(None, 3) == ["cuda:0", "cuda:1", "cuda:2"]
    assert names(None, 1) == ["cuda"]
    monkeypatch.setenv(GPUS, "4")
    assert len(names()) == 3
    assert "the task gives this learner 4 GPUs, PyTorch sees 3" in caplog.text
    monkeypatch.delenv(GPUS)
    assert names() == ["cuda"]  # several that nobody gave are for whoever asks for them
    for device, count, message in [
        (None, 4, "devices: 4, PyTorch sees 3 GPUs"),
        ("cuda:1", 2, "devices: 2, but device names one alone: 'cuda:1'; 'cuda' is needed"),
        ("meta", 2, "devices: 2, only those of the types cuda and cpu train together, not meta"),
        ("cpu", 0, "devices: 0, a whole number of at least 1"),
        ("cpu", True, "devices: True, a whole number of at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            devices_of(device, count)
    monkeypatch.setenv(GPUS, "all")
    with pytest.raises(ValueError, match="COLLECTIVE_GPUS: 'all' in the environment, a whole number is needed"):
        devices_of(None, None)
