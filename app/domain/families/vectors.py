"""The family of dense networks on vectors."""

from __future__ import annotations

from app.domain.families.declaration import ACTIVATIONS, Family, choice, flag, int_parameter
from app.domain.families.shared import OPTIMIZATION, REGULARIZATION

MLP = Family(
    name="mlp",
    version="1",
    description="Dense layers on vectors: classification and regression of tabular data, or flattened images.",
    hyperparameters=(
        int_parameter("hidden_layers", 2, 0, 32, "Hidden dense layers."),
        int_parameter("units", 64, 1, 16_384, "Units of each hidden layer."),
        choice("activation", "relu", ACTIVATIONS, "Activation after each hidden layer.", structural=False),
        flag("batch_norm", "Batch normalisation between each hidden layer and its activation."),
        choice(
            "normalization",
            "standard",
            ("standard", "minmax", "none"),
            "What is done to columns of numbers, by the training part; images are scaled to [0, 1] except by none.",
            structural=True,
        ),
        *REGULARIZATION,
        *OPTIMIZATION,
    ),
    stack_members=32,
    first_members=16,
)
