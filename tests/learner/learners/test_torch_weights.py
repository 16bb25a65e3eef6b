"""PytorchLearner: tensors travel by name, once and whole, or are refused by name."""

import numpy as np
import pytest

from collective_learner.mli import ModelFormat, Weights

pytest.importorskip("torch", reason="PyTorch is not installed")
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch_models import LOADERS, X, Y, as_bytes, batch_norm, everything, freeze, make

from collective_learner.learners.torch import PytorchLearner


def test_weights_by_name_with_buffers_and_refused_by_name() -> None:
    learner = make()
    weights = learner.mli_get_current_weights().weights
    assert list(weights) == list(learner.model.state_dict())
    assert weights["1.num_batches_tracked"].shape == ()
    before = everything(learner)
    for change, message in [
        ({"0.weight": np.zeros((8, 5), np.float32)}, "'0.weight' has shape"),
        ({"1.num_batches_tracked": np.zeros((), np.float32)}, "'1.num_batches_tracked' has type float32"),
        ({"9.weight": np.zeros(1)}, "unknown '9.weight'"),
    ]:
        for method in (learner.mli_test_weights, learner.mli_accept_weights):
            with pytest.raises(ValueError, match=message):
                method(Weights({**weights, **change}))
    assert everything(learner) == before


@pytest.mark.filterwarnings("error")
def test_views_that_cannot_be_written_are_read() -> None:
    learner = make()
    weights = learner.mli_propose_weights()
    for array in weights.weights.values():
        array.flags.writeable = False
    learner.mli_test_weights(weights)
    learner.mli_accept_weights(weights)
    assert as_bytes(learner.mli_get_current_weights()) == as_bytes(weights)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6, bias=False)
        self.second = nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight
        self.out = nn.Linear(6, 3)

    def forward(self, x):
        return self.out(self.second(torch.relu(self.first(x))))


def test_tied_weights_travel_once_and_stay_tied() -> None:
    learner = make(Tied())
    proposed = learner.mli_propose_weights()
    assert list(proposed.weights) == ["first.weight", "out.weight", "out.bias"]
    learner.mli_accept_weights(proposed)
    assert learner.model.second.weight is learner.model.first.weight
    assert learner.model.second.weight.detach().numpy().tobytes() == proposed.weights["first.weight"].tobytes()


def test_mixed_precision_calculates_in_bfloat16_on_weights_in_float32() -> None:
    seen: list[torch.dtype] = []

    def criterion(outputs, labels):
        seen.append(outputs.dtype)
        return nn.functional.cross_entropy(outputs, labels)

    mixed, plain = make(criterion=criterion, precision="bf16"), make()
    before = everything(mixed)
    proposed, exact = mixed.mli_propose_weights(), plain.mli_propose_weights()
    assert everything(mixed) == before
    assert set(seen) == {torch.bfloat16}
    assert as_bytes(proposed) != as_bytes(exact)
    for name, array in proposed.weights.items():
        assert array.dtype == exact.weights[name].dtype
        np.testing.assert_allclose(array, exact.weights[name], rtol=0.1, atol=0.05, err_msg=name)
    verdict = mixed.mli_test_weights(proposed)
    assert verdict.vote
    assert verdict.vote_score == pytest.approx(plain.mli_test_weights(exact).vote_score, rel=0.05)
    assert as_bytes(mixed.mli_propose_weights()) == as_bytes(proposed)


def test_bfloat16_travels_as_float32_without_loss() -> None:
    from safetensors.torch import load

    model = nn.Sequential(nn.Linear(6, 3)).to(torch.bfloat16)
    criterion = lambda outputs, labels: nn.functional.cross_entropy(outputs.float(), labels)  # noqa: E731
    data = DataLoader(TensorDataset(X.to(torch.bfloat16), Y), batch_size=16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    learner = PytorchLearner(model, optimizer, data, data, criterion=criterion, device="cpu")
    proposed = learner.mli_propose_weights()
    assert proposed.weights["0.weight"].dtype == np.float32
    learner.mli_accept_weights(proposed)
    assert as_bytes(learner.mli_get_current_weights()) == as_bytes(proposed)
    model = learner.mli_get_current_model()  # no ONNX for inputs of bfloat16
    assert model.model_format is ModelFormat.SAFETENSORS
    assert "bfloat16" in model.description
    assert load(model.model)["0.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: nn.ParameterDict({"scale": nn.Parameter(torch.ones(3, dtype=torch.complex64))}), "'scale' has type"),
        (lambda: nn.Sequential(nn.LazyLinear(3)), "'0.weight' is not initialised"),
    ],
)
def test_tensors_that_cannot_travel_are_refused_by_name(model, message: str) -> None:
    data, optimizer = LOADERS["own"](), torch.optim.SGD([nn.Parameter(X)], lr=0.1)
    with pytest.raises(ValueError, match=message):
        PytorchLearner(model(), optimizer, data, data, criterion=nn.CrossEntropyLoss(), device="cpu")


def test_memory_shared_in_another_shape_is_refused_by_name() -> None:
    model = Tied()
    model.register_buffer("flat", model.first.weight.detach().view(-1))
    with pytest.raises(ValueError, match=r"'first.weight' shares memory with 'flat'|'flat' shares memory with"):
        make(model)


def test_the_model_goes_out_as_a_safetensors_file() -> None:
    from safetensors.torch import load

    learner = make()
    fresh = batch_norm()
    fresh.load_state_dict(load(learner.exporter().file("safetensors")))
    assert freeze(dict(fresh.state_dict())) == freeze(dict(learner.model.state_dict()))
