"""A run's model again: by the task's own functions, with the weights that the run came to.

The data loader runs as it did in the learner, because only it knows the shapes that the model is built by. So data of
that form must be there: the first learner's, or what ``--location`` names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from collective_learner.export.errors import NotThereError, first_line
from collective_learner.export.source import Part, Source
from collective_learner.factory import DefaultMliFactory, SetupRefusedError
from collective_learner.imports import ImportFailedError, import_tasks
from collective_learner.mli import MachineLearningInterface, Weights
from collective_learner.seeding import seed_everything
from collective_learner.wire.codec import decode
from collective_learner.wire.parts import WireError


def rebuild(
    source: Source, *, modules: Iterable[str] = (), code: str | None = None, location: str | None = None
) -> MachineLearningInterface:
    """Set up the task's learner, and have it accept the weights.

    Parameters
    ----------
    modules
        To import beside those that the task names.
    code
        The folder of the task's ConfigMap; by default one of its name beside the task's file, or here.
    location
        Of the data; by default the first learner's.

    Raises
    ------
    NotThereError
        A module, a registered name, data, or the weights are not as the task needs them.
    """
    where = source.location if location is None else location
    try:
        import_tasks([*source.imports, *modules], code=code or _code_of(source))
        seed_everything(source.seed)
        factory = DefaultMliFactory()
        learner = factory.get_mli(
            source.model.name,
            _parameters(source.model, factory.get_models(), source.seed),
            source.data_loader.name,
            _parameters(source.data_loader, factory.get_dataloaders(), source.seed, location=where),
        )
    except (ImportFailedError, SetupRefusedError) as error:
        raise NotThereError(f"{source.task}: {error}") from error
    except Exception as error:  # a task's functions are anybody's, and raise anything
        raise NotThereError(
            f"{source.task}: the model {source.model.name} cannot be built on data at {where!r} here "
            f"({first_line(error)}); --location names other data of that form"
        ) from error
    try:
        held = decode(source.content).weights
        arrays = {name: np.array(array) for name, array in held.items()} if isinstance(held, Mapping) else None
        learner.mli_accept_weights(Weights([np.array(array) for array in held] if arrays is None else arrays))
    except WireError as error:
        raise NotThereError(f"{source.weights}: {error}") from error
    except ValueError as error:
        raise NotThereError(f"{source.weights}: does not fit the model {source.model.name}: {error}") from error
    return learner


def _parameters(part: Part, defaults: Mapping[str, Mapping[str, Any]], seed: int, **more: Any) -> str:
    """Write parameters as the coordinator sends them: with the task's seed, where one is declared and not set."""
    declared = "seed" in defaults.get(part.name, {})
    return json.dumps({**({"seed": seed} if declared else {}), **part.parameters, **more})


def _code_of(source: Source) -> str | None:
    if source.config_map is None:
        return None
    for folder in (source.folder / source.config_map, Path(source.config_map)):
        if folder.is_dir():
            return str(folder)
    raise NotThereError(
        f"{source.task}: spec.learners.codeFrom.configMapRef.name: {source.config_map}: there is no folder of that "
        "name beside it, nor here; name it with --code DIR"
    )
