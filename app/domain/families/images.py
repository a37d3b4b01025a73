"""The families of convolutional networks on images."""

from __future__ import annotations

from app.domain.families.declaration import ACTIVATIONS, Family, choice, flag, float_parameter, int_parameter
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

IMAGE_RESNET = Family(
    name="image-resnet",
    version="1",
    description="A residual network of the CIFAR kind, on images of shape height × width × channels.",
    hyperparameters=(
        int_parameter("stages", 3, 1, 6, "Stages; from each to the next images shrink by `stride` and filters double."),
        int_parameter("blocks", 1, 1, 32, "Residual blocks of each stage, of two convolutions each."),
        int_parameter("filters", 16, 1, 1_024, "Filters of the first stage."),
        int_parameter("kernel_size", 3, 1, 15, "Height and width of each kernel."),
        int_parameter(
            "stride", 2, 1, 4, "Pixels from one place of the kernel to the next, in each later stage's first."
        ),
        choice("activation", "relu", ACTIVATIONS, "Activation of every hidden layer.", structural=False),
        flag("batch_norm", "Batch normalisation after each convolution of a block."),
        choice(
            "head",
            "average",
            ("average", "max", "flatten"),
            "What the output layer sees of the last stage.",
            structural=True,
        ),
        float_parameter("augment_flip", 0.0, 0.0, 1.0, "Share of the training images that are mirrored left to right."),
        float_parameter("augment_shift", 0.0, 0.0, 0.5, "They are moved each way by up to this share of their edges."),
        float_parameter("augment_noise", 0.0, 0.0, 10.0, "Standard deviation of noise added to pixels of 0 to 1."),
        float_parameter("augment_cutout", 0.0, 0.0, 1.0, "Edge of a square that is masked, as a share of the image's."),
        *REGULARIZATION,
        *OPTIMIZATION,
    ),
    tasks=("classification",),
    input_kind="image",
    stack_members=32,
    first_members=2,
)
