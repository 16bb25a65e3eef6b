"""Trees of histogram gradient boosting as named arrays: how they travel, and what is refused of them.

scikit-learn predicts by compiled code that follows children and reads features without looking where they lead: a child
that is its own ancestor would keep it going for ever, one beyond the tree's end would read foreign memory. So no tree
from outside gets there unless each of its nodes has been checked here, all at once and in time that grows with nothing
but their number.

The nodes of all trees stand one after the other, tree by tree, the trees of one iteration (one a class where there are
more than two) side by side. A node's children are counted from its own tree's root and come after it; a leaf's are 0.

=====================  =======  ====================================================================================
``baseline``           float64  where boosting begins: the raw score of each class, or one number
``trees.nodes``        uint32   nodes of each tree
``trees.feature``      uint32   the column that a node asks; 0 for a leaf
``trees.threshold``    float64  at most so much goes left; the largest float: only what is missing goes right
``trees.missing_left`` bool     where a missing number goes
``trees.left``         uint32   child
``trees.right``        uint32   child
``trees.value``        float64  what a leaf adds to the raw score, learning rate included
=====================  =======  ====================================================================================

How many examples each node had, and how much a split gained, is nobody's business and stays at home.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from collective_learner.mli import WeightsRefusedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from collective_learner.mli import Array

BASELINE = "baseline"
SIZES = "trees.nodes"
FEATURE, THRESHOLD, MISSING_LEFT = "trees.feature", "trees.threshold", "trees.missing_left"
LEFT, RIGHT, VALUE = "trees.left", "trees.right", "trees.value"

_FIELDS = {
    FEATURE: ("feature_idx", np.uint32),
    THRESHOLD: ("num_threshold", np.float64),
    MISSING_LEFT: ("missing_go_to_left", np.bool_),
    LEFT: ("left", np.uint32),
    RIGHT: ("right", np.uint32),
    VALUE: ("value", np.float64),
}
"""The tensors of nodes: scikit-learn's field, and our type."""

FIELDS = frozenset(field for field, _ in _FIELDS.values()) | {
    "count",
    "gain",
    "depth",
    "is_leaf",
    "bin_threshold",
    "is_categorical",
    "bitset_idx",
}
"""All fields that a node of scikit-learn has, as far as is known here."""

_LARGEST = np.finfo(np.float64).max


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What trees must keep to.

    Parameters
    ----------
    features
        Columns of the inputs.
    per_iteration
        Trees that one iteration adds.
    iterations, leaves
        The most iterations, and the most leaves of one tree.
    """

    features: int
    per_iteration: int
    iterations: int
    leaves: int

    def growing(self) -> dict[str, int]:
        """Give the most rows of each tensor that grows."""
        trees = self.iterations * self.per_iteration
        return {SIZES: trees, **dict.fromkeys(_FIELDS, trees * (2 * self.leaves - 1))}


def to_arrays(baseline: Array, trees: Sequence[NDArray[np.void]]) -> dict[str, Array]:
    """Write trees as named arrays.

    Parameters
    ----------
    baseline
        Of the ensemble, of shape (1, trees an iteration).
    trees
        scikit-learn's nodes of each tree, in order; structured arrays.
    """
    found: dict[str, Array] = {
        BASELINE: np.array(baseline, np.float64).reshape(-1),
        SIZES: np.array([len(nodes) for nodes in trees], np.uint32),
    }
    for name, (field, dtype) in _FIELDS.items():
        found[name] = np.concatenate([nodes[field] for nodes in trees] or [np.empty(0)]).astype(dtype)
    # What only looks for missing numbers has no threshold: infinity, which weights may not hold.
    threshold = found[THRESHOLD]
    threshold[threshold == np.inf] = _LARGEST
    return found


def to_nodes(arrays: Mapping[str, Array], dtype: np.dtype[Any]) -> list[Array]:
    """Write the nodes of each tree as scikit-learn has them, in memory of their own.

    Parameters
    ----------
    arrays
        Checked by `check`.
    dtype
        Of scikit-learn's nodes.
    """
    nodes: NDArray[Any] = np.zeros(len(arrays[LEFT]), dtype)
    for name, (field, _) in _FIELDS.items():
        nodes[field] = arrays[name]
    nodes["num_threshold"][arrays[THRESHOLD] == _LARGEST] = np.inf
    nodes["is_leaf"] = arrays[LEFT] == 0
    return np.split(nodes, np.cumsum(arrays[SIZES], dtype=np.int64)[:-1]) if len(arrays[SIZES]) else []


def check(arrays: Mapping[str, Array], bounds: Bounds) -> None:
    """Refuse what is no forest of binary trees within its bounds.

    Parameters
    ----------
    arrays
        Of the names and types of `to_arrays`, one dimension each.

    Raises
    ------
    WeightsRefusedError
        Anything is wrong; the message names the tensor, and the tree or node where that helps.
    """
    sizes, left, right = (arrays[name].astype(np.int64) for name in (SIZES, LEFT, RIGHT))
    count = len(left)
    for name in (*_FIELDS,):
        if len(arrays[name]) != count:
            raise WeightsRefusedError(f"weights: {name!r} has {len(arrays[name])} nodes, {LEFT!r} has {count}")
    if len(sizes) % bounds.per_iteration:
        raise WeightsRefusedError(
            f"weights: {SIZES!r} tells of {len(sizes)} trees, each iteration has {bounds.per_iteration}"
        )
    most = 2 * bounds.leaves - 1
    _refuse(SIZES, (sizes < 1) | (sizes > most), "tree", f"a tree has 1 to {most} nodes")
    if sizes.sum() != count:
        raise WeightsRefusedError(f"weights: {SIZES!r} tells of {sizes.sum()} nodes, {LEFT!r} has {count}")
    for name in (BASELINE, THRESHOLD, VALUE):
        _refuse(name, ~np.isfinite(arrays[name]), "node", "it is not finite")
    root = np.repeat(np.cumsum(sizes) - sizes, sizes)
    at, size = np.arange(count) - root, np.repeat(sizes, sizes)
    inner = left != 0
    _refuse(LEFT, inner & ((left <= at) | (left >= size)), "node", "the child does not come after it in its tree")
    _refuse(RIGHT, inner & ((right <= at) | (right >= size)), "node", "the child does not come after it in its tree")
    _refuse(RIGHT, ~inner & (right != 0), "node", "there is one child, a node has two or none")
    parents = np.bincount(np.concatenate([(root + left)[inner], (root + right)[inner]]), minlength=count)
    _refuse(LEFT, parents != (at > 0), "node", "it is not the child of one node")
    feature = arrays[FEATURE].astype(np.int64)
    _refuse(FEATURE, inner & (feature >= bounds.features), "node", f"the inputs have {bounds.features} columns")


def _refuse(name: str, wrong: NDArray[np.bool_], what: str, why: str) -> None:
    if wrong.any():
        raise WeightsRefusedError(f"weights: {name!r}, {what} {int(wrong.argmax())}: {why}")
