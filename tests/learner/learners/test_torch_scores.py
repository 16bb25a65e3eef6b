"""PytorchLearner: scores are means over examples, and what is not a number wins nothing."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")
import torch
from torch import nn
from torch_models import X, Y, make

from collective_learner.learners.torch import categorical_accuracy


def test_scores_are_means_over_examples_not_batches() -> None:
    learner = make(loader="one batch")
    uneven = make(loader="own")  # batches of 16, 16, 16 and 2
    assert uneven.vote_score == pytest.approx(learner.vote_score, abs=1e-6)
    summed = make(loader="own", criterion=nn.CrossEntropyLoss(reduction="sum"))
    assert summed.vote_score == pytest.approx(learner.vote_score, abs=1e-6)
    with torch.no_grad():
        learner.model.eval()
        expected = nn.functional.cross_entropy(learner.model(X), Y)
        right = (learner.model(X).argmax(1) == Y).float().mean()
    assert learner.vote_score == pytest.approx(float(expected), abs=1e-6)
    assert uneven.mli_test_weights(uneven.mli_get_current_weights()).test_score == pytest.approx(float(right))


@pytest.mark.parametrize(("asked", "steps"), [(None, 4), (1, 1), (11, 11)])
def test_batches_of_a_training(asked: int | None, steps: int) -> None:
    seen = []

    def watch(outputs, labels):
        if outputs.requires_grad:
            seen.append(len(labels))
        return nn.functional.cross_entropy(outputs, labels)

    summary = make(criterion=watch, num_train_batches=asked).mli_propose_weights().training_summary
    assert len(seen) == steps
    assert summary.examples == 50
    assert np.isfinite(summary.metrics["loss"])


def test_batches_of_a_score() -> None:
    seen = []

    def watch(outputs, labels):
        seen.append(len(labels))
        return categorical_accuracy(outputs, labels)

    make(vote_criterion=watch, minimise_criterion=False, num_test_batches=3)
    assert seen == [16, 16, 16]
    seen.clear()
    make(vote_criterion=watch, minimise_criterion=False, num_test_batches=30)
    assert seen == [16, 16, 16, 2]


def test_a_vote_on_accuracy_wants_more() -> None:
    learner = make(vote_criterion=categorical_accuracy, minimise_criterion=False, num_train_batches=60)
    verdict = learner.mli_test_weights(learner.mli_propose_weights())
    assert verdict.vote
    assert verdict.vote_score > learner.vote_score


@pytest.mark.parametrize("criterion", [None, categorical_accuracy])
def test_nan_never_wins(criterion) -> None:
    learner = make(vote_criterion=criterion, minimise_criterion=criterion is None)
    for name in ("0.weight", "1.running_mean"):
        poison = learner.mli_get_current_weights()
        poison.weights[name].flat[0] = np.nan
        verdict = learner.mli_test_weights(poison)
        assert not verdict.vote
        assert np.isnan(verdict.vote_score)
    good = learner.mli_get_current_weights()
    learner.mli_accept_weights(poison)
    assert learner.mli_test_weights(good).vote


@pytest.mark.parametrize("criterion", [None, categorical_accuracy])
def test_outputs_that_are_not_numbers_have_no_score(criterion) -> None:
    learner = make(vote_criterion=criterion, minimise_criterion=criterion is None)
    poison = learner.mli_get_current_weights()
    poison.weights["4.weight"][:, 0] = np.inf  # times an output of 0 from the ReLU: not a number
    verdict = learner.mli_test_weights(poison)
    assert np.isnan(verdict.vote_score)
    assert np.isnan(verdict.test_score)
    assert not verdict.vote
