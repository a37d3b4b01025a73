"""Which variant of a program trains: the first guess, what was measured, what is remembered, and what memory allows."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from app.domain.families import FAMILIES
from app.domain.study import DatasetSpec
from app.domain.trial import FailureReason
from tests.acceptance.training_reference import stack_of
from tests.support.processes import wait_for
from tests.unit.conversation_channel import Supervisor
from worker.training import variants
from worker.training.cache import MANY_TRIALS, ProgramCache
from worker.training.loop import train_stack
from worker.training.network_registry import BUILT_IN_NETWORKS
from worker.training.program import Program, Variant
from worker.training.signature import Signature, filled, structural_signature
from worker.training.slots import Slots
from worker.training.variants import Timings, candidates, member_epoch_s

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

WINE = DatasetSpec(name="wine")
MLP = {"hidden_layers": 1, "units": 8, "batch_size": 64, "learning_rate": 0.01}


def signature(family: str = "mlp", dataset: str = "wine", **values: Any) -> Signature:
    own = MLP if family == "mlp" else {"filters": 2, "dense_units": 8, "batch_size": 64}
    return structural_signature(stack_of(family, DatasetSpec(name=dataset), [{**own, **values}]), BUILT_IN_NETWORKS)


def test_the_first_guess_counts_compiling_company_and_the_family() -> None:
    cache = ProgramCache(background=False)
    dense, image = signature(), signature("image-cnn", "digits")
    assert cache.program(dense, 16, MANY_TRIALS - 1).variant == Variant(8, xla=False)
    assert cache.program(signature(units=9), 16, MANY_TRIALS).variant == Variant(8, xla=True)
    assert cache.program(signature(units=10), 3, MANY_TRIALS).variant == Variant(3, xla=True)
    assert cache.program(image, 16, MANY_TRIALS).variant == Variant(1, xla=True)
    assert {v.members for v in candidates(dense, 1)} == {1}


def test_a_trial_alone_uses_the_program_that_is_there() -> None:
    cache = ProgramCache(background=False)
    wide = cache.program(signature(), 16, MANY_TRIALS)
    assert cache.program(signature(), 1, 1) is wide
    assert len(cache) == 1


def test_what_was_measured_is_remembered_by_signature_across_trainers(tmp_path: Path) -> None:
    path = tmp_path / "timings.json"
    slow, fast = Variant(8, xla=True), Variant(1, xla=False)
    Timings(path).note(signature(), {slow: 0.8, fast: 0.01})
    assert ProgramCache(path, background=False).program(signature(), 8, MANY_TRIALS).variant == fast
    assert ProgramCache(path, background=False).program(signature(units=9), 8, MANY_TRIALS).variant == slow
    # Another trainer's measurements stay.
    Timings(path).note(signature(units=9), {fast: 0.1})
    assert Timings(path).of(signature()) == {slow: 0.8, fast: 0.01}


@pytest.mark.parametrize("text", ["", "[1]", '{"a": 3}', "{", '{"a": {"b": "c"}}'])
def test_a_file_of_timings_that_cannot_be_read_is_done_without(tmp_path: Path, text: str) -> None:
    path = tmp_path / "timings.json"
    path.write_text(text)
    timings = Timings(path)
    assert timings.of(signature()) == {}
    timings.note(signature(), {Variant(1, xla=True): 0.5})
    assert Timings(path).of(signature()) == {Variant(1, xla=True): 0.5}


def test_an_epoch_costs_a_member_its_share_of_the_calls() -> None:
    assert member_epoch_s(0.8, members=8, slots=16) == pytest.approx(0.1)
    assert member_epoch_s(0.8, members=8, slots=4) == pytest.approx(0.2)
    assert member_epoch_s(0.1, members=1, slots=4) == pytest.approx(0.1)


@pytest.mark.parametrize("faster", [True, False])
def test_members_move_exactly_where_another_variant_was_measured_to_be_faster(faster: bool) -> None:
    cache = ProgramCache()
    program = cache.program(signature(), 8, 1)
    program.compile()
    assert cache.better(program, 8) is None
    assert not cache.is_busy()  # it has not trained for long enough
    program.trained_s = 1e6
    assert cache.better(program, 8) is None
    assert cache.is_busy()
    wait_for(lambda: not cache.is_busy(), 120, "the measurement")
    other, measured = cache._trial.result()  # type: ignore[union-attr]
    assert (other.variant, measured.keys()) == (Variant(8, xla=True), {other.variant, program.variant})
    assert all(0 < seconds < 60 for seconds in measured.values())
    # What was measured is replaced, so that the decision alone is tested, whatever this machine's speed.
    measured.update({program.variant: 1.0, other.variant: 0.5 if faster else 2.0})
    assert cache.better(program, 8) is (other if faster else None)
    assert cache.program(signature(), 8, MANY_TRIALS).variant == (other if faster else program).variant


def test_a_program_is_compiled_ahead_beside_what_trains() -> None:
    cache = ProgramCache()
    cache.prepare(signature(), 8, 1)
    wait_for(lambda: not cache.is_busy(), 120, "the compiler")
    program = cache.program(signature(), 8, 1)
    assert program.compile_s is not None
    assert cache.hits == 1


def test_members_that_memory_has_no_room_for_train_one_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "MEMORY_SHARE", 1e-9)
    assert ProgramCache(background=False).program(signature(), 16, 1).variant.members == 1


class Exhausted(ProgramCache):
    """Programs of several members a call that run out of memory in their second epoch; and `broken`, with one."""

    def __init__(self, broken: int | None = None) -> None:
        super().__init__(background=False)
        self.broken = broken
        self.calls = 0

    def _keep(self, program: Program) -> Program:
        run = program.run

        def exhausted(state: Any, runtime: Any, order: Any) -> Any:
            self.calls += 1
            alone = program.members == 1
            seed = int(runtime[0][-1])
            if (not alone and self.calls > 1) or (alone and seed == self.broken):
                raise tf.errors.ResourceExhaustedError(None, None, "no memory")
            return run(state, runtime, order)

        program.run = exhausted  # type: ignore[method-assign]
        return super()._keep(program)


def trained(cache: ProgramCache) -> Supervisor:
    request = stack_of("mlp", WINE, [{**MLP, "units": 12}] * 3, slots=3)
    supervisor = Supervisor()
    train_stack(request, supervisor, cache, networks=BUILT_IN_NETWORKS)
    return supervisor


def test_a_stack_that_exhausts_memory_goes_on_one_by_one_as_if_nothing_had_happened() -> None:
    calm, exhausted = trained(ProgramCache(background=False)), trained(Exhausted())
    for member, result in exhausted.results.items():
        assert result.outcome == "complete"
        for mine, theirs in zip(exhausted.reports[member], calm.reports[member], strict=True):
            assert mine["val_loss"] == pytest.approx(theirs["val_loss"], rel=1e-4)


def test_a_member_that_exhausts_memory_alone_fails_alone() -> None:
    supervisor = trained(Exhausted(broken=101))
    assert supervisor.results[1].reason is FailureReason.OUT_OF_MEMORY
    assert {supervisor.results[n].outcome for n in (0, 2)} == {"complete"}


def test_a_block_whose_call_fails_is_as_it_was() -> None:
    cache = Exhausted()
    slots = Slots(cache.program(signature(), 2, 1))
    slots.reset(0, filled(FAMILIES["mlp"], MLP), seed=1, epochs=3)
    slots.run_epoch([0])
    slots.mark_best(0)
    before = slots.best(0)[0]
    assert isinstance(slots.run_epoch([0])[0], tf.errors.ResourceExhaustedError)
    slots.mark_best(0)
    assert (slots.best(0)[0] == before).all()
