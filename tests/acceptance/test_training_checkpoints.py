"""A member that is stopped and goes on from its snapshot trains exactly as one that was never stopped."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.domain.families import Scalar
from app.domain.study import DatasetSpec, EarlyStopping, TrainingSpec
from app.domain.trial import FailureReason
from tests.acceptance.training_reference import stack_of
from tests.unit.conversation_channel import Supervisor
from worker.trainer.protocol import EpochDone, Halt, Member, Resume, Stop, TakeSnapshot, TakeSnapshots
from worker.trainer.snapshots import Shelf, read_snapshot
from worker.training.cache import ProgramCache
from worker.training.loop import train_stack
from worker.training.network_registry import BUILT_IN_NETWORKS

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

DIGITS, DIABETES = DatasetSpec(name="digits"), DatasetSpec(name="diabetes")
MLP = {"hidden_layers": 1, "units": 16, "batch_size": 64, "learning_rate": 0.01}
CNN = {"conv_layers": 1, "filters": 4, "batch_size": 256, "learning_rate": 0.01}
CASES: dict[str, tuple[str, DatasetSpec, dict[str, Scalar]]] = {
    "adam, dropout, cosine": ("mlp", DIGITS, {**MLP, "dropout": 0.3, "lr_schedule": "cosine"}),
    "sgd, nesterov, l2": ("mlp", DIGITS, {**MLP, "optimizer": "sgd", "momentum": 0.9, "nesterov": True, "l2": 1e-3}),
    "adamw, clipped, regression": (
        "mlp", DIABETES, {**MLP, "optimizer": "adamw", "weight_decay": 0.01, "global_clipnorm": 1.0},
    ),
    "rmsprop, batch norm": ("mlp", DIGITS, {**MLP, "optimizer": "rmsprop", "batch_norm": True}),
    "convolutions, batch norm": ("image-cnn", DIGITS, {**CNN, "batch_norm": True}),
}  # fmt: skip
EPOCHS, STOPPED_AFTER = 6, 4


@pytest.fixture(scope="module")
def cache() -> ProgramCache:
    return ProgramCache(background=False)


def request(case: str, *members: Mapping[str, Any], **fields: Any) -> Any:
    family, dataset, values = CASES[case]
    fields.setdefault("training", TrainingSpec(epochs=EPOCHS))
    return stack_of(family, dataset, [{**values, **m} for m in members or ({},)], judged=False, **fields)


def train(cache: ProgramCache, stack: Any, shelf: Shelf | None = None, **answers: Any) -> Supervisor:
    supervisor = Supervisor(judged=False, **answers)
    train_stack(stack, supervisor, cache, shelf=shelf, networks=BUILT_IN_NETWORKS)
    return supervisor


def interrupted(path: Path, member: int = 0) -> Callable[[EpochDone], list[Any]]:
    """Asks for a member's snapshot, and ends it, after `STOPPED_AFTER` epochs."""
    count = iter(range(1, 1000))
    take = TakeSnapshots(stack="stack", snapshots=[TakeSnapshot(member=member, path=str(path))])
    halt = Halt(stack="stack", stop=[Stop(member=member, reason="LEASE_LOST")])
    return lambda done: [take, halt] if next(count) == STOPPED_AFTER else []


def left(path: Path) -> Callable[[Any], list[TakeSnapshot]]:
    """Asks for the state of member 0 at its end."""
    return lambda results: [TakeSnapshot(member=0, path=str(path)) for r in results if r.member == 0]


def going_on(stack: Any, path: Path, **changes: Any) -> Any:
    """The stack's first member alone, from its snapshot."""
    member = stack.members[0].model_copy(update={"resume": [Resume(path=str(path), key="", own=True)], **changes})
    return stack.model_copy(update={"members": [member]})


