"""X-rays for PyTorch: loaders for folders of images, and a small convolutional network.

PyTorch is imported when a task asks for a model: every learner knows the names, and few pay for the framework.
"""

from __future__ import annotations

from collective_learner.factory import FactoryRegistry
from collective_learner.learners.checks import whole_number
from collective_learner.mli import DiffPrivConfig, MachineLearningInterface
from collective_learner.tasks.data import Examples
from collective_learner.tasks.files import ImageData, pictures_at, split_up

_PIXELS = 128
_LUNGS = {"normal": 0, "pneumonia": 1}
_COVID = {"covid": 0, "covid-19": 0, "covid19": 0, "normal": 1, "viral pneumonia": 2, "pneumonia": 2}


@FactoryRegistry.register_dataloader("PYTORCH_XRAY")
def pytorch_xray(
    location: str,
    test_location: str | None = None,
    train_ratio: float = 0.96,
    batch_size: int = 8,
    no_cuda: bool = False,
    seed: int = 0,
) -> ImageData:
    """Load chest X-rays from folders named NORMAL and PNEUMONIA, at whatever depth, as grey images of 128 x 128.

    Parameters
    ----------
    location
        A folder or a URL.
    test_location
        Where images to test on are, if apart; the images at `location` are then to train and to vote on.
    train_ratio
        The share to train on; of the others one half is to vote on, and one half to test on.
    batch_size
        Images in a batch.
    no_cuda
        Whether batches stay off GPUs.
    seed
        Of the split.
    """
    whole_number("batch_size", batch_size, at_least=1)
    x, y = pictures_at(location, _LUNGS, size=_PIXELS)
    test = None if test_location is None else Examples(*pictures_at(test_location, _LUNGS, size=_PIXELS))
    parts = split_up(x, y, train_ratio=train_ratio, seed=seed, test=test)
    return ImageData(**parts, classes=2, batch_size=batch_size, pin_memory=not no_cuda)


@FactoryRegistry.register_dataloader("PYTORCH_COVID_XRAY")
def pytorch_covid_xray(
    location: str, train_ratio: float = 0.8, batch_size: int = 8, no_cuda: bool = False, seed: int = 0
) -> ImageData:
    """Load chest X-rays from folders named COVID, Normal and Viral Pneumonia; the parameters are PYTORCH_XRAY's."""
    whole_number("batch_size", batch_size, at_least=1)
    x, y = pictures_at(location, _COVID, size=_PIXELS)
    parts = split_up(x, y, train_ratio=train_ratio, seed=seed)
    return ImageData(**parts, classes=3, batch_size=batch_size, pin_memory=not no_cuda)


@FactoryRegistry.register_model_architecture("PYTORCH_XRAY", ["PYTORCH_XRAY"])
def pytorch_xray_model(
    data_loaders: ImageData,
    learning_rate: float = 0.001,
    steps_per_epoch: int = 40,
    vote_batches: int = 10,
    no_cuda: bool = False,
    vote_on_accuracy: bool = True,
    seed: int = 0,
    diff_priv_config: DiffPrivConfig | None = None,
    precision: str = "float32",
) -> MachineLearningInterface:
    """Make a small convolutional network.

    Parameters
    ----------
    learning_rate
        Of Adam.
    steps_per_epoch
        Batches in a proposal.
    vote_batches
        Most batches to vote or test on.
    no_cuda
        Train on the CPU though there is a GPU.
    vote_on_accuracy
        Vote on the accuracy; else on the cross-entropy.
    seed
        Of the first weights and of the order of examples.
    diff_priv_config
        Train with differential privacy: target_epsilon, target_delta, max_grad_norm, noise_multiplier.
    precision
        ``"float32"``, or ``"bf16"`` to compute in bfloat16 on weights in float32.
    """
    from collective_learner.tasks.xray_networks import xray_learner  # noqa: PLC0415

    return xray_learner(
        data_loaders,
        learning_rate=learning_rate,
        steps_per_epoch=steps_per_epoch,
        vote_batches=vote_batches,
        no_cuda=no_cuda,
        vote_on_accuracy=vote_on_accuracy,
        seed=seed,
        diff_priv_config=diff_priv_config,
        precision=precision,
    )


@FactoryRegistry.register_model_architecture("PYTORCH_COVID_XRAY", ["PYTORCH_COVID_XRAY"])
def pytorch_covid_xray_model(
    data_loaders: ImageData,
    learning_rate: float = 0.001,
    steps_per_epoch: int = 40,
    vote_batches: int = 10,
    no_cuda: bool = False,
    vote_on_accuracy: bool = True,
    seed: int = 0,
    diff_priv_config: DiffPrivConfig | None = None,
    precision: str = "float32",
) -> MachineLearningInterface:
    """Make the same network for three classes; the parameters are those of the model PYTORCH_XRAY."""
    from collective_learner.tasks.xray_networks import xray_learner  # noqa: PLC0415

    return xray_learner(
        data_loaders,
        learning_rate=learning_rate,
        steps_per_epoch=steps_per_epoch,
        vote_batches=vote_batches,
        no_cuda=no_cuda,
        vote_on_accuracy=vote_on_accuracy,
        seed=seed,
        diff_priv_config=diff_priv_config,
        precision=precision,
    )
