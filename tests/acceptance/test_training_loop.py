"""A stack trained through its conversation: selection, failures of single members, metrics, and the models written."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn import datasets

from app.domain.families import FAMILIES, SCHEDULES
from app.domain.study import DatasetSpec, EarlyStopping, Objective, TrainingSpec
from app.domain.trial import FailureReason
from tests.acceptance.training_reference import Schedule, stack_of
from tests.unit.conversation_channel import Supervisor
from worker.trainer.protocol import KeepModel, Stop
from worker.training.cache import ProgramCache
from worker.training.data import load_split
from worker.training.loop import train_stack
from worker.training.network_registry import BUILT_IN_NETWORKS
from worker.training.signature import filled, structural_signature

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

WINE = DatasetSpec(name="wine")
MLP = {"hidden_layers": 1, "units": 8, "batch_size": 64, "learning_rate": 0.01}
BY_ACCURACY = [Objective(metric="val_accuracy", direction="maximize"), Objective(metric="parameter_count")]


@pytest.fixture(scope="module")
def cache() -> ProgramCache:
    return ProgramCache(background=False)


def train(cache: ProgramCache, request: Any, **answers: Any) -> Supervisor:
    supervisor = Supervisor(**answers)
    train_stack(request, supervisor, cache, networks=BUILT_IN_NETWORKS)
    assert supervisor.results.keys() == {m.member for m in request.members}
    return supervisor


def test_a_member_reports_the_contracts_metrics_and_its_best_epoch_is_selected(cache: ProgramCache) -> None:
    request = stack_of("mlp", WINE, [MLP, {**MLP, "learning_rate": 0.05}], objectives=BY_ACCURACY)
    supervisor = train(cache, request)
    for member, reports in supervisor.reports.items():
        assert all(
            r.keys() == {"loss", "val_loss", "accuracy", "val_accuracy", "learning_rate", "seconds"} for r in reports
        )
        result = supervisor.results[member]
        accuracies = [r["val_accuracy"] for r in reports]
        assert result.selected_epoch == accuracies.index(max(accuracies))
        assert result.values == [max(accuracies), 13 * 8 + 8 + 8 * 3 + 3]
        selected = reports[result.selected_epoch]
        assert result.metrics["generalization_gap"] == selected["accuracy"] - selected["val_accuracy"]
        assert result.metrics["train_seconds"] == pytest.approx(sum(r["seconds"] for r in reports))
        assert result.metrics | selected == result.metrics


def test_the_last_epoch_is_selected_where_the_study_says_so(cache: ProgramCache) -> None:
    request = stack_of("mlp", WINE, [MLP, MLP], training=TrainingSpec(epochs=3, select_epoch="last"))
    assert {r.selected_epoch for r in train(cache, request).results.values()} == {2}


def test_the_learning_rate_metric_follows_every_schedule(cache: ProgramCache) -> None:
    own = {"decay_rate": 0.4, "decay_epochs": 1.5, "final_fraction": 0.1, "power": 2.0}
    members = [{**MLP, **own, "lr_schedule": s, "warmup_epochs": w} for s in SCHEDULES for w in (0.0, 1.0)]
    request = stack_of("mlp", WINE, members, training=TrainingSpec(epochs=5))
    supervisor = train(cache, request)
    steps = -(-len(load_split(WINE, "vector", {}).train) // 64)
    for member, values in enumerate(members):
        schedule = Schedule(filled(FAMILIES["mlp"], values), steps, 5)
        expected = [float(schedule(steps * (epoch + 1) - 1)) for epoch in range(5)]
        reported = [r["learning_rate"] for r in supervisor.reports[member]]
        np.testing.assert_allclose(reported, expected, rtol=1e-6, err_msg=str(values))


def test_a_member_that_diverges_fails_alone_and_its_neighbours_are_as_without_it(cache: ProgramCache) -> None:
    mlp = {**MLP, "optimizer": "sgd", "global_clipnorm": 1.0}
    sound = [{**mlp, "learning_rate": r} for r in (0.01, 0.02, 0.03)]
    training = TrainingSpec(epochs=4)
    calm = train(cache, stack_of("mlp", WINE, sound, training=training))
    wild = {**mlp, "learning_rate": 100.0, "l2": 10.0, "momentum": 0.99, "global_clipnorm": 0.0}
    mixed = stack_of("mlp", WINE, [sound[0], wild, sound[2]], training=training)
    supervisor = train(cache, mixed)
    failed = supervisor.results[1]
    assert (failed.outcome, failed.reason) == ("failed", FailureReason.NON_FINITE)
    assert failed.epochs == len(supervisor.reports[1])
    assert "loss" in (failed.message or "")
    for member in (0, 2):
        for with_it, without in zip(supervisor.reports[member], calm.reports[member], strict=True):
            assert {**with_it, "seconds": 0} == {**without, "seconds": 0}


def test_a_program_serves_later_stacks_with_the_same_numbers(cache: ProgramCache) -> None:
    request = stack_of("mlp", WINE, [MLP, {**MLP, "dropout": 0.3}])
    first, hits, misses = train(cache, request), cache.hits, cache.misses
    second = train(cache, request)
    assert (cache.hits, cache.misses) == (hits + 1, misses)
    for member in (0, 1):
        assert first.results[member].values == second.results[member].values


def test_verdicts_and_early_stopping_end_members_at_different_epochs(cache: ProgramCache) -> None:
    rule = EarlyStopping(metric="val_accuracy", patience=2)
    frozen = {**MLP, "learning_rate": 1e-10}
    request = stack_of("mlp", WINE, [MLP, frozen], training=TrainingSpec(epochs=6, early_stopping=rule))
    supervisor = train(
        cache, request, stop=lambda rs: [Stop(member=0, reason="PRUNED") for r in rs if (r.member, r.epoch) == (0, 0)]
    )
    assert (supervisor.results[0].stop_reason, supervisor.results[0].epochs) == ("PRUNED", 1)
    assert (supervisor.results[1].outcome, supervisor.results[1].epochs) == ("complete", 3)


@pytest.mark.parametrize(
    ("family", "dataset", "values", "change", "words"),
    [
        ("image-cnn", "wine", {}, {}, "image samples"),
        ("image-cnn", "digits", {"conv_layers": 4}, {}, "2×2 pixels"),
        ("mlp", "imagenet", {}, {}, "Expected a data set among"),
        ("mlp", "wine", {"depth": 3}, {}, "depth"),
        ("mlp", "wine", {}, {"objectives": [Objective(metric="val_mae")]}, "val_mae"),
        ("mlp", "diabetes", {}, {"objectives": [Objective(metric="val_accuracy")]}, "val_accuracy"),
        ("mlp", "wine", {"warmup_epochs": 3.0}, {}, "warmup_epochs below the 3 epochs"),
        ("mlp", "diabetes", {}, {"training": TrainingSpec(class_weights="balanced")}, "no classes"),
        ("mlp", "wine", {"units": 512}, {"memory_mb": 1.0}, "fits the 1 MB of its device"),
    ],
)
def test_the_impossible_is_refused_in_words(
    cache: ProgramCache, family: str, dataset: str, values: dict[str, Any], change: dict[str, Any], words: str
) -> None:
    supervisor = train(cache, stack_of(family, DatasetSpec(name=dataset), [values], **change))
    assert supervisor.results[0].reason is FailureReason.REFUSED
    assert words in (supervisor.results[0].message or "")
    assert supervisor.said == ["members_done"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (tf.errors.ResourceExhaustedError(None, None, "no memory"), FailureReason.OUT_OF_MEMORY),
        (MemoryError(), FailureReason.OUT_OF_MEMORY),
        (ZeroDivisionError("a bug"), FailureReason.EXCEPTION),
    ],
)
def test_errors_of_training_fail_the_members_with_their_reason(error: Exception, reason: FailureReason) -> None:
    class Broken(ProgramCache):
        def program(self, signature: Any, slots: int, expected: int) -> Any:
            raise error

    supervisor = train(Broken(background=False), stack_of("mlp", WINE, [MLP, MLP]))
    assert {r.reason for r in supervisor.results.values()} == {reason}
    assert type(error).__name__ in (supervisor.results[0].traceback or "")


# Keras' saving asks TensorFlow's tensors for NumPy arrays in the way of NumPy 1.
SAVING = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
RAW = {"wine": datasets.load_wine, "digits": datasets.load_digits, "diabetes": datasets.load_diabetes}


@SAVING
@pytest.mark.parametrize(
    ("family", "dataset", "values"),
    [
        ("mlp", "wine", {**MLP, "dropout": 0.2, "batch_norm": True, "l1": 1e-4}),
        ("mlp", "diabetes", {**MLP, "activation": "gelu"}),
        ("image-cnn", "digits", {"filters": 2, "dense_units": 8, "batch_size": 64, "batch_norm": True}),
    ],
)
def test_a_kept_model_takes_raw_features_in_plain_keras_and_scores_as_reported(
    cache: ProgramCache, tmp_path: Path, family: str, dataset: str, values: dict[str, Any]
) -> None:
    spec = DatasetSpec(name=dataset, validation_fraction=0.3, test_fraction=0.2)
    score = "mae" if dataset == "diabetes" else "accuracy"
    objective = Objective(metric=f"val_{score}", direction="minimize" if score == "mae" else "maximize")
    path = str(tmp_path / "attempt" / "model.keras")
    request = stack_of(family, spec, [values, values], objectives=[objective])
    supervisor = train(cache, request, keep=lambda rs: [KeepModel(member=1, path=path)])
    kept = supervisor.kept[0]
    assert kept.error is None
    assert kept.size_bytes == Path(path).stat().st_size

    model = keras.saving.load_model(path)
    features, targets = RAW[dataset](return_X_y=True)
    features = features.reshape(-1, *kept.metadata["input_shape"]).astype("float32")
    split = load_split(spec, "image" if family == "image-cnn" else "vector", {})
    # The validation part's samples, found by what they look like.
    mine = {split.validation.x[i].tobytes() for i in range(len(split.validation))}

    rows = [i for i, x in enumerate(split.preparation.prepared(features)) if x.tobytes() in mine]
    outputs = model.predict(features[rows], verbose=0)
    if score == "mae":
        measured = np.abs(outputs[:, 0] - targets[rows]).mean()
    else:
        np.testing.assert_allclose(outputs.sum(1), 1.0, rtol=1e-5)
        assert outputs.shape[1] == len(kept.metadata["classes"])
        measured = (outputs.argmax(1) == targets[rows]).mean()
    assert measured == pytest.approx(supervisor.results[1].values[0], rel=1e-4)
    assert kept.metadata["selected_epoch"] == supervisor.results[1].selected_epoch
    assert f"test_{score}" in kept.test_metrics


def test_signatures_ignore_what_is_not_structural() -> None:
    def signature(values: dict[str, Any], **fields: Any) -> Any:
        return structural_signature(stack_of("mlp", WINE, [values], **fields), BUILT_IN_NETWORKS)

    plain = signature(MLP)
    assert plain == signature({**MLP, "dropout": 0.5, "l2": 1.0, "lr_schedule": "cosine"}, objectives=BY_ACCURACY)
    assert plain == signature({**MLP, "nesterov": True, "units": 8.0})
    assert plain != signature({**MLP, "units": 9})
    assert plain != signature({**MLP, "activation": "tanh"})
    both = {"activation": ["tanh", "relu"]}
    assert signature(MLP, choices=both) == signature({**MLP, "activation": "tanh"}, choices=both)
