"""FedProx for scikit-learn's stochastic gradient descent, which takes no term beside its loss and its penalty.

What partial_fit leaves out is done after each of its calls: the proximal operator of ``mu / 2 * |w - w0|^2`` with the
rates that the call's steps had, w0 being the weights that the training started from. One step of rate ``eta`` gives
``w0 + (w - w0) / (1 + eta * mu)``: to first order the gradient step ``w -= eta * mu * (w - w0)``, and unlike it stable
for any mu. Splitting a step so is exact as rates go to 0; within a batch the pull comes last instead of in between.
Source: Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from collective_learner.mli import Array

_KNOWN_RATES = ("constant", "adaptive", "optimal", "invscaling")


def has_known_rates(model: Any) -> bool:
    """Whether the rates of a model's steps can be told: passive-aggressive ones depend on each example."""
    return hasattr(model, "t_") and getattr(model, "learning_rate", None) in _KNOWN_RATES


def rates(model: Any, *, first: float, steps: int) -> NDArray[np.float64]:
    """Return the rates of steps of scikit-learn's SGD, each on one example.

    Parameters
    ----------
    first
        The model's t_ before them.
    """
    t = first + np.arange(steps)
    if model.learning_rate == "optimal":
        # The slope of every loss of scikit-learn at this point is at most 1, so its first rate is this one.
        first_rate = np.sqrt(1.0 / np.sqrt(model.alpha))
        return np.asarray(1.0 / (model.alpha * (1.0 / (first_rate * model.alpha) + t - 1)))
    if model.learning_rate == "invscaling":
        return np.asarray(model.eta0 / t**model.power_t)
    return np.full(steps, float(model.eta0))  # an adaptive one starts anew with every call


def pull_back(model: Any, towards: Mapping[str, Array], *, mu: float, first: float, steps: int) -> None:
    """Move a model's weights towards those that it started from.

    Parameters
    ----------
    towards
        coef_ and intercept_ of the start.
    mu
        Strength of the pull.
    first, steps
        Of the call of partial_fit before, see `rates`.
    """
    share = float(np.exp(-np.log1p(mu * rates(model, first=first, steps=steps)).sum()))
    if share == 1.0:
        return
    for name, start in towards.items():
        # What an averaging model trains is kept apart from what it shows.
        array = getattr(model, f"_standard_{name.rstrip('_')}" if model.average else name)
        anchor = start.reshape(array.shape)
        array -= anchor
        array *= share
        array += anchor
