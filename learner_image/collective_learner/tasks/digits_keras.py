"""Keras models for the data that scikit-learn ships: the digits and breast cancer.

Keras is imported when a task asks for a model: every learner knows the names, and few pay for the framework.
"""

from __future__ import annotations

from collective_learner.factory import FactoryRegistry
from collective_learner.mli import DiffPrivConfig, MachineLearningInterface
from collective_learner.tasks import breast_cancer, digits  # noqa: F401 - registers the data loaders
from collective_learner.tasks.data import ClassificationData


@FactoryRegistry.register_model_architecture("KERAS_DIGITS", ["DIGITS"])
def keras_digits(
    data_loaders: ClassificationData,
    learning_rate: float = 0.003,
    epochs: int = 10,
    precision: str = "float32",
    seed: int = 0,
    diff_priv_config: DiffPrivConfig | None = None,
) -> MachineLearningInterface:
    """Make a small convolutional network that votes on its cross-entropy, and tells its accuracy.

    Parameters
    ----------
    learning_rate
        Of Adam.
    epochs
        Passes over the training data in a proposal.
    precision
        ``"float32"``, or ``"bf16"`` to compute in bfloat16 on weights in float32.
    seed
        Of the first weights.
    diff_priv_config
        Train with differential privacy: target_epsilon, target_delta, max_grad_norm, noise_multiplier.
    """
    from collective_learner.tasks.keras_networks import array_learner, digits_layers  # noqa: PLC0415

    return array_learner(
        digits_layers,
        data_loaders,
        learning_rate=learning_rate,
        epochs=epochs,
        precision=precision,
        seed=seed,
        diff_priv_config=diff_priv_config,
    )


@FactoryRegistry.register_model_architecture("KERAS_BREAST_CANCER", ["BREAST_CANCER"])
def keras_breast_cancer(
    data_loaders: ClassificationData,
    learning_rate: float = 0.003,
    epochs: int = 10,
    precision: str = "float32",
    seed: int = 0,
    diff_priv_config: DiffPrivConfig | None = None,
) -> MachineLearningInterface:
    """Make a network with one hidden layer; the parameters are those of KERAS_DIGITS."""
    from collective_learner.tasks.keras_networks import array_learner, breast_cancer_layers  # noqa: PLC0415

    return array_learner(
        breast_cancer_layers,
        data_loaders,
        learning_rate=learning_rate,
        epochs=epochs,
        precision=precision,
        seed=seed,
        diff_priv_config=diff_priv_config,
    )
