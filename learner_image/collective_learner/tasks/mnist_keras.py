"""MNIST for Keras: loaders for the published files, a small convolutional network and a small residual one.

Keras is imported when a task asks for a model: every learner knows the names, and few pay for the framework.
"""

from __future__ import annotations

from collective_learner.factory import FactoryRegistry
from collective_learner.learners.checks import whole_number
from collective_learner.mli import DiffPrivConfig, MachineLearningInterface
from collective_learner.tasks.files import ImageData, mnist_at, split_up


@FactoryRegistry.register_dataloader("KERAS_MNIST")
def keras_mnist(location: str, train_ratio: float = 0.9, batch_size: int = 32, seed: int = 0) -> ImageData:
    """Load images of 28 x 28 pixels and ten classes: MNIST's IDX files, packed or not, or a shard.

    Parameters
    ----------
    location
        A folder or a URL.
    train_ratio
        The share to train on; of the others one half is to vote on, and one half to test on.
    batch_size
        Examples in a batch.
    seed
        Of the split.
    """
    whole_number("batch_size", batch_size, at_least=1)
    x, y = mnist_at(location)
    parts = split_up(x, y, train_ratio=train_ratio, seed=seed)
    return ImageData(**parts, classes=10, batch_size=batch_size)


@FactoryRegistry.register_dataloader("KERAS_MNIST_WITH_DP")
def keras_mnist_with_dp(location: str, train_ratio: float = 0.9, batch_size: int = 32, seed: int = 0) -> ImageData:
    """Load the same for private trainings, whose batches are drawn by chance and hold `batch_size` on average.

    The parameters are those of KERAS_MNIST; there must be as many examples as that.
    """
    whole_number("batch_size", batch_size, at_least=1)
    x, y = mnist_at(location)
    parts = split_up(x, y, train_ratio=train_ratio, seed=seed)
    if batch_size > len(parts["train"].y):
        raise ValueError(f"batch_size: {batch_size}, there are {len(parts['train'].y)} examples to train on")
    return ImageData(**parts, classes=10, batch_size=batch_size)


@FactoryRegistry.register_model_architecture("KERAS_MNIST", ["KERAS_MNIST", "KERAS_MNIST_WITH_DP"])
def keras_mnist_model(
    data_loaders: ImageData,
    steps_per_epoch: int = 100,
    vote_batches: int = 10,
    learning_rate: float = 0.001,
    diff_priv_config: DiffPrivConfig | None = None,
    num_microbatches: int = 4,
    precision: str = "float32",
    seed: int = 0,
) -> MachineLearningInterface:
    """Make a small convolutional network that votes on its cross-entropy, and tells its accuracy.

    Parameters
    ----------
    steps_per_epoch
        Batches in a proposal.
    vote_batches
        Most batches to vote or test on.
    learning_rate
        Of Adam.
    diff_priv_config
        Train with differential privacy: target_epsilon, target_delta, max_grad_norm, noise_multiplier.
    num_microbatches
        Parts in which a private training computes a batch, to hold less at once; the result is the same.
    precision
        ``"float32"``, or ``"bf16"`` to compute in bfloat16 on weights in float32.
    seed
        Of the first weights.
    """
    from collective_learner.tasks.keras_networks import image_learner, mnist_layers  # noqa: PLC0415

    whole_number("num_microbatches", num_microbatches, at_least=1)
    return image_learner(
        mnist_layers,
        data_loaders,
        steps_per_epoch=steps_per_epoch,
        vote_batches=vote_batches,
        learning_rate=learning_rate,
        precision=precision,
        seed=seed,
        diff_priv_config=diff_priv_config,
        num_microbatches=num_microbatches,
    )


@FactoryRegistry.register_model_architecture("KERAS_MNIST_RESNET", ["KERAS_MNIST"])
def keras_mnist_resnet(
    data_loaders: ImageData,
    steps_per_epoch: int = 100,
    vote_batches: int = 10,
    learning_rate: float = 0.001,
    precision: str = "float32",
    seed: int = 0,
) -> MachineLearningInterface:
    """Make a small residual network; the parameters are those of KERAS_MNIST.

    Its batch normalisation mixes examples, so it cannot be trained with differential privacy.
    """
    from collective_learner.tasks.keras_networks import image_learner, residual_layers  # noqa: PLC0415

    return image_learner(
        residual_layers,
        data_loaders,
        steps_per_epoch=steps_per_epoch,
        vote_batches=vote_batches,
        learning_rate=learning_rate,
        precision=precision,
        seed=seed,
    )
