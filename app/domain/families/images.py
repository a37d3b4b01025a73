"""The families of convolutional networks on images."""

from __future__ import annotations

from app.domain.families.declaration import ACTIVATIONS, Family, choice, flag, int_parameter
from app.domain.families.shared import OPTIMIZATION, REGULARIZATION

IMAGE_CNN = Family(
    name="image-cnn",
    version="1",
    description="Convolutions with pooling, then a dense head, on images of shape height × width × channels.",
    hyperparameters=(
        int_parameter("conv_layers", 2, 1, 8, "Convolutional layers; the filters double from each to the next."),
        int_parameter("filters", 16, 1, 1_024, "Filters of the first convolution."),
        int_parameter("kernel_size", 3, 1, 15, "Height and width of each kernel."),
        choice("pooling", "max", ("max", "average", "none"), "2×2 pooling after each convolution.", structural=True),
        int_parameter("dense_units", 64, 0, 16_384, "Units of the dense layer before the output; 0 leaves it out."),
        choice("activation", "relu", ACTIVATIONS, "Activation of every hidden layer.", structural=False),
        flag("batch_norm", "Batch normalisation between each hidden layer and its activation."),
        *REGULARIZATION,
        *OPTIMIZATION,
    ),
    tasks=("classification",),
    input_kind="image",
    stack_members=32,
    first_members=2,
)
