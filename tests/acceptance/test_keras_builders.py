"""Keras models of anybody's builder: what they draw, penalise, measure and start from is each member's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import tensorflow as tf

from app.domain.families import Hyperparameter
from app.domain.registry import BUILT_IN
from app.domain.study import DatasetSpec
from app.plugins import FamilyPlugin, Metric, float_parameter, int_parameter
from tests.acceptance.test_keras_networks import assert_same
from tests.acceptance.training_reference import stack_of, trained_by_keras, trained_by_program
from worker.trainer.protocol import TrainStack
from worker.trainer.trainable import Refused
from worker.training.export import exported_model
from worker.training.keras_network import KerasNetwork
from worker.training.metrics import OwnMetric
from worker.training.network_registry import Networks, Trainable, in_keras
from worker.training.program import Program, Variant
from worker.training.signature import structural_signature

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

WINE = DatasetSpec(name="wine")
PLUGIN = FamilyPlugin(
    name="own",
    version="1",
    description="",
    builder="nowhere:build",
    hyperparameters=(
        int_parameter("units", 8, 1, 64, ""),
        float_parameter("rate", 0.3, 0.0, 0.9, ""),
        Hyperparameter("scale", "float", 1.0, "", low=0.0, high=2.0, structural=True),
    ),
    metrics=(Metric("top2", "maximize", "nowhere:top2"), Metric("wins", "maximize", "nowhere:a", finish="nowhere:b")),
)
Build = Callable[[Mapping[str, Any], tuple[int, ...], int], Any]


def top2(outputs: Any, targets: Any) -> Any:
    return tf.cast(tf.math.in_top_k(targets, outputs, 2), tf.float32)


def right_and_wrong(outputs: Any, targets: Any) -> Any:
    right = tf.cast(tf.equal(tf.argmax(outputs, 1, tf.int32), targets), tf.float32)
    return tf.stack([right, 1.0 - right], 1)


def ratio(means: Any) -> Any:
    return means[:, 0] / (1e-6 + means[:, 1])


METRICS = (OwnMetric("top2", top2), OwnMetric("wins", right_and_wrong, ratio))


def networks(build: Build, metrics: tuple[OwnMetric, ...] = ()) -> Networks:
    return Networks(BUILT_IN.and_also([PLUGIN.family()]), {"own": Trainable(in_keras(lambda _: build), metrics)})


def program_of(
    request: TrainStack, build: Build, members: int, *, metrics: tuple[OwnMetric, ...] = (), xla: bool = False
) -> Program:
    return Program(structural_signature(request, networks(build, metrics)), Variant(members, xla))


def stack(*members: dict[str, Any], **fields: Any) -> TrainStack:
    return stack_of("own", WINE, [{"batch_size": 64, **values} for values in members], **fields)


def dropping(hyperparameters: Mapping[str, Any], shape: tuple[int, ...], outputs: int) -> Any:
    x = keras.Input(shape)
    y = keras.layers.Dense(int(hyperparameters["units"]), activation="tanh")(x)
    y = keras.layers.Dropout(hyperparameters["rate"])(y)
    y = keras.layers.GaussianNoise(hyperparameters["rate"])(y)
    return keras.Model(x, keras.layers.Dense(outputs)(y))


def test_dropout_and_noise_are_a_members_own_whatever_its_company_and_rates_need_no_other_program() -> None:
    request = stack({"rate": 0.0}, {"rate": 0.3}, {"rate": 0.6})
    assert structural_signature(request, networks(dropping)).hyperparameters.keys().isdisjoint({"rate"})
    together = trained_by_program(request, program_of(request, dropping, 3))
    alone = trained_by_program(request, program_of(request, dropping, 1))
    by_xla = trained_by_program(request, program_of(request, dropping, 2, xla=True))
    for mine, other, third in zip(alone, together, by_xla, strict=True):
        assert_same(mine, other)
        assert_same(mine, third)
    # Without dropping anything it is plain training.
    assert_same(alone[0], trained_by_keras(request, 0, program_of(request, dropping, 1)))
    assert abs(alone[1].weights - alone[2].weights).max() > 1e-3


def test_masks_drop_the_rate_and_noise_has_the_deviation() -> None:
    request = stack({"rate": 0.25}, {"rate": 0.5})
    program = program_of(request, dropping, 2)
    from worker.training.runtime_parameters import columns_of, knobs_of, own_columns_of

    rows = np.stack([program.fresh(m.hyperparameters | defaults(program), seed=m.seed, epochs=3).runtime
                     for m in request.members])  # fmt: skip
    runtime = tf.constant(rows)
    knobs = knobs_of(columns_of(runtime), own_columns_of(runtime, program.network.columns))
    masks, noise = program.network.masks(knobs, tf.constant([0, 0], tf.int64), 4000)[:2]
    for member, rate in enumerate((0.25, 0.5)):
        mask = masks[member].numpy()
        assert set(np.unique(mask)) == {np.float32(0.0), np.float32(1 / (1 - rate))}
        assert abs((mask == 0).mean() - rate) < 0.01
        assert abs(noise[member].numpy().std() - rate) < 0.01
        assert abs(noise[member].numpy().mean()) < 0.01


def defaults(program: Program) -> dict[str, Any]:
    return {h.name: h.default for h in program.signature.declaration.hyperparameters if h.name != "rate"}


def test_other_random_layers_follow_the_members_seeds() -> None:
    def build(hyperparameters: Mapping[str, Any], shape: tuple[int, ...], outputs: int) -> Any:
        x = keras.Input(shape)
        y = keras.layers.Dropout(hyperparameters["rate"])(keras.layers.AlphaDropout(0.4)(x))
        return keras.Model(x, keras.layers.Dense(outputs, kernel_initializer="zeros")(y))

    request = stack({"rate": 0.0}, {"rate": 0.0}, {"rate": 0.0}, seeds=[5, 6, 5])
    first, other, same = trained_by_program(request, program_of(request, build, 1))
    np.testing.assert_array_equal(first.weights[-3:], same.weights[-3:])
    assert abs(first.weights - other.weights).max() > 1e-4


def test_penalties_that_layers_bring_along_count_as_in_keras_fit() -> None:
    def build(hyperparameters: Mapping[str, Any], shape: tuple[int, ...], outputs: int) -> Any:
        x = keras.Input(shape)
        layer = keras.layers.Dense(int(hyperparameters["units"]), kernel_regularizer="l2", activation="relu")
        y = keras.layers.Dropout(hyperparameters["rate"])(layer(x))
        return keras.Model(x, keras.layers.Dense(outputs, activity_regularizer=keras.regularizers.L2(1e-3))(y))

    request = stack({"rate": 0.0}, {"rate": 0.0, "learning_rate": 3e-4})
    for members in (1, 2):
        program = program_of(request, build, members)
        for member, actual in enumerate(trained_by_program(request, program)):
            expected = trained_by_keras(request, member, program)
            np.testing.assert_allclose(actual.weights[:100], expected.weights[:100], rtol=1e-3, atol=1e-4)
            assert actual.metrics[0].loss > 0.0


def test_the_familys_own_metrics_are_those_of_all_samples() -> None:
    request = stack({"rate": 0.2}, {"rate": 0.0})
    program = program_of(request, dropping, 2, metrics=METRICS)
    from tests.acceptance.training_reference import start, trained
    from worker.training.slots import Slots

    slots = Slots(program)
    for slot in range(2):
        start(slots, slot, request, slot)
    trained(slots, [0, 1])
    slots.mark_best(1)
    split = program.split
    model = exported_model(program, slots.program.signature.declaration.defaults() | {"rate": 0.0}, *slots.best(1))
    validation = split.validation
    inner = next(layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))
    raw = validation.x * np.sqrt(inner.input_variance) + inner.input_mean
    outputs = model(raw.astype(np.float32)).numpy()
    best = np.argsort(-outputs, 1)[:, :2]
    own = slots.own[1]
    assert own.keys() == {"top2", "wins", "val_top2", "val_wins"}
    assert own["val_top2"] == pytest.approx((best == validation.y[:, None]).any(1).mean())
    accuracy = (best[:, 0] == validation.y).mean()
    assert own["val_wins"] == pytest.approx(accuracy / (1e-6 + 1 - accuracy), rel=1e-4)


def test_fresh_weights_are_drawn_by_the_layers_initializers_and_the_members_seed() -> None:
    def build(hyperparameters: Mapping[str, Any], shape: tuple[int, ...], outputs: int) -> Any:
        x = keras.Input(shape)
        y = keras.layers.Dense(400, kernel_initializer="he_normal", bias_initializer="ones")(x)
        y = keras.layers.LSTM(5, kernel_initializer="orthogonal")(keras.layers.Reshape((20, 20))(y))
        return keras.Model(x, keras.layers.Dense(outputs)(y))

    network = KerasNetwork(build, shape=(50,), structure={}, outputs=2)
    one, again, other = (network.fresh(seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    kernel, bias = one[:20_000], one[20_000:20_400]
    assert abs(kernel.std() - np.sqrt(2 / 50)) < 0.01
    assert (bias == 1).all()
    assert abs(np.corrcoef(kernel, other[:20_000])[0, 1]) < 0.05
    recurrent = one[20_400 : 20_400 + 400].reshape(20, 20)
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(20), atol=1e-5)
    forget = one[20_400 + 400 + 100 :][5:10]
    np.testing.assert_array_equal(forget, 1.0)


def _two_outputs(hyperparameters: Mapping[str, Any], shape: tuple[int, ...], outputs: int) -> Any:
    x = keras.Input(shape)
    return keras.Model(x, keras.layers.Dense(outputs + 1)(keras.layers.Dropout(hyperparameters["rate"])(x)))


def _calculating(hyperparameters: Mapping[str, Any], shape: tuple[int, ...], outputs: int) -> Any:
    x = keras.Input(shape)
    return keras.Model(x, keras.layers.Dense(outputs)(keras.layers.Dropout(hyperparameters["rate"] / 2)(x)))


def _unused(hyperparameters: Mapping[str, Any], shape: tuple[int, ...], outputs: int) -> Any:
    x = keras.Input(shape)
    return keras.Model(x, keras.layers.Dense(outputs)(x))


def _no_model(hyperparameters: Mapping[str, Any], shape: tuple[int, ...], outputs: int) -> Any:
    return keras.layers.Dense(outputs)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (_two_outputs, r"gives \[n, 3\]"),
        (_calculating, "calculates with it"),
        (_unused, "whose rate is 'rate'"),
        (_no_model, r"returns a keras.Model\. Received: Dense"),
    ],
)
def test_a_model_that_cannot_be_trained_here_is_refused_in_words(build: Build, words: str) -> None:
    with pytest.raises(Refused, match=words):
        program_of(stack({"rate": 0.1}), build, 1)


def test_a_subclassed_model_with_code_of_its_own_trains_and_its_batches_come_unpadded() -> None:
    class Centred(keras.layers.Layer):
        """What each batch has in common is taken away: a padded sample would shift it."""

        def call(self, x: Any) -> Any:
            return x - keras.ops.mean(x, axis=0, keepdims=True)

    class Own(keras.Model):
        def __init__(self, outputs: int) -> None:
            super().__init__()
            self.centre, self.dense = Centred(), keras.layers.Dense(outputs)

        def call(self, x: Any, training: bool = False) -> Any:
            centred = self.centre(x)
            return self.dense(centred if training else x)

    def build(hyperparameters: Mapping[str, Any], shape: tuple[int, ...], outputs: int) -> Any:
        return Own(outputs)

    plugin = FamilyPlugin(name="own", version="1", description="", builder="nowhere:build")
    known = Networks(BUILT_IN.and_also([plugin.family()]), {"own": Trainable(in_keras(lambda _: build))})
    request = stack({"l2": 0.01}, {"learning_rate": 3e-4})
    for members in (1, 2):
        program = Program(structural_signature(request, known), Variant(members, xla=False))
        assert program.network.exact_batches
        for member, actual in enumerate(trained_by_program(request, program)):
            assert_same(actual, trained_by_keras(request, member, program))
