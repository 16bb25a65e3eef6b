"""DP-SGD for PyTorch: a training of which the accountant's assumptions are true.

Opacus computes the gradient of each example, clips and adds noise; the rest of a private training is here, because each
piece that is only nearly right breaks the promise in silence:

- Batches are drawn by Poisson sampling from the data set, at a rate that the random numbers can express exactly. A
  batch may be empty; it is a step like any other, and its noise is what it adds.
- The loss is taken for each example by itself. A loss over a batch may weigh examples by one another.
- Noise and batches come from the operating system's randomness, never from the task's seed, which everybody knows: who
  can draw the noise again can take it off. So a private training does not repeat, unlike any other.
- What leaves is the parameters that got noise. The mean loss is not told, and whatever else a training changes in the
  model (running statistics) is an error.
- The model's wrapper is made once and kept; weights are read from the model inside, under their own names.

Source: Abadi et al., Deep Learning with Differential Privacy, CCS 2016.
"""

from __future__ import annotations

import copy
import os
import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from opacus import GradSampleModule
from opacus.data_loader import DPDataLoader
from opacus.optimizers import DPOptimizer
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler

from collective_learner.learners.torch_state import to_device
from collective_learner.privacy.spending import Spending, checked, identity_of, rate_of
from collective_learner.privacy.torch_checks import refuse_mixing, refuse_unsuitable

if TYPE_CHECKING:
    from collective_learner.learners.torch_keep import Kept
    from collective_learner.mli import DiffPrivConfig, TrainingSummary

_RATES = 1 << 24
"""`torch.rand` gives multiples of one in so many: a rate that is one of them is exactly the probability to be drawn."""

_WORDS = 624
"""The state of a Mersenne twister, 32 bits each."""


class PrivateTraining:
    """Trains a model by DP-SGD while its budget lasts.

    Parameters
    ----------
    model, optimizer
        As the learner has them, the model on its device.
    loader
        A DataLoader that shuffles, or goes through, a data set of known length in batches; its sampling is replaced.
    criterion
        From outputs and labels to a loss, called with one example at a time.
    config
        What may be spent, and how.
    steps
        Batches in a training; None: as many as the loader has.
    folder
        Of the ledger, see `open_ledger`.

    Raises
    ------
    ValueError
        Something here would break the promise; the message names it. A `LedgerError` when there is no ledger to use.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        loader: object,
        criterion: Callable[[Any, Any], Any],
        config: DiffPrivConfig,
        *,
        steps: int | None,
        folder: str | os.PathLike[str] | None,
    ) -> None:
        loader = _batched(loader)
        refuse_unsuitable(model, optimizer, criterion)
        self._model, self._optimizer, self._config = model, optimizer, checked(config)
        examples = len(loader.dataset)  # type: ignore[arg-type]
        assert loader.batch_size is not None  # noqa: S101 - `_batched` has looked
        self.batch_size = min(loader.batch_size, examples)
        """Examples in a batch, in the mean: which, is drawn by chance."""
        rate = rate_of(self.batch_size, examples, resolution=_RATES)
        steps = len(loader) if steps is None else steps
        self._chance = torch.Generator()
        self._loader = _poisson(loader, rate, steps, self._chance)
        self._losses = _losses_of(criterion)
        refuse_mixing(model, loader)
        if hasattr(model, "autograd_grad_sample_hooks"):
            raise ValueError("model: it is in another private learner already; each needs a model of its own")
        self._wrapper = GradSampleModule(model, batch_first=True, loss_reduction="sum", strict=True)
        self._wrapper.disable_hooks()
        self.spending = Spending(
            config, rate=rate, steps=steps, examples=examples, data=_identity(loader), folder=folder
        )

    def train(
        self,
        kept: Kept,
        *,
        device: torch.device,
        go_on: Callable[[], None],
        pull_back: Callable[[], None] | None,
    ) -> TrainingSummary:
        """Train, and charge for it.

        Parameters
        ----------
        kept
            What the model held before.
        go_on
            Raises between two batches when the training is to end.
        pull_back
            Adds to the gradient what does not come from the data: FedProx's term.
        """
        noise = torch.Generator(device=device)
        for generator in (self._chance, noise):
            from_the_system(generator)
        private = DPOptimizer(
            self._optimizer,
            noise_multiplier=self._config.noise_multiplier,
            max_grad_norm=self._config.max_grad_norm,
            expected_batch_size=self.batch_size,
            loss_reduction="mean",
            generator=noise,
        )
        with self.spending.charged() as taken, self._clean(), warnings.catch_warnings():
            # Of hooks on a first layer's inputs, which need no gradient.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            self._wrapper.train()
            batches = iter(self._loader)
            for step in range(self.spending.planned.steps):
                go_on()
                taken.step()
                inputs, labels = to_device(next(batches), device)
                private.zero_grad(set_to_none=True)
                if len(labels):
                    self._losses(self._wrapper(inputs), labels).backward()  # type: ignore[no-untyped-call]
                self._complete(len(labels), check=step == 0)
                private.pre_step()
                if pull_back is not None:
                    pull_back()
                self._optimizer.step()
        self._refuse_unprotected(kept)
        return self.spending.summary()

    def _complete(self, size: int, *, check: bool) -> None:
        """Give every parameter its gradients by example: none are zeros, and get noise like all others."""
        for name, parameter in self._model.named_parameters():
            if not parameter.requires_grad:
                continue
            by_example = getattr(parameter, "grad_sample", None)
            if by_example is None:
                if parameter.grad is not None and bool(parameter.grad.any()):
                    raise ValueError(f"model: {name!r} is used outside of its layer, where gradients have no examples")
                parameter.grad_sample = parameter.new_zeros((size, *parameter.shape))  # type: ignore[attr-defined]
            elif not isinstance(by_example, torch.Tensor) or len(by_example) != size:
                raise ValueError(f"model: {name!r} has gradients that are not one for each of the {size} examples")
            elif check and parameter.grad is not None and not _alike(by_example.sum(dim=0), parameter.grad):
                raise ValueError(f"model: the gradients of {name!r} by example do not sum up to that of the batch")

    def _refuse_unprotected(self, kept: Kept) -> None:
        optimized = (each for group in self._optimizer.param_groups for each in group["params"])
        trained = {id(parameter) for parameter in optimized if parameter.requires_grad}
        for name, tensor in self._model.state_dict(keep_vars=True).items():
            held = id(tensor) in kept.tensors
            if id(tensor) not in trained and not (held and torch.equal(tensor, kept.value(tensor))):
                raise ValueError(f"model: training changed {name!r} without noise; it would carry what is in the data")

    @contextmanager
    def _clean(self) -> Iterator[None]:
        """Leave nothing of a training in the model's hooks: what a failed batch left would be paired with the next."""
        self._wrapper.enable_hooks()
        try:
            yield
        finally:
            self._wrapper.disable_hooks()
            for parameter in self._model.parameters():
                parameter.grad_sample = None  # type: ignore[attr-defined]
                parameter.summed_grad = None  # type: ignore[attr-defined]
                parameter._forward_counter = 0  # type: ignore[attr-defined]
                parameter.__dict__.pop("_current_grad_sample", None)
            for module in self._model.modules():
                for left_over in ("activations", "max_batch_len"):
                    module.__dict__.pop(left_over, None)


