"""Rounds that a script drives itself: the rules of a round, and whole scripts as their authors write them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import collective_learner
from collective_learner import (
    ColearnModel,
    DiffPrivBudget,
    ErrorCodes,
    MachineLearningInterface,
    ProposedWeights,
    Result,
    Results,
    TrainingSummary,
    Weights,
    collective_learning_round,
    initial_result,
    print_results,
    set_equal_weights,
)

SURFACE = [
    "MachineLearningInterface",
    "Weights",
    "ProposedWeights",
    "ColearnModel",
    "ModelFormat",
    "DiffPrivConfig",
    "DiffPrivBudget",
    "TrainingSummary",
    "ErrorCodes",
    "MliFactory",
    "FactoryRegistry",
    "DefaultMliFactory",
    "GRPCServer",
    "GRPCLearnerClient",
    "PytorchLearner",
    "SklearnLearner",
    "set_equal_weights",
    "initial_result",
    "collective_learning_round",
    "Results",
    "print_results",
    "CollectivePlot",
    "plot_results",
    "plot_votes",
    "normalize_img",
]
"""The names that scripts import; KerasLearner is imported where Keras is, in a process of its own."""

SCRIPTS = Path(__file__).parent / "scripts"


class Stepper(MachineLearningInterface):
    """Has one number, proposes one more, and votes as it is told."""

    def __init__(self, start: float, *, votes: bool = True) -> None:
        self.w = np.array([start])
        self.votes = votes
        self.rounds: list[int] = []
        self.tested: list[Weights] = []

    def mli_set_training_options(self, options) -> None:
        self.rounds.append(options.round)

    def mli_propose_weights(self) -> Weights:
        return Weights([self.w + 1], TrainingSummary(examples=3))

    def mli_test_weights(self, weights: Weights) -> ProposedWeights:
        self.tested.append(weights)
        value = float(weights.weights[0][0])
        return ProposedWeights(weights=weights, vote_score=value, test_score=-value, vote=self.votes)

    def mli_accept_weights(self, weights: Weights) -> None:
        assert not self.tested or weights is self.tested[-1]
        self.w = weights.weights[0]

    def mli_get_current_weights(self) -> Weights:
        return Weights([self.w])

    def mli_get_current_model(self) -> ColearnModel:
        raise NotImplementedError


def test_all_that_scripts_import_is_in_one_place() -> None:
    assert set(SURFACE) <= set(collective_learner.__all__)
    assert all(getattr(collective_learner, name) is not None for name in SURFACE)


def test_all_get_arrays_of_their_own_with_the_first_ones_weights() -> None:
    learners = [Stepper(5), Stepper(6), Stepper(7)]
    set_equal_weights(learners)
    assert [learner.w.tolist() for learner in learners] == [[5.0]] * 3
    learners[1].w += 1
    assert [learner.w.tolist() for learner in learners] == [[5.0], [6.0], [5.0]]


def test_the_first_result_is_of_everyones_own_weights() -> None:
    result = initial_result([Stepper(5), Stepper(6, votes=False)])
    assert (result.vote, result.votes, result.block_proposer) == (True, [True, True], None)
    assert (result.vote_scores, result.test_scores) == ([5, 6], [-5, -6])


@pytest.mark.parametrize(
    ("votes", "threshold", "accepted"),
    [
        ([True, True, True, False, False], 0.5, True),  # 2 of 4, the proposer's own left out
        ([True, True, False, False, False], 0.5, False),
        ([False, True, True, False, False], 0.5, True),
        ([True, False, False, False, False], 0.0, True),
        ([False], 1.0, True),
        ([True, True, True, True, False], 1.0, False),
        ([True, False, *([True] * 3), *([False] * 6)], 0.3, True),  # 3 of 10: ten times 0.3 is 3, and no more
    ],
)
def test_enough_of_the_others_accept(votes: list[bool], threshold: float, accepted: bool) -> None:
    learners = [Stepper(1, votes=vote) for vote in votes]
    result = collective_learning_round(learners, threshold, len(votes) * 3)
    assert (result.vote, result.votes, result.block_proposer) == (accepted, votes, 0)
    assert result.vote_scores == [2.0] * len(votes)
    assert [learner.w.tolist() for learner in learners] == [[2.0 if accepted else 1.0]] * len(votes)
    assert learners[0].rounds == [len(votes) * 3]
    assert result.training_summary == TrainingSummary(examples=3)


class Viewer(Stepper):
    accepts_views = True


def test_who_takes_views_is_given_no_copy() -> None:
    learners = [Stepper(1), Viewer(1), Viewer(1)]
    collective_learning_round(learners, 0.5, 0)
    assert learners[1].w is learners[2].w
    assert not np.shares_memory(learners[0].w, learners[1].w)


def test_weights_may_be_what_the_learners_understand() -> None:
    """In one process nothing has to travel: tensors, or arrays in arrays, are passed on as they are."""

    class Odd(Stepper):
        def mli_propose_weights(self) -> Weights:
            return Weights({"deep": [np.array([2.0])]})

        def mli_test_weights(self, weights: Weights) -> ProposedWeights:
            super().mli_test_weights(Weights(weights.weights["deep"]))
            self.tested[-1] = weights
            return ProposedWeights(weights=weights, vote_score=1, test_score=1, vote=True)

        def mli_accept_weights(self, weights: Weights) -> None:
            self.w = weights.weights["deep"][0]

    learners = [Odd(1), Odd(1)]
    assert collective_learning_round(learners, 0.5, 0).vote
    learners[0].w += 1
    assert [learner.w.tolist() for learner in learners] == [[3.0], [2.0]]


def test_the_proposer_goes_round() -> None:
    learners = [Stepper(0), Stepper(0), Stepper(0)]
    assert [collective_learning_round(learners, 0.5, index).block_proposer for index in range(4)] == [0, 1, 2, 0]


def test_what_cannot_be_a_round_is_refused() -> None:
    with pytest.raises(ValueError, match=r"vote_threshold: 1\.5, a number from 0 to 1"):
        collective_learning_round([Stepper(0)], 1.5, 0)
    for function in (set_equal_weights, initial_result):
        with pytest.raises(ValueError, match="learners: none given"):
            function([])
    with pytest.raises(ValueError, match="no round yet"):
        print_results(Results())


def test_the_table_tells_the_round(capsys: pytest.CaptureFixture[str]) -> None:
    budget = DiffPrivBudget(target_epsilon=4, target_delta=1e-5, consumed_epsilon=4, consumed_delta=1e-6)
    result = Result(
        vote=False,
        votes=[True, False, True],
        vote_scores=[0.5, 0.25, 0.125],
        test_scores=[0, 1, 0.75],
        block_proposer=2,
        training_summary=TrainingSummary(dp_budget=budget, error_code=ErrorCodes.DP_BUDGET_EXCEEDED),
    )
    print_results(Results(data=[Result(), result]))
    assert capsys.readouterr().out.splitlines() == [
        "selected proposer:  2",
        "new model accepted: no",
        "  learner  vote       test score vote score",
        "  0        yes                 0        0.5",
        "  1        no                  1       0.25",
        "  2        (proposer)       0.75      0.125",
        "  privacy budget of 2: epsilon 4 of 4, delta 1e-06 of 1e-05",
        "  2 did not train: DP_BUDGET_EXCEEDED",
        "",
    ]


def run_script(name: str, folder: Path, *arguments: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "MPLBACKEND")}
    done = subprocess.run(
        [sys.executable, SCRIPTS / name, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def learnt(output: str) -> bool:
    found = re.search(r"^scores (\S+) (\S+)$", output, re.MULTILINE)
    assert found
    return float(found[2]) < float(found[1])


def test_a_script_with_learners_of_its_own(tmp_path: Path) -> None:
    output = run_script("local_script.py", tmp_path)
    assert learnt(output)
    assert output.count("selected proposer") == 4
    for name in ("collective-results.png", "collective-scores.png", "collective-votes.png"):
        assert output.count(f"the plot is in {tmp_path.resolve() / name}\n") == 1
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_a_script_with_servers_and_clients(tmp_path: Path, free_range) -> None:
    output = run_script("grpc_script.py", tmp_path, str(free_range(3)))
    assert learnt(output)
    assert output.count("selected proposer") == 3
    assert "exit codes [0, 0, 0]" in output
