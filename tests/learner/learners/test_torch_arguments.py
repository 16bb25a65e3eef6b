"""PytorchLearner: what it is given works, or is refused by one error that names it."""

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torch_models import X, Y

from collective_learner.learners.torch import PytorchLearner
from collective_learner.mli import DiffPrivConfig


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(X[0], Y[0]), (X[1], Y[1]), (X[2], Y[2])])


def test_streams_have_no_length_and_work() -> None:
    model = nn.Linear(6, 3)
    data = DataLoader(Stream(), batch_size=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    learner = PytorchLearner(model, optimizer, data, data, criterion=nn.CrossEntropyLoss())
    assert learner.mli_propose_weights().training_summary.examples == 3
    assert learner.mli_test_weights(learner.mli_get_current_weights()).test_score == 0.0


MODEL = nn.Linear(6, 3)
EMPTY = DataLoader(TensorDataset(X[:0], Y[:0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"criterion": None}, "criterion: None"),
        ({"criterion": nn.CrossEntropyLoss(reduction="none")}, "criterion: its reduction must be"),
        ({"train_loader": EMPTY}, "train_loader: no batches"),
        ({"vote_loader": EMPTY}, "vote_loader: no batches"),
        ({"vote_loader": iter(())}, "vote_loader: a tuple_iterator can be gone through only once; a DataLoader"),
        ({"vote_loader": DataLoader(TensorDataset(X))}, r"vote_loader: .* pairs \(inputs, labels\) are needed"),
        ({"criterion": "mse"}, "criterion: 'mse'; a function of outputs and labels, such as"),
        ({"vote_criterion": 3}, "vote_criterion: 3; a function"),
        ({"criterion": lambda outputs, labels: outputs.sum(dim=1)}, r"criterion: it gives a tensor of shape \(16,\)"),
        ({"train_loader": None}, "train_loader: a NoneType has no batches; a DataLoader, or a list"),
        ({"train_loader": (pair for pair in [(X, Y)])}, "train_loader: a generator can be gone through only once"),
        ({"vote_loader": [(X.numpy(), Y)]}, "vote_loader: a batch with inputs of type ndarray .* does not go through"),
        (
            {"vote_loader": [(X[:, :4], Y)]},
            r"vote_loader: .* shape \(50, 4\), torch.float32 .*: .* cannot be mult",
        ),
        ({"vote_loader": [({"a": X}, Y)]}, r"vote_loader: a batch with inputs \{'a': of shape \(50, 6\)"),
        ({"vote_loader": [(X, Y + 9)]}, "vote_loader: .* out of bounds"),
        ({"model": nn.Linear}, "model: the class Linear; a torch.nn.Module is needed"),
        ({"model": nn.Flatten()}, "model: Flatten has no parameters"),
        ({"optimizer": None}, "optimizer: a NoneType; a torch.optim.Optimizer is needed"),
        ({"optimizer": torch.optim.SGD}, "optimizer: the class SGD"),
        ({"optimizer": torch.optim.LBFGS(MODEL.parameters())}, "optimizer: LBFGS wants the loss several times"),
        (
            {"optimizer": torch.optim.SGD(nn.Linear(6, 3).parameters())},
            "optimizer: none of its parameters is one of",
        ),
        ({"device": "gpu"}, "device: 'gpu'; 'cpu', 'cuda'"),
        ({"device": "meta"}, "device: 'meta' holds no numbers"),
        ({"device": "cuda:99"}, "device: 'cuda:99' cannot be used: .* PyTorch sees"),
        ({"precision": "fp16"}, "precision: 'fp16', one of float32, bf16 is needed"),
        (
            {"precision": "bf16", "diff_priv_config": DiffPrivConfig(4.0, 1e-5, 1.0, 1.0)},
            "diff_priv_config: with precision 'bf16'",
        ),
        ({"num_train_batches": 0}, "num_train_batches: 0"),
        ({"num_test_batches": -3}, "num_test_batches: -3"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change: dict, message: str) -> None:
    data = DataLoader(TensorDataset(X, Y), batch_size=16)
    arguments = {
        "model": MODEL,
        "optimizer": torch.optim.SGD(MODEL.parameters(), lr=0.1),
        "train_loader": data,
        "vote_loader": data,
        "criterion": nn.CrossEntropyLoss(),
    }
    with pytest.raises(ValueError, match=message):
        PytorchLearner(**{**arguments, **change})


@pytest.mark.parametrize(
    ("network", "criterion", "message"),
    [
        (nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)), nn.CrossEntropyLoss(), "more than 1 value per channel"),
        (nn.Linear(6, 3), lambda outputs, labels: 1.0, "criterion: it gives no tensor that depends on the weights"),
    ],
)
def test_a_batch_that_cannot_be_trained_on_is_named(network: nn.Module, criterion, message: str) -> None:
    data = DataLoader(TensorDataset(X[:17], Y[:17]), batch_size=16)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    learner = PytorchLearner(network, optimizer, data, data, criterion=criterion, device="cpu")
    with pytest.raises(ValueError, match=rf"train_loader: a batch with inputs of shape .*: .*{message}"):
        learner.mli_propose_weights()