def without_times(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that training alone decides: not how long it took, nor the memory of this process."""
    return {name: value for name, value in metrics.items() if "seconds" not in name and name != "peak_memory_mb"}


@pytest.mark.parametrize("case", CASES)
def test_a_member_goes_on_as_if_it_had_never_stopped(case: str, cache: ProgramCache, tmp_path: Path) -> None:
    stack = request(case, {}, {"learning_rate": 0.003})
    whole = train(cache, stack, take=left(tmp_path / "whole.npz"))
    first = train(cache, stack, unasked=interrupted(tmp_path / "stopped.npz"))
    assert first.results[0].stop_reason == "LEASE_LOST"
    assert (first.snapshots[0].epochs, first.snapshots[0].error) == (STOPPED_AFTER, None)
    # It goes on in another slot, beside another member.
    joined = going_on(stack, tmp_path / "stopped.npz").members[0].model_copy(update={"member": 1})
    other = stack.members[1].model_copy(update={"member": 0, "number": 7, "seed": 7})
    again = stack.model_copy(update={"members": [other, joined]})
    second = train(cache, again, take=lambda results: [TakeSnapshot(member=1, path=str(tmp_path / "end.npz"))])
    assert (second.resumed[1].epochs, second.resumed[1].problems) == (STOPPED_AFTER, [])
    reports = [*first.reports[0], *second.reports[1]]
    assert list(map(without_times, reports)) == list(map(without_times, whole.reports[0]))
    ended, uninterrupted = second.results[1], whole.results[0]
    assert (ended.selected_epoch, ended.epochs, ended.values) == (
        uninterrupted.selected_epoch, EPOCHS, uninterrupted.values,
    )  # fmt: skip
    assert without_times(ended.metrics) == without_times(uninterrupted.metrics)
    assert ended.metrics["train_seconds"] == pytest.approx(sum(r["seconds"] for r in reports))
    state, expected = read_snapshot(str(tmp_path / "end.npz")), read_snapshot(str(tmp_path / "whole.npz"))
    assert state.arrays.keys() == expected.arrays.keys()
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(state.arrays[name], array, err_msg=name)


def test_early_stopping_and_the_selected_epoch_go_on_too(cache: ProgramCache, tmp_path: Path) -> None:
    rule = EarlyStopping(metric="val_loss", patience=3)
    stack = request(
        "adam, dropout, cosine", {"learning_rate": 0.5}, training=TrainingSpec(epochs=40, early_stopping=rule)
    )
    whole = train(cache, stack).results[0]
    assert STOPPED_AFTER < whole.epochs < 40
    train(cache, stack, unasked=interrupted(tmp_path / "stopped.npz"))
    second = train(cache, going_on(stack, tmp_path / "stopped.npz")).results[0]
    assert (second.epochs, second.selected_epoch, second.values) == (whole.epochs, whole.selected_epoch, whole.values)


@pytest.mark.parametrize("damage", ["cut short", "missing", "of another network", "of another optimizer"])
def test_what_cannot_be_read_costs_the_epochs_and_says_so(damage: str, cache: ProgramCache, tmp_path: Path) -> None:
    case = "adam, dropout, cosine"
    path = tmp_path / "stopped.npz"
    changes = {"of another network": {"units": 8}, "of another optimizer": {"optimizer": "rmsprop"}}.get(damage, {})
    train(cache, request(case, changes), unasked=interrupted(path))
    if damage == "cut short":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "missing":
        path.unlink()
    whole, second = train(cache, request(case)), train(cache, going_on(request(case), path))
    assert second.resumed[0].epochs == 0
    assert len(second.resumed[0].problems) == 1
    assert list(map(without_times, second.reports[0])) == list(map(without_times, whole.reports[0]))


def test_another_trial_goes_on_with_the_weights_and_its_own_hyperparameters(
    cache: ProgramCache, tmp_path: Path
) -> None:
    case = "adam, dropout, cosine"
    training = TrainingSpec(epochs=EPOCHS, select_epoch="last")
    stack = request(case, training=training)
    parent = stack.model_copy(update={"members": [stack.members[0].model_copy(update={"epochs": STOPPED_AFTER})]})
    path = tmp_path / "parent.npz"
    shelf = Shelf()
    first = train(cache, parent, shelf, take=lambda results: [TakeSnapshot(member=0, path=str(path), key="parent")])
    assert (first.results[0].outcome, len(first.reports[0])) == ("complete", STOPPED_AFTER)

    def child(path: str, key: str, **values: Any) -> Supervisor:
        resume = [Resume(path=path, key=key, own=False)]
        own = {**CASES[case][2], **values}
        member = Member(member=0, number=9, hyperparameters=own, seed=9, epochs=2, resume=resume)
        return train(cache, stack.model_copy(update={"members": [member]}), shelf)

    from_file, from_memory = child(str(path), "another"), child("nowhere", "parent-epoch-4")
    assert from_file.resumed == from_memory.resumed == {}
    assert list(map(without_times, from_file.reports[0])) == list(map(without_times, from_memory.reports[0]))
    assert from_file.results[0].epochs == 2
    fresh = train(cache, stack).reports[0]
    assert from_file.reports[0][0]["loss"] < 0.5 * fresh[0]["loss"]  # it continues the parent's, not a new beginning
    assert from_file.reports[0][0]["learning_rate"] == fresh[STOPPED_AFTER]["learning_rate"]  # the lineage's schedule
    slow = child(str(path), "another", learning_rate=1e-9).reports[0]
    assert slow[0]["val_loss"] == pytest.approx(first.reports[0][-1]["val_loss"], rel=1e-4)
    lost = child("nowhere", "nowhere").results[0]
    assert (lost.outcome, lost.reason) == ("failed", FailureReason.EXCEPTION)
    assert "goes on from" in (lost.message or "")
