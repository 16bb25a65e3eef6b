"""`collective init`: a task file from a few answers.

Each answer is tried in the whole task at once, by the rules that the cluster has, so that what is written is valid.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click
import yaml

from collective_operator.api import API_VERSION, KIND, TaskInvalid, parse_task
from collective_operator.api.strategy import StrategyType

BUILT_IN = {
    "SKLEARN_DIGITS": "DIGITS",
    "TORCH_DIGITS": "DIGITS",
    "KERAS_DIGITS": "DIGITS",
    "SKLEARN_BREAST_CANCER": "BREAST_CANCER",
    "SKLEARN_BREAST_CANCER_BOOSTING": "BREAST_CANCER",
    "TORCH_BREAST_CANCER": "BREAST_CANCER",
    "KERAS_BREAST_CANCER": "BREAST_CANCER",
}
"""Models that need no files, and their data; others are in the learner's image, or are your own."""
_OWN_LOCATION, _SHARDS = "data/{index}", "{index}/{count}"

Answers = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question."""

    key: str
    text: str
    default: Callable[[Answers], Any]
    kind: Any = str


QUESTIONS = (
    Question(key="name", text="Name of the task", default=lambda _: "digits"),
    Question(key="model", text="Model, as registered in the learner's image", default=lambda _: "SKLEARN_DIGITS"),
    Question(key="data", text="Data loader", default=lambda found: BUILT_IN.get(found["model"], "DIGITS")),
    Question(key="learners", text="How many learners", default=lambda _: 5, kind=int),
    Question(
        key="location",
        text="Where a learner's data is: a path, a URL, or what the data loader takes",
        default=lambda found: _SHARDS if found["data"] in BUILT_IN.values() else _OWN_LOCATION,
    ),
    Question(key="rounds", text="How many rounds", default=lambda _: 20, kind=int),
    Question(
        key="strategy",
        text="How a round is decided",
        default=lambda _: "Vote",
        kind=click.Choice(get_args(StrategyType), case_sensitive=False),
    ),
    Question(key="gpus", text="GPUs for each learner", default=lambda _: 0, kind=int),
)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), default="task.yaml")
@click.option("-y", "--yes", is_flag=True, help="Ask nothing: the defaults.")
@click.option("--force", is_flag=True, help="Replace FILE when it is there.")
def init(file: Path, yes: bool, force: bool) -> None:
    """Ask a few questions, and write FILE (task.yaml): a task that is valid."""
    if file.exists() and not force:
        raise click.UsageError(f"{file} is there already; --force replaces it")
    if not file.parent.is_dir():
        raise click.UsageError(f"{file}: there is no folder {file.parent}")
    answers = ask(lambda question, default, check: default if yes else _prompt(question, default, check))
    text = written(manifest_of(answers))
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{file}: cannot be written: {error.strerror}") from error
    click.echo(f"{file} is written. Next:")
    quoted = shlex.quote(str(file))
    click.echo(f"  collective run {quoted}     on this machine")
    click.echo(f"  kubectl apply -f {quoted}   in a cluster")


def ask(prompt: Callable[[Question, Any, Callable[[Any], Any]], Any]) -> Answers:
    """Ask all questions.

    Parameters
    ----------
    prompt
        Asks one: gets the question, its default, and what checks an answer, by raising click.BadParameter.
    """
    answers: Answers = {}
    for question in QUESTIONS:
        answers[question.key] = prompt(question, question.default(answers), _checking(question, dict(answers)))
    return answers


def manifest_of(answers: Answers) -> dict[str, Any]:
    """Build the task; what is not answered yet is as by default."""
    found = dict(answers)
    for question in QUESTIONS:
        found.setdefault(question.key, question.default(found))
    learners: dict[str, Any] = {"count": found["learners"], "location": found["location"]}
    if found["gpus"]:
        learners["gpus"] = {"count": found["gpus"]}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": found["name"]},
        "spec": {
            "model": {"name": found["model"]},
            "dataLoader": {"name": found["data"]},
            "rounds": found["rounds"],
            "strategy": {"type": found["strategy"]},
            "learners": learners,
        },
    }


def written(manifest: dict[str, Any]) -> str:
    """Write the file."""
    text: str = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True)
    return f"# kubectl explain ctask.spec tells what else there is to set.\n{text}"


def _checking(question: Question, before: Answers) -> Callable[[Any], Any]:
    convert = click.types.convert_type(question.kind)

    def check(said: Any) -> Any:
        answer = convert(said.strip() if isinstance(said, str) else said, None, None)
        try:
            parse_task(manifest_of({**before, question.key: answer}))
        except TaskInvalid as invalid:
            raise click.BadParameter(str(invalid)) from invalid
        return answer

    return check


def _prompt(question: Question, default: Any, check: Callable[[Any], Any]) -> Any:
    choices = question.kind if isinstance(question.kind, click.Choice) else None
    try:
        return click.prompt(
            question.text, default=default, value_proc=check, type=choices, show_choices=choices is not None
        )
    except click.Abort:
        click.echo("\nnothing is written; --yes asks nothing", err=True)
        raise
