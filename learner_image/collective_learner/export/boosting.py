"""Histogram gradient boosting as ONNX, written from its trees: skl2onnx 1.20 does not get them past protobuf 7.

One TreeEnsembleRegressor adds up the trees, and what turns raw scores into answers comes after it. A threshold of a
file for float32 is rounded down, so that every float32 goes the same way as in scikit-learn, whose thresholds are
float64. Source: the operators' page at onnx.ai/onnx/operators (ai.onnx.ml, TreeEnsembleRegressor 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from collective_learner.export.errors import ExportError, needed
from collective_learner.learners.sklearn_boosting import arrays_of_trees, link_of
from collective_learner.learners.sklearn_trees import (
    BASELINE,
    FEATURE,
    LEFT,
    MISSING_LEFT,
    RIGHT,
    SIZES,
    THRESHOLD,
    VALUE,
)

if TYPE_CHECKING:
    from collective_learner.mli import Array

_INPUT, _RAW = "input", "raw"
_OPSETS = {"": 18, "ai.onnx.ml": 3}


def boosting_to_onnx(model: Any, batch: Array) -> bytes:
    """Write a fitted model.

    Parameters
    ----------
    batch
        Inputs, of float32 or float64, of shape (rows, features).

    Returns
    -------
    bytes
        A file whose last output is probabilities of shape (rows, classes), the class itself before it; or predictions
        of shape (rows, 1).

    Raises
    ------
    ExportError
        onnx is not installed, or the model's loss has a link that is not known here.
    """
    onnx = needed("onnx", what="ONNX")
    helper, kind = onnx.helper, onnx.TensorProto.DOUBLE if batch.dtype == np.float64 else onnx.TensorProto.FLOAT
    classes = getattr(model, "classes_", None)
    arrays = arrays_of_trees(model)
    nodes = [
        helper.make_node(
            "TreeEnsembleRegressor", [_INPUT], [_RAW], domain="ai.onnx.ml", **_ensemble(onnx, arrays, batch.dtype)
        )
    ]
    if classes is None:
        nodes.append(helper.make_node(_link(model), [_RAW], ["variable"]))
        outputs = [helper.make_tensor_value_info("variable", onnx.TensorProto.FLOAT, [None, 1])]
    else:
        steps, outputs = _classifier(onnx, np.asarray(classes))
        nodes += steps
    graph = helper.make_graph(
        nodes, "boosting", [helper.make_tensor_value_info(_INPUT, kind, [None, batch.shape[1]])], outputs
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS.items()]
    written = helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))
    onnx.checker.check_model(written)
    return bytes(written.SerializeToString())


def _ensemble(onnx: Any, arrays: Mapping[str, Array], dtype: np.dtype[Any]) -> dict[str, Any]:
    """Give the operator's attributes; it wants one tree at least for each target, or leaves out its baseline."""
    if not len(arrays[SIZES]):
        each = len(arrays[BASELINE])
        leaves = {name: np.zeros(each, arrays[name].dtype) for name in arrays}
        arrays = {**leaves, SIZES: np.ones(each, np.uint32), BASELINE: arrays[BASELINE]}
    sizes = arrays[SIZES].astype(np.int64)
    trees = np.repeat(np.arange(len(sizes)), sizes)
    numbers = np.arange(len(trees)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    leaf = arrays[LEFT] == 0
    targets = len(arrays[BASELINE])
    threshold = arrays[THRESHOLD] if dtype == np.float64 else _rounded_down(np.asarray(arrays[THRESHOLD], np.float64))
    attributes: dict[str, Any] = {
        "n_targets": targets,
        "nodes_treeids": trees.tolist(),
        "nodes_nodeids": numbers.tolist(),
        "nodes_featureids": arrays[FEATURE].tolist(),
        "nodes_modes": ["LEAF" if each else "BRANCH_LEQ" for each in leaf],
        "nodes_truenodeids": arrays[LEFT].tolist(),
        "nodes_falsenodeids": arrays[RIGHT].tolist(),
        "nodes_missing_value_tracks_true": arrays[MISSING_LEFT].astype(int).tolist(),
        "target_treeids": trees[leaf].tolist(),
        "target_nodeids": numbers[leaf].tolist(),
        "target_ids": (trees[leaf] % targets).tolist(),
    }
    for name, found in (
        ("nodes_values", threshold),
        ("target_weights", arrays[VALUE][leaf]),
        ("base_values", arrays[BASELINE]),
    ):
        if dtype == np.float64:
            attributes[f"{name}_as_tensor"] = onnx.numpy_helper.from_array(np.asarray(found, np.float64), name)
        else:
            attributes[name] = np.asarray(found, np.float32).tolist()
    return attributes


def _rounded_down(numbers: np.ndarray[Any, np.dtype[np.float64]]) -> Array:
    with np.errstate(over="ignore"):
        near = numbers.astype(np.float32)
    return np.where(near > numbers, np.nextafter(near, np.float32(-np.inf)), near)


def _link(model: Any) -> str:
    """Name the operator that makes a prediction of a raw score."""
    known = {"IdentityLink": "Identity", "LogLink": "Exp"}
    link = link_of(model)
    if link not in known:
        raise ExportError(f"the loss of {model!r} has the link {link}; known are {', '.join(known)}")
    return known[link]


def _classifier(onnx: Any, classes: Array) -> tuple[list[Any], list[Any]]:
    """Give the steps from raw scores to the class and to the probabilities of all."""
    helper, types = onnx.helper, onnx.TensorProto
    if classes.dtype.kind in "biu":
        values, kind = classes.astype(np.int64), types.INT64
    elif classes.dtype.kind == "f":
        values, kind = classes.astype(np.float32), types.FLOAT
    else:
        values, kind = np.array([str(each) for each in classes], dtype=object), types.STRING
    if len(classes) == 2:
        steps = [
            helper.make_node("Sigmoid", [_RAW], ["second"]),
            helper.make_node("Constant", [], ["one"], value=onnx.numpy_helper.from_array(np.ones(1, np.float32))),
            helper.make_node("Sub", ["one", "second"], ["first"]),
            helper.make_node("Concat", ["first", "second"], ["probabilities"], axis=1),
        ]
    else:
        steps = [helper.make_node("Softmax", [_RAW], ["probabilities"], axis=1)]
    steps += [
        helper.make_node("ArgMax", ["probabilities"], ["best"], axis=1, keepdims=0),
        helper.make_node("Constant", [], ["classes"], value=onnx.numpy_helper.from_array(values)),
        helper.make_node("Gather", ["classes", "best"], ["label"], axis=0),
    ]
    outputs = [
        helper.make_tensor_value_info("label", kind, [None]),
        helper.make_tensor_value_info("probabilities", types.FLOAT, [None, len(classes)]),
    ]
    return steps, outputs
