from __future__ import annotations

import io

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
import onnx
import onnxruntime as ort
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from collective_learner.export import errors
from collective_learner.export.errors import ExportError
from collective_learner.export.exporter import Exporter
from collective_learner.export.meaning import Meaning
from collective_learner.export.torch import TorchExporter
from collective_learner.learners.torch import PytorchLearner
from collective_learner.mli import ModelFormat

X = torch.rand(40, 6, generator=torch.Generator().manual_seed(0)) * 4 - 2
Y = torch.arange(40) % 3


def learner_of(model: nn.Module, x: torch.Tensor = X) -> PytorchLearner:
    data = DataLoader(TensorDataset(x, Y), batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return PytorchLearner(model, optimizer, data, data, criterion=nn.CrossEntropyLoss(), device="cpu")


def state_of(learner: PytorchLearner) -> tuple[object, ...]:
    arrays = {name: array.tobytes() for name, array in learner.mli_get_current_weights().weights.items()}
    modes = [module.training for module in learner.model.modules()]
    return arrays, modes, learner.vote_loader.generator.get_state().tolist(), torch.get_rng_state().tolist()


def run(model: bytes, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def test_the_current_model_is_onnx_for_any_batch_and_leaves_the_learner_as_it_was() -> None:
    network = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.9), nn.ReLU(), nn.Linear(5, 3))
    learner = learner_of(network)
    learner.mli_accept_weights(learner.mli_propose_weights())
    learner.model.train()
    before = state_of(learner)
    model = learner.mli_get_current_model()
    assert state_of(learner) == before
    assert (model.model_format, model.model_file, model.description) == (ModelFormat.ONNX, "model.onnx", "")
    assert model.model is not None
    learner.model.eval()
    for rows in (1, 5, 40):
        with torch.no_grad():
            own = learner.model(X[:rows]).numpy()
        assert np.allclose(run(model.model, X[:rows].numpy()), own, atol=1e-5)
    about = {item.key: item.value for item in onnx.load_from_string(model.model).metadata_props}
    assert about == {"collective.framework": "PyTorch", "collective.outputs": "logits"}


def test_whole_numbers_are_drawn_from_what_there_is() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.out = nn.Embedding(9, 4), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.words(x).mean(dim=1))

    learner = learner_of(Words(), torch.arange(240).reshape(40, 6) % 9)
    assert learner.mli_get_current_model().model_format is ModelFormat.ONNX


def test_the_state_dict_loads_without_code() -> None:
    learner = learner_of(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)))
    loaded = torch.load(io.BytesIO(learner.exporter().file("state_dict")), weights_only=True)
    assert loaded.keys() == learner.model.state_dict().keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in learner.model.state_dict().items())


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.out(x)
        return y if float(y.sum()) > 0 else -y


class Fixed(nn.Module):
    """Decides by the number of rows, which an exporter then takes for the only one."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(x) * (2.0 if x.shape[0] == 3 else 1.0)


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (Branching, "not ONNX: PyTorch's exporter refuses the model: GuardOnDataDependentSymNode: "),
        (Fixed, "not ONNX: what was exported does not take a batch of 1: "),
    ],
)
def test_a_model_that_does_not_export_says_why_and_its_weights_go_out(network, why: str, capfd) -> None:
    learner = learner_of(network())
    model = learner.mli_get_current_model()
    assert model.model_format is ModelFormat.SAFETENSORS
    assert model.model
    assert model.description.startswith(why)
    assert "\n" not in model.description
    told = capfd.readouterr()
    assert told.out + told.err == ""


def test_an_export_that_answers_otherwise_is_not_handed_out() -> None:
    class Wrong(TorchExporter):
        def to_onnx(self, batch):
            self._model[0].bias.data += 0.01
            written = super().to_onnx(batch)
            self._model[0].bias.data -= 0.01
            return written

    learner = learner_of(nn.Sequential(nn.Linear(6, 3)))
    wrong = Wrong(learner.model, X, nn.CrossEntropyLoss(), bytes)
    with pytest.raises(ExportError, match=r"answers a batch of 1 otherwise than PyTorch does: up to 0\.01 apart"):
        wrong.onnx()


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str) -> None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(errors.importlib, "import_module", missing)
    model = learner_of(nn.Linear(6, 3)).mli_get_current_model()
    assert model.model_format is ModelFormat.SAFETENSORS
    assert model.description == (
        "not ONNX: ONNX needs onnx, which is not installed: pip install 'collective-operator[onnx]'"
    )


def test_formats_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ExportError, match="'keras' does not fit a model of PyTorch; there are onnx, safetensors, st"):
        learner_of(nn.Linear(6, 3)).exporter().file("keras")


def test_inputs_that_are_not_one_tensor_are_refused() -> None:
    with pytest.raises(ExportError, match="the model takes a dict"):
        TorchExporter(nn.Linear(6, 3), {"x": X}, None, bytes)


@pytest.mark.parametrize(
    ("criterion", "meaning"),
    [
        (nn.CrossEntropyLoss(), Meaning.LOGITS),
        (nn.functional.cross_entropy, Meaning.LOGITS),
        (nn.BCEWithLogitsLoss(), Meaning.LOGIT),
        (nn.NLLLoss(), Meaning.LOG_PROBABILITIES),
        (nn.MSELoss(), Meaning.VALUES),
        (lambda outputs, labels: outputs.sum(), Meaning.VALUES),
    ],
)
def test_outputs_mean_what_the_loss_takes(criterion, meaning: Meaning) -> None:
    exporter: Exporter = TorchExporter(nn.Linear(6, 3), X, criterion, bytes)
    assert exporter.meaning is meaning
