"""`collective export` and `collective predict`: a run's model as a file, and its answers."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np

from collective_learner.command_line import SETTINGS
from collective_learner.export.errors import ExportError, NotThereError, first_line
from collective_learner.export.exporter import BATCHES, ONNX, ONNX_FILE, WEIGHTS, Exporter, exporter_of
from collective_learner.export.inputs import Inputs, pixels_of, read_inputs
from collective_learner.export.meaning import tell
from collective_learner.export.rebuild import rebuild
from collective_learner.export.runtime import Predictor, metadata_of, predictor_of
from collective_learner.export.source import Source, source_of

_F = TypeVar("_F", bound=Callable[..., Any])

FORMATS = ("onnx", "safetensors", "keras", "state_dict")


class _Refused(click.ClickException):
    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class _Model:
    """Where a model comes from, as the options that both commands share tell it."""

    run: Path
    best: bool
    weights: Path | None
    location: str | None
    modules: tuple[str, ...]
    code: str | None

    def source(self) -> Source:
        return source_of(self.run, best=self.best, weights=self.weights)

    def exporter(self, source: Source) -> Exporter:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow tells of itself otherwise
        return exporter_of(rebuild(source, modules=self.modules, code=self.code, location=self.location))


def _from_run(command: _F) -> _F:
    for option in reversed(
        (
            click.option("--best", is_flag=True, help="The best model of the run, not the last."),
            click.option(
                "--weights",
                type=click.Path(path_type=Path, dir_okay=False),
                help="A file with the weights; by default model.safetensors beside the task.",
            ),
            click.option("--location", help="Data to build the model by; the first learner's by default."),
            click.option(
                "--import",
                "modules",
                multiple=True,
                metavar="MODULE",
                help="Import this module too, beside those that the task names; repeatable.",
            ),
            click.option(
                "--code",
                metavar="DIR",
                type=click.Path(exists=True, file_okay=False),
                help="The folder of the task's learners.codeFrom.",
            ),
        )
    ):
        command = option(command)
    return command


@click.command(context_settings=SETTINGS)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--format", "name", default=ONNX, show_default=True, type=click.Choice(FORMATS), help="What to write.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file; by default model.onnx, model.keras or model.pt beside the run's model.",
)
@_from_run
def export(run: Path, name: str, output: Path | None, **options: Any) -> None:
    """Write the model of RUN for programs that know nothing of learners.

    RUN is the folder of a `collective run`, or a task's file with its model.safetensors beside it. The task's own
    functions build the model again. ONNX is written when onnxruntime answers random batches of several sizes as the
    framework does. Exit status: 0 written, 1 the model cannot be exported, 2 refused input.
    """
    _warn_only()
    model = _Model(run=run, **options)
    try:
        source = model.source()
        exporter = model.exporter(source)
        if name not in exporter.formats:
            raise NotThereError(
                f"--format {name}: does not fit a model of {exporter.framework}; "
                f"there are {', '.join(exporter.formats)}"
            )
        path = output or source.folder / exporter.formats[name]
        if path.exists() and path.samefile(source.weights):
            raise NotThereError(f"{path}: is the run's own model; name another file with --output")
        content = exporter.file(name, about={WEIGHTS: source.digest()})
        _write(path, content)
    except NotThereError as error:
        raise _Refused(str(error)) from error
    except ExportError as error:
        raise click.ClickException(f"{run}: {error}") from error
    checked = f", checked against {exporter.framework} on batches of {', '.join(map(str, BATCHES))}"
    click.echo(f"{path}: {len(content)} bytes of {name}{checked if name == ONNX else ''}")


@click.command(context_settings=SETTINGS)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a row.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="A file to write to, not standard output."
)
@click.option("--resize", is_flag=True, help="Bring a picture to the size that the model takes.")
@_from_run
def predict(run: Path, data: Path, as_json: bool, output: Path | None, resize: bool, **options: Any) -> None:
    """Ask the model of RUN about DATA: a line a row, with its class and probability, or its value.

    DATA is a .csv file (a column a number that the model takes, with or without names), an .npz or .npy file (the
    array x, or a single one), or a picture. RUN is as for `collective export`, or an .onnx file. An export that is of
    the run's model answers in onnxruntime; else the framework does.

    Exit status: 0 answered, 1 the model cannot be asked, 2 refused input.
    """
    _warn_only()
    try:
        predictor = _predictor(_Model(run=run, **options))
        inputs = read_inputs(data, predictor.inputs, resize=resize)
        rows = tell(_asked(predictor, inputs, data), predictor.meaning, predictor.classes)
        lines = [_line(number, row, as_json=as_json) for number, row in enumerate(rows)]
        if output is not None:
            _write(output, "".join(f"{line}\n" for line in lines).encode())
    except NotThereError as error:
        raise _Refused(str(error)) from error
    except ExportError as error:
        raise click.ClickException(f"{run}: {error}") from error
    if output is None:
        click.echo("\n".join(lines))


def _predictor(model: _Model) -> Predictor:
    if model.run.suffix.lower() == ".onnx":
        return predictor_of(model.run)
    source = model.source()
    exported = source.folder / ONNX_FILE
    if exported.is_file():
        try:
            if metadata_of(exported).get(WEIGHTS) == source.digest():
                return predictor_of(exported)
            click.echo(f"{exported} is of other weights: the framework is asked", err=True)
        except (ExportError, NotThereError) as error:
            click.echo(f"{error}: the framework is asked", err=True)
    exporter = model.exporter(source)
    example = exporter.example
    return Predictor(
        inputs=Inputs(shape=example.shape[1:], dtype=example.dtype.name, pixels=pixels_of(example)),
        meaning=exporter.meaning,
        classes=None if exporter.classes is None else list(exporter.classes),
        run=exporter.outputs,
    )


def _asked(predictor: Predictor, inputs: Any, data: Path) -> Any:
    try:
        return predictor.run(inputs)
    except Exception as error:  # frameworks' errors have no common class
        shape = "x".join(map(str, np.shape(inputs)))
        raise ExportError(f"the model does not answer {data}, {shape}: {first_line(error)}") from error


def _line(number: int, row: Mapping[str, Any], *, as_json: bool) -> str:
    if as_json:
        try:
            return json.dumps({"row": number, **row}, allow_nan=False)
        except ValueError as error:
            raise ExportError(f"the model's answer to row {number} is not finite, which JSON cannot tell") from error
    told = (f"{name} {value:.6g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items())
    return f"{number}: {', '.join(told)}"


def _write(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{path.name}.tmp")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    except OSError as error:
        raise NotThereError(f"{path}: cannot be written: {error.strerror}") from error


def _warn_only() -> None:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
