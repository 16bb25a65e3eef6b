"""What a coordinator says of itself: on /status while it runs, in its termination message when it has ended.

It comes over a network from a pod, so nothing in it is trusted: unknown things are ignored, texts and lists are cut to
what a status may hold, and what cannot be understood is no progress at all.  The uid tells whose word it is: addresses
are handed to other tasks' pods again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from collective_operator.pods import LastWords, Pod
from collective_operator.wording import shortened

LEARNERS_LIMIT = 256
FORMATS_LIMIT = 8
TEXT_LIMIT = 512


def _cut(value: Any) -> Any:
    return shortened(value, TEXT_LIMIT) if isinstance(value, str) else value


def _cut_list(value: Any) -> Any:
    return value[:LEARNERS_LIMIT] if isinstance(value, list) else value


def _cut_formats(value: Any) -> Any:
    return value[:FORMATS_LIMIT] if isinstance(value, list) else value


def _rounded(value: Any) -> Any:
    """Keep four decimals: more are noise, and each change of a status is a write."""
    return round(value, 4) if isinstance(value, float) else value


Text = Annotated[str, BeforeValidator(_cut)]
Score = Annotated[float, BeforeValidator(_rounded)] | None
Count = Annotated[int, Field(ge=0, le=2**31)]


class _Said(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True, allow_inf_nan=False)


class Round(_Said):
    """How many rounds are decided."""

    current: Count = 0
    total: Count = 0
    accepted: Count = 0


class Latest(_Said):
    """The proposal of the last decided round."""

    round: Count
    test_score: Score = None
    vote_score: Score = None
    proposer: Text | None = None
    """None where several learners trained."""
    accepted: bool = False


class Privacy(_Said):
    """What a learner's data may spend of its privacy, and what is spent."""

    target_epsilon: Score = None
    consumed_epsilon: Score = None


class LearnerSaid(_Said):
    """One learner, as the coordinator sees it."""

    name: Text
    state: Text = ""
    last_score: Score = None
    message: Text = ""
    privacy: Privacy | None = None


class Export(_Said):
    """The model in one format: its file, or why there is none."""

    name: Text
    file: Text | None = None
    message: Text | None = None


class Result(_Said):
    """The model that the task ended with."""

    model: Text
    formats: Annotated[tuple[Export, ...], BeforeValidator(_cut_formats)] = ()
    test_score: Score = None
    vote_score: Score = None
    proposer: Text | None = None
    rounds: Count = 0
    accepted: Count = 0
    digest: Text | None = None
    location: Text | None = None
    """Where it was brought to, when it was to be brought anywhere."""


class Progress(_Said):
    """All of it."""

    uid: Text = ""
    phase: Literal["Waiting", "Running", "Complete", "Failed"]
    reason: Text = ""
    message: Text = ""
    round: Round = Round()
    latest: Latest | None = None
    score: Score = None
    """Of the model that is held; None where a coordinator is too old to tell."""
    learners: Annotated[tuple[LearnerSaid, ...], BeforeValidator(_cut_list)] = ()
    result: Result | None = None

    @property
    def is_verdict(self) -> bool:
        """Whether this is the last word."""
        return self.phase in ("Complete", "Failed")


def read_progress(said: Mapping[str, Any] | None, *, uid: str) -> Progress | None:
    """Read what a coordinator answered; None when that was not this task's, or makes no sense."""
    if said is None:
        return None
    try:
        progress = Progress.model_validate(said)
    except ValidationError:
        return None
    return progress if progress.uid == uid else None


def verdict_of(pod: Pod | None) -> Progress | None:
    """Find the verdict that a coordinator left in its termination message.

    The pod is the task's own, so its words are: a coordinator that cannot read its configuration knows no uid.
    """
    for words in pod.last_words if pod else ():
        try:
            progress = Progress.model_validate(_read(words))
        except (ValueError, RecursionError):
            continue
        if progress.is_verdict:
            return progress
    return None


def _read(words: LastWords) -> Any:
    try:
        return json.loads(words.text)
    except ValueError:
        # How far it was comes before all that may be long: without it, too much is missing.
        members = _uncut(words.text) if words.ended_well else {}
        if "round" not in members:
            raise
        return members


def _uncut(text: str) -> dict[str, Any]:
    """Read of a JSON object whose end is missing the members that are whole.

    A kubelet lets all containers of a pod leave 12 KiB together: where others were laid beside the coordinator, by a
    mesh for one, it cuts what would fit for one alone.
    """
    decoder, members, at = json.JSONDecoder(), dict[str, Any](), 0
    while text[at : at + 1] in ("{", ","):
        try:
            name, colon = decoder.raw_decode(text, at + 1)
            value, at = decoder.raw_decode(text, colon + 1)
        except (ValueError, IndexError):
            break
        if text[at : at + 1]:  # else it may have gone on, as a number does
            members[str(name)] = value
    return members
