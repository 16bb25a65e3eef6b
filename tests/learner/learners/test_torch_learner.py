"""PytorchLearner: propose and test put everything back, and only accepting changes it."""

import itertools

import pytest

from collective_learner.mli import Weights

pytest.importorskip("torch", reason="PyTorch is not installed")
import torch
from torch import nn
from torch_models import MODELS, OPTIMIZERS, as_bytes, everything, make

CASES = [
    *itertools.product(MODELS, OPTIMIZERS, ["own"], [True, False]),
    *itertools.product(MODELS, ["momentum"], ["global", "one batch"], [True, False]),
]


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(("model", "optimizer", "loader", "reset"), CASES)
def test_propose_and_test_leave_everything_and_accept_changes_it(model, optimizer, loader, reset, warm) -> None:
    learner = make(model, optimizer, loader, warm=warm, need_reset_optimizer=reset)
    for _ in range(2):
        before = everything(learner)
        proposed = learner.mli_propose_weights()
        assert everything(learner) == before
        verdict = learner.mli_test_weights(proposed)
        assert everything(learner) == before
        assert as_bytes(learner.mli_propose_weights()) == as_bytes(proposed)
        learner.mli_accept_weights(proposed)
        assert as_bytes(learner.mli_get_current_weights()) == as_bytes(proposed)
        assert learner.vote_score == verdict.vote_score
        assert not learner.mli_test_weights(proposed).vote  # equal is not better
        assert everything(learner)["modes"] == before["modes"]


def test_an_error_in_training_leaves_everything_too() -> None:
    calls = itertools.count()

    def fails(outputs, labels):
        if next(calls) == 6:
            raise RuntimeError("boom")
        return nn.functional.cross_entropy(outputs, labels)

    learner = make(criterion=fails)
    before = everything(learner)
    with pytest.raises(ValueError, match=r"train_loader: a batch with inputs of shape \(16, 6\), .*: boom"):
        learner.mli_propose_weights()
    assert everything(learner) == before


@pytest.mark.parametrize("loader", ["own", "global"])
def test_other_weights_another_order_of_examples(loader: str) -> None:
    orders = []

    def watch(outputs, labels):
        if outputs.requires_grad:
            orders[-1].append(labels.tolist())
        return nn.functional.cross_entropy(outputs, labels)

    learner = make(loader=loader, criterion=watch)
    for _ in range(3):
        orders.append([])
        proposed = learner.mli_propose_weights()
        learner.mli_accept_weights(proposed)
    assert orders[0] != orders[1] != orders[2]


def test_optimizer_state_goes_on_from_ones_own_accepted_proposal_only() -> None:
    learner = make(optimizer="adam", need_reset_optimizer=False)
    assert learner.optimizer.state_dict()["state"] == {}
    own = learner.mli_propose_weights()
    learner.mli_accept_weights(own)
    assert learner.optimizer.state_dict()["state"][0]["step"] == 4
    learner.mli_propose_weights()
    foreign = Weights({name: array + 1 for name, array in own.weights.items()})
    learner.mli_accept_weights(foreign)
    assert learner.optimizer.state_dict()["state"][0]["step"] == 4
    learner.mli_accept_weights(learner.mli_propose_weights())
    assert learner.optimizer.state_dict()["state"][0]["step"] == 8


def test_a_reset_training_forgets_momentum() -> None:
    fresh, warmed = make(), make()
    own = fresh.mli_get_current_weights()
    warmed.mli_accept_weights(warmed.mli_propose_weights())
    warmed.mli_accept_weights(own)
    assert as_bytes(warmed.mli_propose_weights()) == as_bytes(fresh.mli_propose_weights())


class Remembering(nn.Module):
    """Keeps where it is in attributes of its own, as networks of recurrent cells do."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.GRUCell(6, 4), nn.Linear(4, 3)
        self.state, self.seen = None, torch.zeros(4)

    def forward(self, x):
        state = self.cell(x, None if self.state is None else self.state.expand(len(x), -1))
        self.state = state.detach().mean(0, keepdim=True)
        self.seen = self.seen + self.state[0]
        self.last = (self.state, self.seen)
        return self.out(state + 0.01 * self.seen)


def test_states_that_are_no_buffers_are_put_back_too() -> None:
    learner = make(Remembering())
    model = learner.model
    held = model.state, model.seen
    assert model.state is None and not hasattr(model, "last")
    proposed = learner.mli_propose_weights()
    verdict = learner.mli_test_weights(proposed)
    assert (model.state, model.seen) == held and not hasattr(model, "last")
    assert as_bytes(learner.mli_propose_weights()) == as_bytes(proposed)
    assert learner.mli_test_weights(proposed).vote_score == verdict.vote_score
