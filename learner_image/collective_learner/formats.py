"""What weights travel in: safetensors, or what orchestrators of the original colearn send and read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from collective_learner.mli import Weights
from collective_learner.template import Template
from collective_learner.wire import methods
from collective_learner.wire.codec import EncodedWeights, decode, encode
from collective_learner.wire.pickled import decode_pickled, encode_pickled

_PICKLE_SLACK_BYTES = 64 << 10
_PICKLE_ARRAY_BYTES = 4 << 10
"""Around each array, generously."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFormat:
    """How weights become bytes and bytes weights.

    Parameters
    ----------
    name
        As ``--weights-format`` has it.
    encode
        Lays out weights.
    decode
        Reads what arrived for a model of this form.
    limit
        Tells the most bytes that weights of this form can have.
    """

    name: str
    encode: Callable[[Weights], EncodedWeights]
    decode: Callable[[memoryview, Template], Weights]
    limit: Callable[[Template], int]


SAFETENSORS = WeightsFormat(
    name=methods.SAFETENSORS,
    encode=encode,
    decode=lambda data, template: decode(data),
    limit=lambda template: template.limit,
)

NUMPY_PICKLE = WeightsFormat(
    name=methods.NUMPY_PICKLE,
    encode=encode_pickled,
    decode=lambda data, template: decode_pickled(data, names=template.names, count=len(template)),
    # Twice, because protocol 2 writes half of all bytes as two.
    limit=lambda template: 2 * template.most_bytes + _PICKLE_ARRAY_BYTES * len(template) + _PICKLE_SLACK_BYTES,
)

FORMATS = {each.name: each for each in (SAFETENSORS, NUMPY_PICKLE)}