def from_the_system(generator: torch.Generator) -> None:
    """Seed a generator from the operating system's randomness.

    Not by `manual_seed` alone: a CPU's generator keeps 32 bits of a seed, few enough to try them all.
    """
    generator.manual_seed(secrets.randbits(63))
    if generator.device.type == "cpu":
        state = generator.get_state()
        words = torch.frombuffer(bytearray(os.urandom(4 * _WORDS)), dtype=torch.int32).to(torch.int64) & 0xFFFFFFFF
        state[24 : 24 + 8 * _WORDS] = words.view(torch.uint8)
        generator.set_state(state)


def _batched(loader: object) -> DataLoader[Any]:
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        raise ValueError(
            "train_loader: with diff_priv_config a DataLoader of a data set with a length is needed, since each "
            f"example is drawn by itself; it is {type(loader).__name__}"
        )
    if loader.batch_size is None or type(loader.batch_sampler) is not BatchSampler:
        raise ValueError("train_loader: diff_priv_config needs a batch_size, and no batch_sampler of its own")
    sampler = loader.sampler
    size = len(loader.dataset)  # type: ignore[arg-type]
    plain = isinstance(sampler, SequentialSampler) or (
        isinstance(sampler, RandomSampler) and not sampler.replacement and sampler.num_samples == size
    )
    if not plain:
        raise ValueError(
            f"train_loader: {type(sampler).__name__} would not draw each example with the same probability, as "
            "diff_priv_config needs; leave the sampler out"
        )
    return loader


def _poisson(loader: DataLoader[Any], rate: float, steps: int, chance: torch.Generator) -> DPDataLoader:
    private = DPDataLoader(
        loader.dataset,
        sample_rate=rate,
        collate_fn=loader.collate_fn,
        generator=chance,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        prefetch_factor=loader.prefetch_factor,
    )
    private.batch_sampler.steps = steps
    return private


def _losses_of(criterion: Callable[[Any, Any], Any]) -> Callable[[Any, Any], torch.Tensor]:
    """Make the sum of what the criterion says of each example by itself."""
    if type(criterion) in (torch.nn.CrossEntropyLoss, torch.nn.NLLLoss, torch.nn.MSELoss, torch.nn.BCEWithLogitsLoss):
        each = copy.deepcopy(criterion)
        summed, each.reduction = each.reduction == "sum", "none"  # type: ignore[attr-defined]

        def at_once(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            losses: torch.Tensor = each(outputs, labels).reshape(len(labels), -1)
            return losses.sum() if summed else losses.mean(dim=1).sum()

        return at_once

    def one_by_one(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        losses = [criterion(_row(outputs, at), labels[at : at + 1]) for at in range(len(labels))]
        return torch.stack(losses).sum()

    return one_by_one


def _row(outputs: Any, at: int) -> Any:
    if isinstance(outputs, torch.Tensor):
        return outputs[at : at + 1]
    if isinstance(outputs, Mapping):
        return {name: _row(value, at) for name, value in outputs.items()}
    return type(outputs)(_row(value, at) for value in outputs)


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-2, atol=1e-3 * float(other.abs().max()) + 1e-6, equal_nan=True)


def _identity(loader: DataLoader[Any]) -> str:
    """Give what a data set is known again by; examples that are drawn are drawn in the same way each time."""
    dataset = loader.dataset

    def parts_at(at: int) -> Iterator[tuple[str, bytes]]:
        torch.manual_seed(at)
        return _parts(dataset[at])

    with torch.random.fork_rng(devices=[]):
        return identity_of(len(dataset), parts_at)  # type: ignore[arg-type]


def _parts(value: Any) -> Iterator[tuple[str, bytes]]:
    if isinstance(value, tuple | list):
        for each in value:
            yield from _parts(each)
        return
    array = torch.as_tensor(value).detach().cpu().contiguous()
    yield f"{array.dtype}{tuple(array.shape)}", array.reshape(-1).view(torch.uint8).numpy().tobytes()
