"""One preparation of images that colearn's tutorials use by name."""

from __future__ import annotations

import importlib
import sys
from typing import Any


def normalize_img(image: Any, label: Any) -> tuple[Any, Any]:
    """Bring pixels from 0 to 255 to floats from 0 to 1, and leave the label as it is.

    Parameters
    ----------
    image
        Whole numbers of any shape: a numpy array, a torch tensor, or a TensorFlow tensor, so that it can be given to
        ``tf.data.Dataset.map``.
    label
        Anything.

    Returns
    -------
    tuple
        The image as float32 of the same kind and shape, and the label.
    """
    kind = type(image).__module__.partition(".")[0]
    if kind == "tensorflow":
        return sys.modules["tensorflow"].cast(
            image, "float32"
        ) / 255.0, label  # an import cannot be traced into a graph
    if kind == "torch":
        return image.float() / 255.0, label
    numpy = importlib.import_module("numpy")
    return numpy.asarray(image).astype(numpy.float32) / numpy.float32(255), label
