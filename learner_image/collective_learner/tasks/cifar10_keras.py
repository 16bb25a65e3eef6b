"""CIFAR-10 for Keras: a loader for the published batches, and a convolutional network.

Keras is imported when a task asks for the model: every learner knows the name, and few pay for the framework.
"""

from __future__ import annotations

from collective_learner.factory import FactoryRegistry
from collective_learner.learners.checks import whole_number
from collective_learner.mli import DiffPrivConfig, MachineLearningInterface
from collective_learner.tasks.files import ImageData, cifar10_at, split_up


@FactoryRegistry.register_dataloader("KERAS_CIFAR10")
def keras_cifar10(location: str, train_ratio: float = 0.9, batch_size: int = 32, seed: int = 0) -> ImageData:
    """Load CIFAR-10: its batches for Python, its binary ones, or a shard; the parameters are those of KERAS_MNIST."""
    whole_number("batch_size", batch_size, at_least=1)
    x, y = cifar10_at(location)
    return ImageData(**split_up(x, y, train_ratio=train_ratio, seed=seed), classes=10, batch_size=batch_size)


@FactoryRegistry.register_model_architecture("KERAS_CIFAR10", ["KERAS_CIFAR10"])
def keras_cifar10_model(
    data_loaders: ImageData,
    steps_per_epoch: int = 100,
    vote_batches: int = 10,
    learning_rate: float = 0.001,
    precision: str = "float32",
    seed: int = 0,
    diff_priv_config: DiffPrivConfig | None = None,
) -> MachineLearningInterface:
    """Make a convolutional network, with dropout; the parameters are those of the model KERAS_MNIST."""
    from collective_learner.tasks.keras_networks import cifar_layers, image_learner  # noqa: PLC0415

    return image_learner(
        cifar_layers,
        data_loaders,
        steps_per_epoch=steps_per_epoch,
        vote_batches=vote_batches,
        learning_rate=learning_rate,
        precision=precision,
        seed=seed,
        diff_priv_config=diff_priv_config,
    )
