"""An ONNX file in onnxruntime: what it takes, what it answers, and what was written into it about itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from collective_learner.export.errors import NotThereError, first_line, needed
from collective_learner.export.inputs import Inputs, Pixels
from collective_learner.export.meaning import Meaning

if TYPE_CHECKING:
    from pathlib import Path

    from collective_learner.mli import Array

_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


def session_of(runtime: Any, model: bytes) -> Any:
    """Load a model, on the CPU and with no more threads than it takes for a few rows."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def answer_of(session: Any, batch: Array) -> Array:
    """Ask a model, by its last output; numbers are given to it in the type that it takes, as frameworks do."""
    taken = session.get_inputs()[0]
    given = np.asarray(batch, dtype=_TYPES.get(taken.type, batch.dtype))
    return np.asarray(session.run(None, {taken.name: given})[-1])


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Something that answers rows of inputs: a file, or a framework's model.

    Parameters
    ----------
    inputs
        What it takes.
    meaning, classes
        What its answers are.
    run
        From inputs of shape (rows, ...) to outputs.
    """

    inputs: Inputs
    meaning: Meaning
    classes: list[Any] | None
    run: Any


def metadata_of(path: Path) -> dict[str, str]:
    """Read what was written into a file beside the model."""
    session = _load(path)
    return dict(session.get_modelmeta().custom_metadata_map)


def predictor_of(path: Path) -> Predictor:
    """Load an ONNX file with one input.

    Raises
    ------
    NotThereError
        It is none, or takes something else than one array of numbers.
    """
    session = _load(path)
    taken = session.get_inputs()
    if len(taken) != 1 or taken[0].type not in _TYPES:
        found = ", ".join(f"{each.name}: {each.type}" for each in taken)
        raise NotThereError(f"{path}: takes {found}; a model of one array of numbers is needed")
    about = session.get_modelmeta().custom_metadata_map
    pixels, classes = about.get("collective.pixels"), about.get("collective.classes")
    return Predictor(
        inputs=Inputs(
            shape=tuple(size if isinstance(size, int) else None for size in taken[0].shape[1:]),
            dtype=_TYPES[taken[0].type],
            pixels=Pixels(pixels) if pixels else None,
        ),
        meaning=next((each for each in Meaning if each == about.get("collective.outputs")), Meaning.VALUES),
        classes=json.loads(classes) if classes else None,
        run=lambda x: answer_of(session, x),
    )


def _load(path: Path) -> Any:
    runtime = needed("onnxruntime", what="an ONNX file")
    try:
        return session_of(runtime, path.read_bytes())
    except OSError as error:
        raise NotThereError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # onnxruntime's errors have no common class
        raise NotThereError(f"{path}: is no ONNX file that onnxruntime loads: {first_line(error)}") from error
