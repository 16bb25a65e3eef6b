"""The gate before an averaged model: votes are counted, gains are weighed, and what is held never declines."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collective_coordinator.strategies.base import Ballot
from collective_coordinator.strategies.gate import Gate


def ballots(scores: dict[str, float], held: dict[str, float], *, minimise: bool) -> dict[str, Ballot]:
    """Vote as learners do: for what is strictly better than what they hold."""

    def better(name: str) -> bool:
        return scores[name] < held[name] if minimise else scores[name] > held[name]

    return {name: Ballot(vote=better(name), vote_score=scores[name], test_score=0.0) for name in scores}


@pytest.mark.parametrize("minimise", [True, False])
def test_three_that_gain_little_do_not_outvote_two_that_lose_much(minimise):
    sign = -1 if minimise else 1
    held = dict.fromkeys("abcde", 10.0)
    better = {name: 10.0 + sign * gain for name, gain in zip("abcde", (1, 1, 1, -1, -1), strict=True)}
    worse = {name: 10.0 + sign * gain for name, gain in zip("abcde", (1, 1, 1, -2, -2), strict=True)}
    passed = Gate("0.5").decide(ballots(better, held, minimise=minimise), held)
    stopped = Gate("0.5").decide(ballots(worse, held, minimise=minimise), held)
    assert (passed.accepted, passed.gain) == (True, 0.2)
    assert (stopped.accepted, stopped.gain) == (False, -0.2)
    assert list(stopped.votes.values()) == [True, True, True, False, False]


def test_gains_do_not_replace_votes():
    held = dict.fromkeys("abc", 1.0)
    assert not Gate("0.5").decide(ballots({"a": 9.0, "b": 1.0, "c": 0.9}, held, minimise=False), held).accepted


def test_who_did_not_judge_the_weights_held_votes_and_weighs_nothing():
    decision = Gate("1.0").decide(
        {
            "a": Ballot(vote=True, vote_score=2.0, test_score=0.0),
            "new": Ballot(vote=True, vote_score=9.0, test_score=0.0),
        },
        {"a": 1.0, "gone": 5.0},
    )
    assert decision.accepted and decision.gain == 1.0
    alone = Gate("0.5").decide({"new": Ballot(vote=True, vote_score=9.0, test_score=0.0)}, {})
    assert alone.accepted and alone.gain == 0.0


@settings(deadline=None)
@given(st.data(), st.booleans(), st.integers(1, 6))
def test_the_mean_of_what_is_held_never_gets_worse(data, minimise, learners):
    names = [f"learner-{index}" for index in range(learners)]
    score = st.floats(-1e6, 1e6).map(lambda value: float(f"{value:.7g}"))
    scores = st.fixed_dictionaries(dict.fromkeys(names, score))
    held = data.draw(scores)
    for proposal in data.draw(st.lists(scores, min_size=1, max_size=20)):
        if Gate("0.5").decide(ballots(proposal, held, minimise=minimise), held).accepted:
            change = statistics.fmean(proposal.values()) - statistics.fmean(held.values())
            assert (change <= 1e-9) if minimise else (change >= -1e-9)
            held = proposal
