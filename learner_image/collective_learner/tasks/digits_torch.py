"""A PyTorch model for the digits, a small convolutional network.

PyTorch is imported when a task asks for the model: every learner knows the name, and few pay for the framework.
"""

from __future__ import annotations

from collective_learner.factory import FactoryRegistry
from collective_learner.mli import DiffPrivConfig, MachineLearningInterface
from collective_learner.tasks import digits  # noqa: F401 - registers the data loader
from collective_learner.tasks.data import ClassificationData


@FactoryRegistry.register_model_architecture("TORCH_DIGITS", ["DIGITS"])
def torch_digits(
    data_loaders: ClassificationData,
    learning_rate: float = 0.003,
    epochs: int = 10,
    seed: int = 0,
    diff_priv_config: DiffPrivConfig | None = None,
    precision: str = "float32",
) -> MachineLearningInterface:
    """Make a small convolutional network that votes on its cross-entropy.

    Parameters
    ----------
    learning_rate
        Of Adam.
    epochs
        Passes over the training data in a proposal.
    seed
        Of the first weights and of the order of examples.
    diff_priv_config
        Train with differential privacy: target_epsilon, target_delta, max_grad_norm, noise_multiplier.
    precision
        ``"float32"``, or ``"bf16"`` to compute in bfloat16 on weights in float32.
    """
    from collective_learner.tasks.networks import digits_network, network_learner  # noqa: PLC0415

    return network_learner(
        digits_network,
        data_loaders,
        learning_rate=learning_rate,
        epochs=epochs,
        seed=seed,
        diff_priv_config=diff_priv_config,
        precision=precision,
    )
