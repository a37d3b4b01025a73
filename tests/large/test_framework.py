"""What the configuration of TensorFlow is for: a large graph's sums share nothing between calls."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import tensorflow as tf

from tests.support.processes import ROOT

pytestmark = pytest.mark.tensorflow

FLOATS = 30_000_000
"""120 MB a tensor: of three the graph holds more than TensorFlow expects a CPU to have."""
TOO_LATE = """
import tensorflow as tf
from worker.training.device import configure
tf.constant(1.0)
configure()
"""


def sums(x: Any, wanted: Any) -> Any:
    """Two steps of a loop, each of which adds up three tensors in a branch that is taken where `wanted`."""

    def step(k: Any, y: Any) -> tuple[Any, Any]:
        parts = [tf.cos(y), tf.tanh(y), tf.exp(-y * y)]
        return k + 1, tf.cond(wanted, lambda: tf.add_n(parts), lambda: y)

    return tf.reduce_mean(tf.while_loop(lambda k, _: k < 2, step, (0, x))[1])


def test_a_sum_in_a_branch_that_is_not_taken_leaves_nothing_behind() -> None:
    called = tf.function(sums, autograph=False)
    x = tf.ones([FLOATS])
    for wanted in (False, False, True, False, True):
        assert float(called(x, tf.constant(wanted))) == pytest.approx(0.8942 if wanted else 1.0, abs=1e-3)


def test_calls_side_by_side_add_up_the_same_sum() -> None:
    called = tf.function(sums, autograph=False)
    x, wanted = tf.ones([FLOATS]), tf.constant(True)
    called(x, wanted)
    with ThreadPoolExecutor(2) as lanes:
        found = list(lanes.map(lambda _: float(called(x, wanted)), range(6)))
    assert found == pytest.approx([0.8942] * 6, abs=1e-3)


def test_a_configuration_that_comes_too_late_is_an_error() -> None:
    done = subprocess.run([sys.executable, "-c", TOO_LATE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "RuntimeError: Expected to configure TensorFlow before its first use." in done.stderr
