"""The rule of the vote, against its own words computed exactly."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collective_coordinator.strategies.base import Ballot
from collective_coordinator.strategies.opening import Opening
from collective_coordinator.strategies.vote import Vote


def ballots(*votes: bool) -> dict[str, Ballot]:
    return {f"learner-{i}": Ballot(vote=vote, vote_score=0.0, test_score=0.0) for i, vote in enumerate(votes)}


@pytest.mark.parametrize(
    ("threshold", "votes", "accepted"),
    [
        # The first is the proposer, whose vote does not count.
        ("0.5", (True, True, True, False, False), True),  # 2 of 4
        ("0.5", (True, True, False, False, False), False),  # 1 of 4
        ("0.5", (False, True, True, False, False), True),
        ("0.5", (True, True, False), True),  # 1 of 2
        ("0.5", (True, False, False), False),
        ("0.5", (True, False), False),
        ("0.5", (True, True, False, False), False),  # 1 of 3
        ("1.0", (False, True, True), True),
        ("1.0", (True, True, False), False),
        ("0.0", (False, False, False), True),
        ("0.5", (False,), True),  # alone
        ("1.0", (False,), True),
    ],
)
def test_the_table_of_the_vote(threshold, votes, accepted):
    decision = Vote(threshold=threshold).decide(trainers=("learner-0",), ballots=ballots(*votes), held={})
    assert decision.accepted is accepted
    assert list(decision.votes) == [f"learner-{i}" for i in range(1, len(votes))]


def test_a_share_that_binary_numbers_miss():
    """0.07 x 100 is 7.000000000000001 in floating point."""
    votes = (False, *([True] * 7), *([False] * 93))
    assert Vote(threshold=repr(0.07)).decide(trainers=("learner-0",), ballots=ballots(*votes), held={}).accepted


@given(st.decimals(0, 1, places=3), st.lists(st.booleans(), min_size=1, max_size=40), st.data())
def test_approvals_of_the_others_against_their_share(threshold, votes, data):
    proposer = data.draw(st.integers(0, len(votes) - 1))
    decision = Vote(threshold=repr(float(threshold))).decide(
        trainers=(f"learner-{proposer}",), ballots=ballots(*votes), held={}
    )
    approvals = sum(vote for index, vote in enumerate(votes) if index != proposer)
    assert decision.accepted == (approvals >= (len(votes) - 1) * Decimal(threshold))


def test_a_proposer_that_could_not_test_its_own_proposal_changes_nothing():
    others = {name: ballot for name, ballot in ballots(True, True, False).items() if name != "learner-0"}
    assert Vote(threshold="0.5").decide(trainers=("learner-0",), ballots=others, held={}).accepted


def test_the_proposer_goes_round_over_those_who_live():
    vote = Vote(threshold="0.5")
    live = ["learner-0", "learner-2", "learner-3"]
    assert [vote.trainers(round_number=number, live=live)[0] for number in range(1, 7)] == live * 2
    assert Opening().trainers(round_number=0, live=live) == ("learner-0",)
    assert Opening().decide(trainers=("learner-0",), ballots=ballots(False, False), held={}).accepted
