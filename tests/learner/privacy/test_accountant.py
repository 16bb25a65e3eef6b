"""What is told to be spent is never less than what an independent accountant finds for the same sampling."""

import math

import pytest

from collective_learner.privacy.accountant import Charge, epsilon_after, epsilon_of, merged

pytest.importorskip("opacus", reason="needs the extra torch-dp")


def charge(noise: float, rate: float, steps: int) -> Charge:
    return Charge(noise_multiplier=noise, sample_rate=rate, steps=steps)


def independent(charges: list[Charge], delta: float) -> float:
    """Privacy loss distributions of Poisson-sampled Gaussians, for adding or removing an example."""
    dp_accounting = pytest.importorskip("dp_accounting", reason="needs the extra dev")
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=1e-4)
    for each in charges:
        event = dp_accounting.GaussianDpEvent(each.noise_multiplier)
        if each.sample_rate < 1:
            event = dp_accounting.PoissonSampledDpEvent(each.sample_rate, event)
        accountant.compose(event, each.steps)
    return accountant.get_epsilon(delta)


SETTINGS = [
    ([charge(1.0, 0.01, 1000)], 1e-5),
    ([charge(1.3, 0.15, 68)], 1e-5),
    ([charge(0.8, 0.05, 200)], 1e-6),
    ([charge(0.5, 0.02, 50)], 1e-5),
    ([charge(4.0, 0.5, 500)], 1e-5),
    ([charge(2.0, 0.001, 5000)], 1e-7),
    ([charge(1.0, 0.3, 1)], 1e-3),
    ([charge(20.0, 0.01, 3)], 1e-5),
    ([charge(3.0, 1.0, 20)], 1e-5),
    ([charge(0.4, 0.1, 5)], 1e-5),
    ([charge(1.0, 0.05, 100), charge(2.0, 0.05, 100), charge(1.0, 0.2, 10)], 1e-5),
    ([charge(1.1, 2**-24, 1000)], 1e-6),
]


@pytest.mark.parametrize(("charges", "delta"), SETTINGS, ids=lambda value: str(value)[:60])
def test_it_is_never_below_an_independent_accountant(charges: list[Charge], delta: float) -> None:
    ours, theirs = epsilon_of(charges, delta=delta), independent(charges, delta)
    assert ours >= theirs
    # And says something: a bound may be loose where epsilon means nothing, or is next to nothing.
    loose = 3.0 if theirs > 30 or charges[0].sample_rate == 1 else 1.05
    assert ours <= loose * theirs + 0.02


def test_more_is_never_less() -> None:
    for noise, rate in ((1.0, 0.05), (0.6, 0.2), (3.0, 0.01)):
        told = [epsilon_of([charge(noise, rate, steps)], delta=1e-5) for steps in (0, 1, 10, 40, 160)]
        assert told[0] == 0 and told == sorted(told) and len(set(told)) == len(told)


def test_parts_are_their_sum_in_any_order() -> None:
    a, b, more = charge(1.0, 0.1, 10), charge(2.0, 0.1, 5), charge(1.0, 0.1, 7)
    assert merged([a, b, more]) == (charge(1.0, 0.1, 17), b)
    assert epsilon_of([a, b, more], delta=1e-5) == epsilon_of([charge(1.0, 0.1, 17), b], delta=1e-5)
    assert epsilon_after([a, b], more, delta=1e-5) == epsilon_of([a, b, more], delta=1e-5)
    assert epsilon_after([a], charge(1.0, 0.1, 0), delta=1e-5) == epsilon_of([a], delta=1e-5)


def test_hardly_any_noise_is_infinite_or_huge_and_no_error() -> None:
    assert epsilon_of([charge(1e-3, 0.5, 1000)], delta=1e-5) > 1e5
    assert not math.isnan(epsilon_of([charge(1e-6, 1.0, 10)], delta=1e-5))


@pytest.mark.parametrize("wrong", [(0.0, 0.1, 1), (1.0, 0.0, 1), (1.0, 1.1, 1), (1.0, 0.1, -1), (math.inf, 0.1, 1)])
def test_a_charge_that_cannot_be_is_refused(wrong: tuple[float, float, int]) -> None:
    with pytest.raises(ValueError, match="a charge of noise above 0"):
        charge(*wrong)
