"""Networks on texts train as `keras.Model.fit` does with Keras' own layers, alone and in a stack, with and without XLA.

The reference of attention is Keras' `MultiHeadAttention`, of embeddings its `Embedding`: nothing of ours.
"""

from __future__ import annotations

import dataclasses
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

from app.domain.study import DatasetSpec, TrainingSpec
from tests.acceptance.test_training_parity import assert_same
from tests.acceptance.training_reference import (
    Trained,
    program_of,
    stack_of,
    start,
    trained,
    trained_by_keras,
    trained_by_program,
)
from tests.support.effort import with_smoke
from worker.trainer.trainable import Refused
from worker.training.program import Program
from worker.training.slots import Slots

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

FEW = DatasetSpec(name="docstrings", validation_fraction=0.9)
TOKENS = {"max_length": 9, "vocabulary_size": 50, "batch_size": 130}
CNN = {**TOKENS, "embedding_dim": 4, "filters": 6, "conv_layers": 2}
TRANSFORMER = {**TOKENS, "width": 8, "heads": 2, "feed_forward": 12}

# Families, what all members share, and what each has of its own. 300 training texts: the last batch is a partial one.
CASES = {
    "cnn-max": (
        "text-cnn",
        {**CNN, "optimizer": "adam", "dense_units": 5},
        [{"l2": 1e-3}, {"activation": "tanh", "learning_rate": 3e-4}, {"l1": 1e-4, "lr_schedule": "step"}],
    ),
    "cnn-average-batch-norm": (
        "text-cnn",
        {**CNN, "optimizer": "sgd", "pooling": "average", "batch_norm": True, "kernel_size": 4, "tokens": "characters"},
        [{"momentum": 0.9}, {"activation": "sigmoid"}, {"learning_rate": 3e-4, "label_smoothing": 0.1}],
    ),
    "transformer-learned": (
        "text-transformer",
        {**TRANSFORMER, "optimizer": "adam", "depth": 2},
        [
            {"l2": 1e-3},
            {"activation": "gelu", "learning_rate": 3e-4},
            {"global_clipnorm": 0.5, "lr_schedule": "cosine"},
        ],
    ),
    "transformer-sinusoidal-max": (
        "text-transformer",
        {**TRANSFORMER, "optimizer": "sgd", "positions": "sinusoidal", "pooling": "max", "heads": 4},
        [{"momentum": 0.9}, {"weight_decay": 0.1}, {"learning_rate": 3e-4, "l1": 1e-4}],
    ),
    "transformer-one-head-without-positions": (
        "text-transformer",
        {**TRANSFORMER, "optimizer": "adamw", "positions": "none", "heads": 1, "tokens": "pieces"},
        [{"weight_decay": 0.01}, {"activation": "swish"}, {"warmup_epochs": 1.0}],
    ),
}


def assert_same_networks(actual: Trained, expected: Trained, program: Program) -> None:
    """Equal but for the biases of attention's keys, which change nothing: a softmax takes no notice of what all its
    scores have in common. Their gradients are rounding errors, of which Adam makes steps of full length."""
    counted, biases = [], 0
    for variable in program.architecture.weights:
        of_a_head = variable.kind == "bias" and len(variable.shape) == 2
        biases += of_a_head
        is_keys = of_a_head and biases % 3 == 2  # query, key, value
        counted.append(np.full(variable.size, not is_keys))
    kept = np.concatenate(counted)
    pair = (dataclasses.replace(one, weights=one.weights[kept]) for one in (actual, expected))
    assert_same(*pair)


@pytest.mark.parametrize("name", with_smoke(CASES, "cnn-max"))
def test_a_program_trains_as_keras_fit_does_alone_and_in_a_stack(name: str) -> None:
    family, shared, own = CASES[name]
    request = stack_of(family, FEW, [{**shared, **values} for values in own])
    program = program_of(request)
    references = [trained_by_keras(request, member, program) for member in range(len(own))]
    for actual, expected in zip(trained_by_program(request, program), references, strict=True):
        assert_same_networks(actual, expected, program)

    alone = stack_of(family, FEW, [{**shared, **own[0]}], choices={"activation": ["relu", "tanh"]})
    assert_same_networks(trained_by_program(alone)[0], references[0], program)


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("name", ["cnn-max", "cnn-average-batch-norm", "transformer-learned"])
def test_xla_trains_as_keras_fit_does_whatever_the_members_of_a_call(name: str, members: int) -> None:
    family, shared, own = CASES[name]
    request = stack_of(family, FEW, [{**shared, **values} for values in own])
    program = program_of(request, members, xla=True)
    for member, actual in enumerate(trained_by_program(request, program)):
        assert_same_networks(actual, trained_by_keras(request, member, program), program)


def test_a_stack_as_wide_as_the_axes_of_attention_mixes_none_of_them() -> None:
    """Members, width, tokens and feed-forward units: all are 8."""
    shared = {**TRANSFORMER, "max_length": 8, "feed_forward": 8, "heads": 4, "optimizer": "sgd", "momentum": 0.9}
    rates = [1e-3, 9e-4, 8e-4, 7e-4, 6e-4, 5e-4, 4e-4, 3e-4]
    request = stack_of("text-transformer", FEW, [{**shared, "learning_rate": rate} for rate in rates])
    program = program_of(request)
    together = trained_by_program(request, program)
    for member in (0, 7):
        assert_same_networks(together[member], trained_by_keras(request, member, program), program)


def test_the_one_shape_for_which_keras_attention_is_wrong_is_refused() -> None:
    values = {**TRANSFORMER, "max_length": 8, "heads": 8}
    with pytest.raises(Refused, match="8 of each"):
        program_of(stack_of("text-transformer", FEW, [values]))


@pytest.mark.parametrize("family", ["text-cnn", "text-transformer"])
def test_padding_changes_nothing_about_what_a_network_gives(family: str) -> None:
    """Longer rows have more padding alone, where every text is shorter than both lengths."""
    values = {**(CNN if family == "text-cnn" else TRANSFORMER), "positions": "none", "batch_size": 300}
    if family == "text-cnn":
        del values["positions"]
    training = TrainingSpec(epochs=2)
    losses = []
    for length in (80, 100):
        request = stack_of(family, FEW, [{**values, "max_length": length}], training=training)
        program = program_of(request)
        assert (program.split.train.x[:, 79:] == 0).all()
        losses.append([m.val_loss for m in trained_by_program(request, program)[0].metrics])
    np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.mark.parametrize("family", ["text-cnn", "text-transformer"])
def test_dropout_is_a_members_own_and_costs_training_loss(family: str) -> None:
    values = CNN if family == "text-cnn" else TRANSFORMER
    shared = {**values, "learning_rate": 0.01}

    def slots_of(rates: list[float], seeds: list[int]) -> Slots:
        request = stack_of(family, FEW, [{**shared, "dropout": rate} for rate in rates], seeds=seeds)
        slots = Slots(program_of(request))
        for slot in range(len(rates)):
            start(slots, slot, request, slot)
        return slots

    alone, stacked = slots_of([0.6], [7]), slots_of([0.0, 0.6, 0.3], [7, 7, 1])
    for _ in range(3):
        one, many = trained(alone, [0])[0], trained(stacked, [0, 1, 2])
        assert one.loss == pytest.approx(many[1].loss, rel=1e-4)
        assert one.val_loss == pytest.approx(many[1].val_loss, rel=1e-4)
    for _ in range(12):
        last = trained(stacked, [0, 1, 2])
    assert last[1].loss > last[0].loss
    assert last[1].val_loss < last[1].loss + 1.0
