"""What a deterministic study pins in the trainer: TensorFlow's kernels, the program's variant, and its words."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled

from app.domain.study import DatasetSpec, TrainingSpec
from tests.acceptance.training_reference import stack_of
from tests.unit.conversation_channel import Supervisor
from worker.training.cache import ProgramCache
from worker.training.determinism import NotDeterministic, deterministic_operations, explained
from worker.training.loop import train_stack
from worker.training.network_registry import BUILT_IN_NETWORKS
from worker.training.program import Variant
from worker.training.signature import structural_signature
from worker.training.variants import Timings

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

WINE = DatasetSpec(name="wine")
MEMBER = {"units": 8, "batch_size": 64, "dropout": 0.2}


def test_deterministic_kernels_are_taken_within_a_stack_alone() -> None:
    with deterministic_operations(wanted=False):
        assert not is_op_determinism_enabled()
    with deterministic_operations(wanted=True):
        assert is_op_determinism_enabled()
    assert not is_op_determinism_enabled()


def test_a_kernel_that_is_lacking_is_told_with_what_to_do() -> None:
    theirs = tf.errors.UnimplementedError(None, None, "Determinism is not yet supported for MaxPoolGradGrad.")
    told = explained(theirs)
    assert isinstance(told, NotDeterministic)
    assert "train on a CPU" in str(told)
    assert "MaxPoolGradGrad" in str(told)
    other = tf.errors.UnimplementedError(None, None, "no such kernel")
    assert explained(other) is other


def test_the_variant_is_the_same_whatever_was_measured_or_is_kept(tmp_path: Path) -> None:
    request = stack_of("mlp", WINE, [MEMBER], training=TrainingSpec(epochs=2, deterministic=True), slots=8)
    signature = structural_signature(request, BUILT_IN_NETWORKS)
    Timings(tmp_path / "timings").note(signature, {Variant(1, xla=True): 1e-6, Variant(8, xla=True): 1e-5})
    measured = ProgramCache(tmp_path / "timings", background=False)
    assert measured.program(signature, 8, 1000).variant.xla
    assert measured.fixed(signature, 8).variant == ProgramCache(background=False).fixed(signature, 8).variant
    assert not measured.fixed(signature, 8).variant.xla


def test_a_stack_gives_the_same_bits_in_a_fresh_cache_and_beside_a_kept_program() -> None:
    training = TrainingSpec(epochs=3, deterministic=True)
    request = stack_of("mlp", WINE, [MEMBER, {**MEMBER, "learning_rate": 0.01}], training=training, slots=8)
    kept = ProgramCache(background=False)
    plain = stack_of("mlp", WINE, [MEMBER], slots=1, expected=100)
    train_stack(plain, Supervisor(), kept, networks=BUILT_IN_NETWORKS)
    found = []
    for cache in (ProgramCache(background=False), kept, kept):
        supervisor = Supervisor()
        train_stack(request, supervisor, cache, networks=BUILT_IN_NETWORKS)
        found.append({m: [{**r, "seconds": 0} for r in reports] for m, reports in supervisor.reports.items()})
    assert found[0] == found[1] == found[2]
