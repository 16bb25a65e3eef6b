"""What is told to be spent is never less than what independent accountants find for the same sampling."""

from __future__ import annotations

import math
import random
import warnings

import pytest

pytest.importorskip("scipy", reason="needs an extra of a framework")

from collective_learner.privacy.accountant import epsilon_after, epsilon_of, merged
from collective_learner.privacy.charge import Charge


def charge(noise: float, rate: float, steps: int) -> Charge:
    return Charge(noise_multiplier=noise, sample_rate=rate, steps=steps)


def independent(charges: list[Charge], delta: float, *, about: float) -> float:
    """dp-accounting's: privacy loss distributions of Poisson-sampled Gaussians, for adding or removing an example."""
    dp_accounting = pytest.importorskip("dp_accounting", reason="needs the extra dev")
    from dp_accounting.pld import PLDAccountant

    # Its grid is to be fine beside the result: it rounds up, too.
    fine = min(1e-4, max(1e-6, 2e-4 * about))
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=fine)
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
    ([charge(0.7, 0.1, 30), charge(3.0, 1.0, 2), charge(5.0, 0.001, 3000)], 1e-6),
    ([charge(1.0, 0.01, 20000)], 1e-8),
]


def drawn(count: int) -> list[tuple[list[Charge], float]]:
    """Make settings of all kinds, the same ones every time; none of which nobody could want."""
    chance, found = random.Random(7), []
    while len(found) < count:
        parts = chance.choice([1, 1, 2])
        charges = [
            charge(
                10 ** chance.uniform(-0.3, 1),
                min(1.0, 10 ** chance.uniform(-3, 0.1)),
                round(10 ** chance.uniform(0, 3.5)),
            )
            for _ in range(parts)
        ]
        delta = 10 ** chance.uniform(-8, -3)
        if 0.02 < epsilon_of(charges, delta=delta) < 50:
            found.append((charges, delta))
    return found


@pytest.mark.parametrize(("charges", "delta"), SETTINGS + drawn(25), ids=lambda value: str(value)[:60])
def test_it_is_never_below_an_independent_accountant_and_hardly_above_it(charges: list[Charge], delta: float) -> None:
    ours = epsilon_of(charges, delta=delta)
    theirs = independent(charges, delta, about=ours)
    assert theirs <= ours <= 1.003 * theirs


@pytest.mark.parametrize(("charges", "delta"), SETTINGS[:6], ids=lambda value: str(value)[:60])
def test_it_is_within_the_bounds_of_opacus_accountant(charges: list[Charge], delta: float) -> None:
    """Another method (Gopi et al., NeurIPS 2021), which tells its error."""
    accountants = pytest.importorskip("opacus.accountants", reason="needs the extra torch-dp")
    judge = accountants.PRVAccountant()
    judge.history = [(each.noise_multiplier, each.sample_rate, each.steps) for each in charges]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        upper = judge.get_epsilon(delta, eps_error=0.02)
    ours = epsilon_of(charges, delta=delta)
    assert upper - 0.05 <= ours <= 1.002 * upper


@pytest.mark.parametrize(("noise", "steps", "delta"), [(1.0, 1, 1e-5), (2.0, 30, 1e-6), (0.5, 4, 1e-9), (9.0, 7, 1e-2)])
def test_without_chance_it_is_the_gaussian_mechanism(noise: float, steps: int, delta: float) -> None:
    """Of which delta is known in closed form (Balle and Wang, ICML 2018)."""
    from scipy.special import ndtr

    told = epsilon_of([charge(noise, 1.0, steps)], delta=delta) / 1.001
    length = math.sqrt(steps) / noise

    def exactly(epsilon: float) -> float:
        return ndtr(length / 2 - epsilon / length) - math.exp(epsilon) * ndtr(-length / 2 - epsilon / length)

    assert exactly(told) <= delta <= exactly(told * (1 - 1e-3))


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


def test_hardly_any_noise_is_huge_and_no_error() -> None:
    assert epsilon_of([charge(1e-3, 0.5, 1000)], delta=1e-5) > 1e5
    assert 1e12 < epsilon_of([charge(1e-6, 1.0, 10)], delta=1e-5) < math.inf


@pytest.mark.filterwarnings("error")
def test_no_numbers_make_it_fail() -> None:
    """A ledger may hold charges of any configuration; extreme ones make the bound loose, and nothing else."""
    chance = random.Random(1)
    for _ in range(30):
        charges = [
            charge(
                10 ** chance.uniform(-300, 300) if chance.random() < 0.3 else 10 ** chance.uniform(-3, 3),
                chance.choice([1.0, 10 ** chance.uniform(-8, 0), 10 ** chance.uniform(-300, 0)]),
                round(10 ** chance.uniform(0, 7)),
            )
            for _ in range(chance.choice([1, 2, 3]))
        ]
        assert epsilon_of(charges, delta=chance.choice([1e-300, 1e-12, 1e-5, 0.5, 1 - 1e-9])) >= 0


@pytest.mark.parametrize("wrong", [(0.0, 0.1, 1), (1.0, 0.0, 1), (1.0, 1.1, 1), (1.0, 0.1, -1), (math.inf, 0.1, 1)])
def test_a_charge_that_cannot_be_is_refused(wrong: tuple[float, float, int]) -> None:
    with pytest.raises(ValueError, match="a charge of noise above 0"):
        charge(*wrong)
