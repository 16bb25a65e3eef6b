"""The kinds of values that fields of a task take: names, quantities, URLs, each with the words it is refused with."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

QUANTITY = "must be a Kubernetes quantity such as 500m, 2 or 1Gi"
EACH_ONCE = "must hold nothing twice"
RESULT_URL = "must be the URL of a folder such as s3://bucket/folder, without a password, ? or #"
TRACKING_URL = "must be an http:// or https:// URL, without a password, ? or #"
RESULT_FOLDER = "must be a folder, or the URL of one such as s3://bucket/folder, without a password, blanks, ? or #"
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"


def _quantity(value: str | int) -> str | int:
    if isinstance(value, bool) or not re.fullmatch(QUANTITY_PATTERN, str(value)):
        raise PydanticCustomError("quantity", QUANTITY)
    return value


Quantity = Annotated[int | str, AfterValidator(_quantity)]
Parameters = Annotated[dict[str, Any], Field(max_length=100)]
RegisteredName = Annotated[str, StringConstraints(min_length=1, max_length=128)]
ModuleName = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=256,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$",
    ),
]
ResourceName = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
    ),
]
ObjectName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"),
]
SiteName = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
QueueName = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
Amounts = Annotated[dict[str, Quantity], Field(max_length=16)]


def _each_once(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) < len(value):
        raise PydanticCustomError("each_once", EACH_ONCE)
    return value


Formats = Annotated[
    tuple[Literal["safetensors", "onnx"], ...], Field(min_length=1, max_length=2), AfterValidator(_each_once)
]


def _pattern(pattern: str) -> Any:
    return Field(min_length=1, max_length=512, json_schema_extra={"pattern": f"^{pattern}$"})


def _matches(pattern: str, message: str) -> AfterValidator:
    """Refuse another form in words: such a pattern tells nobody what is wrong."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise PydanticCustomError("pattern", message)
        return value

    return AfterValidator(check)


# With no password in it: what a store or a server asks for comes from a Secret.
_URL = r"[a-z][a-z0-9+.-]*://([^\s/:@?#]*@)?[^\s/@?#]*(/[^\s?#]*)?"
_HTTP = r"https?://[^\s/@?#]+(/[^\s?#]*)?"
_FOLDER = rf"({_URL}|[^\s:?#]+)"
Url = Annotated[str, _pattern(_URL), _matches(_URL, RESULT_URL)]
TrackingUrl = Annotated[str, _pattern(_HTTP), _matches(_HTTP, TRACKING_URL)]
Folder = Annotated[str, _pattern(_FOLDER), _matches(_FOLDER, RESULT_FOLDER)]
