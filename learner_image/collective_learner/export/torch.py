"""PyTorch's models out: ONNX by torch.export, with any number of rows; and the state_dict."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any

import torch

from collective_learner.export.errors import ExportError, needed
from collective_learner.export.exporter import Exporter
from collective_learner.export.meaning import Meaning
from collective_learner.learners.torch_state import named_tensors

if TYPE_CHECKING:
    from collective_learner.mli import Array

_LOSSES: dict[Any, Meaning] = {
    torch.nn.CrossEntropyLoss: Meaning.LOGITS,
    torch.nn.functional.cross_entropy: Meaning.LOGITS,
    torch.nn.NLLLoss: Meaning.LOG_PROBABILITIES,
    torch.nn.functional.nll_loss: Meaning.LOG_PROBABILITIES,
    torch.nn.BCEWithLogitsLoss: Meaning.LOGIT,
    torch.nn.functional.binary_cross_entropy_with_logits: Meaning.LOGIT,
    torch.nn.BCELoss: Meaning.PROBABILITY,
    torch.nn.functional.binary_cross_entropy: Meaning.PROBABILITY,
}


class TorchExporter(Exporter):
    """A PyTorch model; exported from a copy on the CPU, in evaluation mode.

    Parameters
    ----------
    model
        Left as it is.
    inputs
        A batch as the learner's loader gives it.
    criterion
        The loss that it is trained with, which tells what its outputs are.
    safetensors
        As `Exporter` has it.
    """

    framework = "PyTorch"
    own_formats = {"state_dict": "model.pt"}  # noqa: RUF012 - as declared in the base

    def __init__(self, model: torch.nn.Module, inputs: Any, criterion: Any, safetensors: Callable[[], bytes]) -> None:
        if not isinstance(inputs, torch.Tensor):
            raise ExportError(f"the model takes a {type(inputs).__name__}; only one tensor can be exported and checked")
        if inputs.dtype == torch.bfloat16:
            raise ExportError("the model takes bfloat16, which numpy, and so the check of the export, does not have")
        super().__init__(inputs.detach().cpu().numpy(), safetensors)
        self._own = model
        self._criterion = criterion
        self._copied: torch.nn.Module | None = None
        if any(each.dtype in (torch.float16, torch.bfloat16) for each in model.parameters()):
            self.tolerance = 3e-2

    @property
    def meaning(self) -> Meaning:
        """What the loss takes."""
        found = _LOSSES.get(self._criterion) if callable(self._criterion) else None
        return found or _LOSSES.get(type(self._criterion), Meaning.VALUES)

    @torch.no_grad()
    def outputs(self, x: Array) -> Array:
        """Run the copy."""
        found = self._model(torch.from_numpy(x))
        if not isinstance(found, torch.Tensor):
            raise ExportError(f"the model gives a {type(found).__name__}; only one tensor can be exported and checked")
        answer: Array = (found.float() if found.dtype == torch.bfloat16 else found).numpy()
        return answer

    def own_file(self, name: str) -> bytes:
        """Return the state_dict, as `torch.load` reads it with ``weights_only``."""
        file = io.BytesIO()
        torch.save({key: tensor.detach().cpu() for key, tensor in self._own.state_dict().items()}, file)
        return file.getvalue()

    def weights_bytes(self) -> int:
        """Return how large parameters and buffers are."""
        return sum(tensor.nbytes for tensor in named_tensors(self._own).values())

    def to_onnx(self, batch: Array) -> bytes:
        """Export by torch.export, the first dimension being free."""
        needed("onnxscript", what="PyTorch's exporter")
        self.outputs(batch)  # a model that does not run, or gives more than a tensor, says so itself
        with _quietly(), torch.random.fork_rng(devices=[]):
            program = torch.onnx.export(
                self._model,
                (torch.from_numpy(batch),),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["input"],
                output_names=["output"],
                verbose=False,
            )
        assert program is not None  # noqa: S101 - so it is with dynamo=True
        return bytes(program.model_proto.SerializeToString())

    @property
    def _model(self) -> torch.nn.Module:
        if self._copied is None:
            self._copied = copy.deepcopy(self._own).cpu().eval()
        return self._copied


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep PyTorch from warning of packages that the model does not use, and from printing the graph it refuses."""
    loggers = [logging.getLogger(f"torch.{name}") for name in ("onnx", "export", "fx", "_dynamo", "_export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
