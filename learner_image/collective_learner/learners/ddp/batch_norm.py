"""BatchNorm over the whole batch, of which each rank has a piece.

On GPUs that is `torch.nn.SyncBatchNorm`. It knows no CPUs; its computation is here once more for them, plainly, so that
ranks on CPUs train what ranks on GPUs would.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch.nn.modules import batchnorm

_KNOWN = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d, torch.nn.SyncBatchNorm)


def refuse_unknown_batch_norm(model: torch.nn.Module) -> None:
    """Refuse layers that could not be exchanged without losing what somebody wrote.

    Raises
    ------
    ValueError
        One derives from BatchNorm; the message names it.
    """
    for name, module in model.named_modules():
        if isinstance(module, batchnorm._BatchNorm) and type(module) not in _KNOWN:
            raise ValueError(
                f"model: {name!r} is a {type(module).__name__}, which normalises in a way of its own; several devices "
                f"share the statistics of {', '.join(kind.__name__ for kind in _KNOWN)}"
            )


def over_all_ranks(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Have BatchNorm normalise by the whole batch; parameters, buffers and their names stay as they are."""
    if device.type == "cuda":
        on_gpus: torch.nn.Module = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return on_gpus
    for module in model.modules():
        if isinstance(module, batchnorm._BatchNorm):
            module.__class__ = _OnCpu
    return model


class _OnCpu(batchnorm._BatchNorm):
    """What SyncBatchNorm does."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training and self.running_mean is not None:
            return torch.nn.functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        axes = [0, *range(2, input.dim())]
        shape = [1, -1, *[1] * (input.dim() - 2)]
        precise = input if input.dtype == torch.float64 else input.float()
        count = _sum_of_ranks(precise.new_tensor(input.numel() // input.size(1)))
        mean = _sum_of_ranks(precise.sum(axes)) / count
        apart = precise - mean.view(shape)
        variance = _sum_of_ranks(apart.square().sum(axes)) / count
        if self.training:
            self._track(mean.detach(), (variance * count / (count - 1)).detach())
        normal = apart * (variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            normal = normal * self.weight.view(shape)
        if self.bias is not None:
            normal = normal + self.bias.view(shape)
        return normal.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)


class _SumOfRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return _SumOfRanks.forward(ctx, gradients[0])


def _sum_of_ranks(tensor: torch.Tensor) -> torch.Tensor:
    total: torch.Tensor = _SumOfRanks.apply(tensor)  # type: ignore[no-untyped-call]
    return total
