"""The built-in families of networks, and the hyperparameters that they have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from app.domain.families.declaration import (
    ACTIVATIONS,
    OPTIMIZERS,
    SCHEDULES,
    Family,
    Hyperparameter,
    InputKind,
    Scalar,
    choice,
    flag,
    float_parameter,
    int_parameter,
)

_L1 = float_parameter("l1", 0.0, 0.0, 10.0, "Penalty l1·Σ|w| over kernels, added to the loss of each batch.")
_L2 = float_parameter("l2", 0.0, 0.0, 10.0, "Penalty l2·Σw² over kernels, added to the loss of each batch.")
_DROPOUT = float_parameter("dropout", 0.0, 0.0, 0.95, "Share of units dropped in training after each hidden layer.")
_SMOOTHING = float_parameter("label_smoothing", 0.0, 0.0, 0.9, "Share of the target spread evenly over all classes.")
REGULARIZATION = (_L1, _L2, _DROPOUT, _SMOOTHING)
PENALTIES = (_L1, _L2, _SMOOTHING)
"""Regularisation that any network takes, whatever its layers."""

OPTIMIZATION = (
    choice(
        "optimizer", "adam", OPTIMIZERS, "Update rule, with Keras' constants where not given here.", structural=True
    ),
    float_parameter("momentum", 0.0, 0.0, 0.999, "Momentum of sgd and rmsprop; the others ignore it."),
    flag("nesterov", "Nesterov's momentum for sgd; the others ignore it."),
    float_parameter(
        "weight_decay", 0.0, 0.0, 1.0, "Decoupled decay: weights shrink by learning_rate·weight_decay at each step."
    ),
    float_parameter("global_clipnorm", 0.0, 0.0, 1e6, "Largest global norm of the gradient; 0 leaves it alone."),
    float_parameter("learning_rate", 1e-3, 1e-10, 100.0, "Learning rate at the start, after any warmup."),
    choice("lr_schedule", "constant", SCHEDULES, "How the learning rate falls over the epochs.", structural=False),
    float_parameter("decay_rate", 0.5, 0.0, 1e3, "r of the exponential, step and inverse_time schedules."),
    float_parameter(
        "decay_epochs", 5.0, 1e-3, 1e6, "d of the exponential, step and inverse_time schedules, in epochs."
    ),
    float_parameter(
        "final_fraction", 0.0, 0.0, 1.0, "a of the cosine and polynomial schedules: final over initial rate."
    ),
    float_parameter("power", 1.0, 1e-3, 100.0, "p of the polynomial schedule."),
    float_parameter(
        "warmup_epochs", 0.0, 0.0, 1e6, "Epochs over which the rate first rises linearly; below the study's epochs."
    ),
    int_parameter("batch_size", 32, 1, 65_536, "Samples that go through the network at once."),
    int_parameter(
        "gradient_accumulation_steps",
        1,
        1,
        1_024,
        "Batches whose gradients are added up for one step: that of a batch so many times as large.",
    ),
)


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


TOKENS = ("words", "pieces", "characters")

TOKENISATION = (
    choice(
        "tokens",
        "words",
        TOKENS,
        "What a text is cut into, in lower case: words without punctuation, pieces between white space, characters.",
        structural=True,
    ),
    int_parameter("max_length", 64, 1, 4_096, "Tokens of a text that are read; what comes after them is left out."),
    int_parameter(
        "vocabulary_size", 4_000, 3, 1_000_000, "Rows of the embedding: padding, the unknown, and the commonest tokens."
    ),
)
"""How texts become numbers; the vocabulary is that of the training part."""

POOLING = ("max", "average")
POSITIONS = ("learned", "sinusoidal", "none")

TEXT_CNN = Family(
    name="text-cnn",
    version="1",
    description="Embedded tokens, convolutions along the text, pooling over all of it, then a dense head.",
    hyperparameters=(
        *TOKENISATION,
        int_parameter("embedding_dim", 32, 1, 4_096, "Numbers that stand for a token."),
        int_parameter("conv_layers", 1, 1, 16, "Convolutional layers."),
        int_parameter("filters", 64, 1, 4_096, "Filters of each convolution."),
        int_parameter("kernel_size", 3, 1, 63, "Tokens that each kernel covers."),
        choice("pooling", "max", POOLING, "What the head sees of each filter over the text.", structural=True),
        int_parameter("dense_units", 0, 0, 16_384, "Units of the dense layer before the output; 0 leaves it out."),
        choice("activation", "relu", ACTIVATIONS, "Activation of every hidden layer.", structural=False),
        flag("batch_norm", "Batch normalisation between each hidden layer and its activation."),
        *REGULARIZATION,
        *OPTIMIZATION,
    ),
    input_kind="text",
    stack_members=32,
    first_members=2,
)

TEXT_TRANSFORMER = Family(
    name="text-transformer",
    version="1",
    description="A transformer's encoder on embedded tokens, pooled over the text.",
    hyperparameters=(
        *TOKENISATION,
        int_parameter("depth", 1, 1, 24, "Layers of attention and two dense layers each."),
        int_parameter("width", 32, 1, 4_096, "Numbers that stand for a token; `heads` must divide it."),
        int_parameter("heads", 2, 1, 64, "Heads of each attention, `width`/`heads` numbers wide."),
        int_parameter("feed_forward", 64, 1, 16_384, "Units of the first of the two dense layers."),
        choice(
            "positions",
            "learned",
            POSITIONS,
            "How a token's place is told: a trained vector, sinusoids, or not.",
            structural=True,
        ),
        choice("pooling", "average", POOLING, "What the output layer sees of the text.", structural=True),
        choice("activation", "relu", ACTIVATIONS, "Activation of the dense layers within.", structural=False),
        *REGULARIZATION,
        *OPTIMIZATION,
    ),
    input_kind="text",
    stack_members=32,
    first_members=2,
)


AUDIO_CNN = Family(
    name="audio-cnn",
    version="1",
    description="Waveforms as log-mel spectrograms, on which convolutions with pooling and a dense head work.",
    hyperparameters=(
        int_parameter("frame_length", 256, 16, 8_192, "Samples of a spectrogram's frame, in a Hann window."),
        int_parameter("frame_step", 128, 32, 8_192, "Samples from the beginning of a frame to that of the next."),
        int_parameter("mel_bands", 32, 2, 128, "Bands of the mel scale, from 20 Hz to half the sample rate."),
        int_parameter("conv_layers", 3, 1, 8, "Convolutional layers; the filters double from each to the next."),
        int_parameter("filters", 8, 1, 1_024, "Filters of the first convolution."),
        int_parameter("kernel_size", 3, 1, 15, "Frames and bands that each kernel covers."),
        choice("pooling", "max", ("max", "average", "none"), "2×2 pooling after each convolution.", structural=True),
        int_parameter("dense_units", 64, 0, 16_384, "Units of the dense layer before the output; 0 leaves it out."),
        choice("activation", "relu", ACTIVATIONS, "Activation of every hidden layer.", structural=False),
        flag("batch_norm", "Batch normalisation between each hidden layer and its activation."),
        float_parameter(
            "augment_shift", 0.0, 0.0, 0.5, "Training recordings are moved in time by up to this share of their length."
        ),
        float_parameter(
            "augment_noise", 0.0, 0.0, 10.0, "Standard deviation of noise added to standardised spectrograms."
        ),
        float_parameter(
            "augment_time_mask", 0.0, 0.0, 1.0, "Up to this share of a spectrogram's frames in a row are masked."
        ),
        float_parameter(
            "augment_band_mask", 0.0, 0.0, 1.0, "Up to this share of a spectrogram's bands in a row are masked."
        ),
        *REGULARIZATION,
        *OPTIMIZATION,
    ),
    tasks=("classification",),
    input_kind="audio",
    stack_members=32,
    first_members=2,
)


KERAS_LAYERS = Family(
    name="keras-layers",
    version="1",
    description="A list of Keras layers, with hyperparameters in place of their options; the output layer is added.",
    hyperparameters=(*PENALTIES, *OPTIMIZATION),
    stack_members=16,
    first_members=8,
    from_layers=True,
)
"""What all lists have in common: each declares more hyperparameters by using them."""
RESERVED = tuple(h.name for h in KERAS_LAYERS.hyperparameters)
"""Names of hyperparameters that layers can't have: they say how weights are optimised."""


def with_layers(
    layers: Sequence[Any], input_kind: InputKind | None, fallbacks: Mapping[str, Scalar] | None = None
) -> Family:
    """The family of the models that `layers` may give: the hyperparameters that they use come first.

    What is wrong with the list is left out: `app.domain.checks.layers` tells it. `fallbacks` are the defaults of
    hyperparameters that not every trial draws.
    """
    from app.domain.layers import declared_by, read

    declared, _ = declared_by(read(layers).nodes, fallbacks)
    own: tuple[Hyperparameter, ...] = tuple(h for name, h in declared.items() if name not in RESERVED)
    return replace(
        KERAS_LAYERS, hyperparameters=(*own, *KERAS_LAYERS.hyperparameters), input_kind=input_kind or "vector"
    )


@lru_cache(maxsize=256)
def with_layers_of_text(layers: str, input_kind: InputKind | None) -> Family:
    """The same by the layers' JSON text, without fallbacks: what a trainer knows, whose trials have every value."""
    import json

    return with_layers(json.loads(layers), input_kind)
