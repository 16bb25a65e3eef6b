"""What breaks privacy by example in a PyTorch model, found before anything is trained, and named.

Nothing is replaced in silence: a model whose BatchNorm became something else is another model, and the learners of a
task would no longer hold the same one. Layers are looked at whether they are trained or not, since one without a
parameter mixes examples just as well. And because a list of layers is never complete, the model is asked itself:
whether what it makes of one example changes with another one in its batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from opacus.validators import ModuleValidator
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

_NEEDED = 3


def refuse_unsuitable(model: torch.nn.Module, optimizer: torch.optim.Optimizer, criterion: Callable[..., Any]) -> None:
    """Refuse what cannot be trained by DP-SGD.

    Raises
    ------
    ValueError
        A layer, a parameter or the criterion; the message names it.
    """
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    for name, module in model.named_modules():
        what = f"model: {name or 'the model itself'!r} is {type(module).__name__}"
        if isinstance(module, _BatchNorm):
            raise ValueError(f"{what}, whose statistics mix examples; with diff_priv_config use GroupNorm")
        problems = ModuleValidator.VALIDATORS.get(type(module), lambda _: [])(module)
        if problems:
            raise ValueError(f"{what}, which cannot be trained with diff_priv_config: {problems[0]}")
        if any(each.requires_grad for each in module.parameters(recurse=False)) and any(
            True for _ in module.buffers(recurse=False)
        ):
            raise ValueError(f"{what}, which keeps buffers beside trained parameters; with diff_priv_config none may")
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"model: {named[id(parameter)]!r} has type {parameter.dtype}; with diff_priv_config torch.float32 or "
                "torch.float64 is needed, since shorter numbers round clipped gradients up"
            )
    optimized = {id(each): each for group in optimizer.param_groups for each in group["params"]}
    if not any(each.requires_grad for each in optimized.values()):
        raise ValueError("optimizer: it has no parameter that is trained")
    if any(key not in named for key, each in optimized.items() if each.requires_grad):
        raise ValueError("optimizer: with diff_priv_config all that it trains must be parameters of the model")
    if getattr(criterion, "weight", None) is not None and getattr(criterion, "reduction", "mean") == "mean":
        raise ValueError(
            f"criterion: {type(criterion).__name__} with weights divides by those of the whole batch, which mixes its "
            "examples; with diff_priv_config use reduction='sum', or no weights"
        )


def refuse_mixing(model: torch.nn.Module, loader: DataLoader[Any]) -> None:
    """Refuse a model that makes something else of an example when another one in its batch changes.

    The caller puts back what a forward pass changes.

    Raises
    ------
    ValueError
        It does; the message names the first layer of which this is true.
    """
    if len(loader.dataset) < _NEEDED:  # type: ignore[arg-type]
        return
    collate = loader.collate_fn
    examples = [loader.dataset[at] for at in range(_NEEDED)]
    device = next(model.parameters()).device
    model.train()
    with torch.no_grad():
        first = _firsts(model, collate([examples[0], examples[1]])[0], device)
        other = _firsts(model, collate([examples[0], examples[2]])[0], device)
    for (name, one), (_, two) in zip(first, other, strict=False):
        if one.shape != two.shape or not torch.allclose(one, two, rtol=1e-3, atol=1e-5, equal_nan=True):
            raise ValueError(
                f"model: {name or 'the model itself'!r} mixes the examples of a batch: what it makes of one changes "
                "with another, so no gradient belongs to one example; diff_priv_config cannot hold"
            )


def _firsts(model: torch.nn.Module, inputs: Any, device: torch.device) -> list[tuple[str, torch.Tensor]]:
    """Run a batch, and give what each layer made of its first example, in the order in which they were done."""
    made: list[tuple[str, torch.Tensor]] = []

    def note(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, given: Any, output: Any) -> None:
            del module, given
            if isinstance(output, torch.Tensor) and output.dim() and len(output):
                made.append((name, output[0].detach().float().clone()))

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in model.named_modules()]
    torch.manual_seed(0)  # the same dropout in both batches
    try:
        model(_on(inputs, device))
    finally:
        for each in hooks:
            each.remove()
    return made


def _on(inputs: Any, device: torch.device) -> Any:
    if isinstance(inputs, torch.Tensor):
        return inputs.to(device)
    if isinstance(inputs, dict):
        return {name: _on(value, device) for name, value in inputs.items()}
    return [_on(value, device) for value in inputs]
