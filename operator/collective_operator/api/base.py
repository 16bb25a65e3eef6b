"""How every part of a spec is read: strictly, frozen, and under camelCase names as Kubernetes writes them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Part(BaseModel):
    """A part of the spec. Values are taken as the API server takes them: a quoted number is no number."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
    )
