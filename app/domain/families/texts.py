"""The families of networks on texts."""

from __future__ import annotations

from app.domain.families.declaration import ACTIVATIONS, Family, choice, flag, int_parameter
from app.domain.families.shared import OPTIMIZATION, REGULARIZATION

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
