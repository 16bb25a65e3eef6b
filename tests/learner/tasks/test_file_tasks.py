"""FRAUD and the X-ray tasks: data sets from files, defaults as their users know them, a missing file told at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from collective_learner.data.lookalikes import make
from collective_learner.data.splitting import split

pytest.importorskip("sklearn", reason="scikit-learn is not installed")


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> dict[str, Path]:
    made = {}
    for name, examples in (("fraud", 3000), ("xray", 150), ("covid-xray", 150)):
        folder = tmp_path_factory.mktemp(name)
        if name != "fraud":
            pytest.importorskip("PIL", reason="Pillow is not installed")
        make(name, folder / "whole", examples=examples)
        split(str(folder / "whole"), folder / "shards", learners=2, skew=None, seed=1)
        made[name] = folder
    return made


def setup(factory, model: str, location: object, loader: dict | None = None, **parameters):
    return factory.get_mli(
        model, json.dumps(parameters), model, json.dumps({"location": str(location), **(loader or {})})
    )


def test_fraud_is_learnt_from_a_shard(factory, shards) -> None:
    learner = setup(factory, "FRAUD", shards["fraud"] / "shards" / "0")
    assert [len(part.y) for part in (learner.train_data, learner.vote_data, learner.test_data)] == [1200, 150, 150]
    for _ in range(3):
        proposed = learner.mli_propose_weights()
        verdict = learner.mli_test_weights(proposed)
        learner.mli_accept_weights(proposed)
    assert proposed.training_summary.examples == 1200
    assert verdict.test_score >= 0.9
    other = setup(factory, "FRAUD", shards["fraud"] / "shards" / "1")
    assert other.mli_test_weights(proposed).vote


def test_fraud_is_found_by_boosting_too(factory, shards) -> None:
    parameters = '{"trees": 3, "min_samples_leaf": 5}'
    learner, other = (
        factory.get_mli(
            "FRAUD_BOOSTING", parameters, "FRAUD", json.dumps({"location": str(shards["fraud"] / "shards" / at)})
        )
        for at in "01"
    )
    other.mli_accept_weights(learner.mli_get_current_weights())
    for _ in range(3):
        proposed = learner.mli_propose_weights()
        learner.mli_accept_weights(proposed)
    verdict = other.mli_test_weights(proposed)
    assert verdict.vote
    assert verdict.test_score >= 0.85


def test_fraud_is_read_from_the_published_file_itself(factory, shards) -> None:
    whole = setup(factory, "FRAUD", shards["fraud"] / "whole")
    one_file = setup(factory, "FRAUD", shards["fraud"] / "whole" / "creditcard.csv")
    assert whole.train_data.x.shape == (2400, 30)
    assert whole.train_data.x.tobytes() == one_file.train_data.x.tobytes()


def test_a_test_set_without_fraud_has_no_score(factory, tmp_path: Path) -> None:
    lines = "".join(f"{number},{number},{int(number < 3)}\n" for number in range(60))
    (tmp_path / "creditcard.csv").write_text("Time,Amount,Class\n" + lines)
    scores = set()
    for seed in range(6):
        learner = setup(factory, "FRAUD", tmp_path, {"seed": seed})
        scores.add(str(learner.mli_test_weights(learner.mli_get_current_weights()).test_score))
    assert "nan" in scores


@pytest.mark.parametrize(
    ("name", "model", "classes"), [("xray", "PYTORCH_XRAY", 2), ("covid-xray", "PYTORCH_COVID_XRAY", 3)]
)
def test_xrays_are_learnt_from_folders(factory, shards, name: str, model: str, classes: int) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.set_num_threads(1)
    loader = {"train_ratio": 0.6}
    learner = setup(
        factory, model, shards[name] / "shards" / "0", loader, steps_per_epoch=25, learning_rate=0.003, no_cuda=True
    )
    assert learner.mli_get_current_weights().weights["15.weight"].shape == (classes, 64)
    proposed = learner.mli_propose_weights()
    assert proposed.training_summary.examples == 45
    verdict = learner.mli_test_weights(proposed)
    assert verdict.vote  # on its accuracy, which is to grow
    assert verdict.vote_score > learner.vote_score
    assert verdict.vote_score >= 0.8
    learner.mli_accept_weights(proposed)
    assert learner.mli_propose_weights().weights["0.weight"].shape == (8, 1, 3, 3)


@pytest.mark.parametrize(("name", "model"), [("xray", "PYTORCH_XRAY"), ("covid-xray", "PYTORCH_COVID_XRAY")])
def test_xrays_are_learnt_privately_where_the_task_says_so(factory, shards, name: str, model: str, monkeypatch) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    pytest.importorskip("opacus", reason="needs the extra torch-dp")
    monkeypatch.delenv("COLLECTIVE_STATE_DIR", raising=False)
    torch.set_num_threads(1)
    private = {"target_epsilon": 8, "target_delta": 1e-3, "max_grad_norm": 1.0, "noise_multiplier": 1.0}
    loader, options = {"train_ratio": 0.6}, {"steps_per_epoch": 2, "no_cuda": True, "diff_priv_config": private}
    learner = setup(factory, model, shards[name] / "shards" / "0", loader, **options)
    told = learner.mli_propose_weights().training_summary
    assert told.examples == 45
    assert 0 < told.dp_budget.consumed_epsilon <= told.dp_budget.target_epsilon == 8
    assert learner._private.spending.planned.steps == 2


def test_xrays_to_test_on_may_lie_apart(factory, shards) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    folders = shards["xray"] / "shards"
    together = setup(factory, "PYTORCH_XRAY", folders / "0", {"train_ratio": 0.8}, no_cuda=True, vote_on_accuracy=False)
    apart = setup(factory, "PYTORCH_XRAY", folders / "0", {"train_ratio": 0.8, "test_location": str(folders / "1")})
    sizes = [[len(each.dataset) for each in learner._loaders] for learner in (together, apart)]
    assert sizes == [[60, 8, 7], [60, 15, 75]]
    assert together.minimise_criterion
    assert not apart.minimise_criterion


@pytest.mark.parametrize("model", ["FRAUD", "PYTORCH_XRAY", "PYTORCH_COVID_XRAY"])
def test_a_missing_file_is_told_with_what_is_expected(factory, model: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"location: .*/nowhere', there is no such file or folder"):
        setup(factory, model, tmp_path / "nowhere")
    expected = "creditcard.csv or train_transaction.csv" if model == "FRAUD" else "folders named (normal|covid)"
    with pytest.raises(ValueError, match=rf"location: '{tmp_path}' has no (data|images).*{expected}"):
        setup(factory, model, tmp_path)


DEFAULTS = {
    "FRAUD": ({"train_ratio": 0.8}, {}),
    "KERAS_MNIST": (
        {"train_ratio": 0.9, "batch_size": 32},
        {
            "steps_per_epoch": 100,
            "vote_batches": 10,
            "learning_rate": 0.001,
            "diff_priv_config": None,
            "num_microbatches": 4,
        },
    ),
    "KERAS_MNIST_RESNET": (None, {"steps_per_epoch": 100, "vote_batches": 10, "learning_rate": 0.001}),
    "KERAS_MNIST_WITH_DP": ({"train_ratio": 0.9, "batch_size": 32}, None),
    "KERAS_CIFAR10": (
        {"train_ratio": 0.9, "batch_size": 32},
        {"steps_per_epoch": 100, "vote_batches": 10, "learning_rate": 0.001},
    ),
    "PYTORCH_XRAY": (
        {"test_location": None, "train_ratio": 0.96, "batch_size": 8, "no_cuda": False},
        {
            "learning_rate": 0.001,
            "steps_per_epoch": 40,
            "vote_batches": 10,
            "no_cuda": False,
            "vote_on_accuracy": True,
        },
    ),
    "PYTORCH_COVID_XRAY": (
        {"train_ratio": 0.8, "batch_size": 8, "no_cuda": False},
        {
            "learning_rate": 0.001,
            "steps_per_epoch": 40,
            "vote_batches": 10,
            "no_cuda": False,
            "vote_on_accuracy": True,
        },
    ),
}
PAIRS = {
    "FRAUD": {"FRAUD"},
    "KERAS_CIFAR10": {"KERAS_CIFAR10"},
    "KERAS_MNIST": {"KERAS_MNIST", "KERAS_MNIST_WITH_DP"},
    "KERAS_MNIST_RESNET": {"KERAS_MNIST"},
    "PYTORCH_COVID_XRAY": {"PYTORCH_COVID_XRAY"},
    "PYTORCH_XRAY": {"PYTORCH_XRAY"},
}
OURS = {"seed": 0, "precision": "float32", "diff_priv_config": None}
"""What these have beyond the parameters that are known from elsewhere."""


@pytest.mark.parametrize("name", DEFAULTS)
def test_parameters_and_pairs_are_those_that_users_know(factory, name: str) -> None:
    if name.startswith("KERAS") and name not in {**factory.get_models(), **factory.get_dataloaders()}:
        pytest.skip("Keras is not installed")
    loader, model = DEFAULTS[name]
    if loader is not None:
        assert factory.get_dataloaders()[name] == {**loader, "seed": 0}
    if model is not None:
        found = factory.get_models()[name]
        assert {key: value for key, value in found.items() if key in model} == model
        assert {key: value for key, value in found.items() if key not in model}.items() <= OURS.items()
        assert factory.get_compatibilities()[name] == PAIRS[name]


def test_the_split_is_whole_disjoint_and_the_seeds_own(factory, shards) -> None:
    first, again, other = (
        setup(factory, "FRAUD", shards["fraud"] / "shards" / "0", {"seed": seed}) for seed in (0, 0, 1)
    )
    rows = {row.tobytes() for part in (first.train_data, first.vote_data, first.test_data) for row in part.x}
    assert len(rows) == 1500
    assert np.array_equal(first.train_data.x, again.train_data.x)
    assert not np.array_equal(first.train_data.x, other.train_data.x)
