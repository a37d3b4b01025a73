"""An error of the framework's own is told in words, fails whose it is, and ends the use of its trainer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest
import tensorflow as tf

from app.domain.families import Hyperparameter
from app.domain.registry import BUILT_IN
from app.domain.study import TrainingSpec
from app.plugins import FamilyPlugin
from tests.acceptance.conftest import running_service
from tests.acceptance.training_reference import WINE, stack_of
from tests.support.processes import ROOT, wait_for
from tests.unit.conversation_channel import Supervisor
from tests.unit.test_plugins import install
from worker.trainer.protocol import Prepare, Stop, TrainStack
from worker.trainer.trainable import TryElsewhere
from worker.training.cache import ProgramCache
from worker.training.faults import Faults
from worker.training.loop import train_stack
from worker.training.network_registry import Networks, Trainable, in_keras
from worker.training.wording import MOST_CHARACTERS, essence, in_words

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

PLUGIN = FamilyPlugin(
    name="checked",
    version="1",
    description="",
    builder="nowhere:build",
    hyperparameters=(Hyperparameter("largest", "float", 1e9, "", low=0.0, high=1e9, structural=True),),
)
SENTENCE = "TensorFlow failed while it compiled or ran the program of this trial. It says: "
IN_WORDS = f"{SENTENCE}assertion failed: [Too large]"


class Checked(keras.layers.Layer):
    """What it is given, where all of it is smaller than `largest`; the program fails otherwise."""

    def __init__(self, largest: float) -> None:
        super().__init__()
        self.largest = largest

    def call(self, x: Any) -> Any:
        check = tf.debugging.Assert(tf.reduce_max(tf.abs(x)) < self.largest, ["Too large"])
        with tf.control_dependencies([check]):
            return tf.identity(x)


def build(hyperparameters: Mapping[str, Any], shape: tuple[int, ...], outputs: int) -> Any:
    x = keras.Input(shape)
    y = Checked(hyperparameters["largest"])(keras.layers.Dense(8, name="inner")(x))
    return keras.Model(x, keras.layers.Dense(outputs)(y))


NETWORKS = Networks(BUILT_IN.and_also([PLUGIN.family()]), {"checked": Trainable(in_keras(lambda _: build))})


def stack(*members: dict[str, Any], **fields: Any) -> TrainStack:
    return stack_of("checked", WINE, [{"batch_size": 64, **values} for values in members], **fields)


def train(request: TrainStack, cache: ProgramCache) -> Supervisor:
    supervisor = Supervisor()
    train_stack(request, supervisor, cache, networks=NETWORKS)
    return supervisor


FINE = {"learning_rate": 0.01}
FAILING = {"largest": 1e-6}
"""What is structural: members of a stack have it in common."""
NEVER_FINE = {"largest": 0.0}
"""Not even in the epoch without members that a program is compiled by."""


@pytest.mark.parametrize(
    ("values", "said"),
    [(FAILING, ["faulted", "epoch_done", "members_done"]), (NEVER_FINE, ["faulted", "members_done"])],
    ids=["running", "compiling"],
)
def test_a_program_that_fails_is_told_in_a_sentence_and_its_trainer_is_done_with(
    values: dict[str, Any], said: list[str]
) -> None:
    cache = ProgramCache(background=False)
    failing = train(stack(values), cache)
    assert failing.said == said
    result = failing.results[0]
    assert (result.outcome, result.reason, result.error_code) == ("failed", "EXCEPTION", "InvalidArgumentError")
    assert result.message == IN_WORDS
    # What was left out is in the log.
    assert "Graph execution error" in str(result.traceback)

    after = train(stack(FINE, FINE), cache)
    assert after.said == ["faulted", "members_done"]
    assert {(r.outcome, r.stop_reason) for r in after.results.values()} == {("stopped", "FAULTED")}
    assert train(stack(FINE), ProgramCache(background=False)).results[0].outcome == "complete"


@pytest.mark.parametrize("folds", [1, 2])
def test_a_program_of_any_family_compiled_ahead_that_fails_is_told_while_others_train(folds: int) -> None:
    cache = ProgramCache()
    wanted = Prepare(
        family="checked", dataset=WINE, slots=1, expected=1, hyperparameters={"batch_size": 64, **NEVER_FINE}
    )
    request = stack(FINE, training=TrainingSpec(epochs=10_000, folds=folds))
    ahead = [wanted]
    supervisor = Supervisor(
        unasked=lambda done: [ahead.pop()] if ahead else [],
        stop=lambda reports: [Stop(member=0, reason="PRUNED")] if cache.faults.words else [],
    )
    train_stack(request, supervisor, cache, networks=NETWORKS)
    assert supervisor.results[0].stop_reason == "PRUNED"
    assert supervisor.said.count("faulted") == 1
    assert cache.faults.words == "InvalidArgumentError: assertion failed: [Too large]"


def test_one_members_fault_is_not_its_neighbours() -> None:
    """The whole block fails by the one whose weights explode; tried again by itself it fails, the others go on."""
    members = [{"largest": 100.0, "learning_rate": rate} for rate in (0.01, 100.0, 0.02)]
    supervisor = train(stack(*members, slots=3), ProgramCache(background=False))
    assert {n: r.outcome for n, r in supervisor.results.items()} == {0: "complete", 1: "failed", 2: "complete"}
    assert supervisor.results[1].message == IN_WORDS
    assert supervisor.said.count("faulted") == 1


def test_a_member_that_fails_after_another_one_is_tried_elsewhere() -> None:
    """Each is alone in its call: what fails the second one may come of what the first one left behind."""
    supervisor = train(stack(FAILING, FAILING, slots=1), ProgramCache(background=False))
    first, second = (supervisor.results[n] for n in (0, 1))
    assert (first.outcome, first.message) == ("failed", IN_WORDS)
    assert (second.outcome, second.stop_reason, second.message) == ("stopped", "FAULTED", None)


def test_of_a_deterministic_study_a_whole_block_is_tried_elsewhere() -> None:
    """There no member trains in another program, where it would show who was the cause."""
    training = TrainingSpec(epochs=2, deterministic=True)
    members = [{"largest": 100.0, "learning_rate": rate} for rate in (0.01, 100.0)]
    supervisor = train(stack(*members, slots=2, training=training), ProgramCache(background=False))
    assert {r.stop_reason for r in supervisor.results.values()} == {"FAULTED"}


def test_the_first_fault_counts_and_neither_short_memory_nor_anything_else_is_one() -> None:
    faults = Faults()
    lacking = tf.errors.UnimplementedError(None, None, "Determinism is not yet supported for MaxPoolGradGrad.")
    for error in (tf.errors.ResourceExhaustedError(None, None, "no memory"), lacking, ZeroDivisionError("a bug")):
        with pytest.raises(type(error)), faults.noted():
            raise error
        assert faults.words is None
        assert not isinstance(faults.judged(error), TryElsewhere)
    first, second = tf.errors.InternalError(None, None, "one"), tf.errors.AbortedError(None, None, "two")
    for error in (first, second):
        with pytest.raises(type(error)), faults.noted():
            raise error
    assert faults.words == "InternalError: one"
    assert str(faults.judged(first)) == f"{SENTENCE}one"
    assert isinstance(faults.judged(second), TryElsewhere)


def test_short_memory_is_told_with_what_to_do() -> None:
    told = in_words(tf.errors.ResourceExhaustedError(None, None, "Graph execution error:\n\nOOM when allocating"))
    assert "a smaller batch_size" in str(told)
    assert str(told).endswith("It says: OOM when allocating")


LONG = "x" * 10_000
SAID = {
    "Graph execution error:\n\nDetected at node while/add/tmp_var defined at (most recent call last):\n"
    "<stack traces unavailable>\nResource tmp_var\n\t [[{{node while/add/tmp_var}}]] [Op:__inference__trace_9]": (
        "Resource tmp_var"
    ),
    'Graph execution error:\n\nDetected at node "a" defined at (most recent call last):\n'
    '  File "a.py", line 1, in f\n\n  File "b.py", line 2, in g\n\nassertion failed: [1]\n\t [[{{node a}}]]': (
        "assertion failed: [1]"
    ),
    "2 root error(s) found.\n  (0) INTERNAL:  no device\n\t [[{{node a}}]]\n  (1) CANCELLED:  too": (
        "INTERNAL:  no device"
    ),
    "{{function_node f}} Incompatible shapes: [2] vs. [3] [Op:AddV2] name: ": (
        "{{function_node f}} Incompatible shapes: [2] vs. [3]"
    ),
    LONG: LONG[:MOST_CHARACTERS] + "…",
    "": "InternalError",
}


@pytest.mark.parametrize("text", SAID, ids=range(len(SAID)))
def test_of_what_tensorflow_says_the_line_that_tells_is_told(text: str) -> None:
    assert essence(tf.errors.InternalError(None, None, text)) == SAID[text]


CODE = """
from app.domain.families import Hyperparameter
from app.plugins import FamilyPlugin

PLUGIN = FamilyPlugin(
    name="checked", version="1", description="", builder="plugin_checked:build",
    hyperparameters=(Hyperparameter("largest", "float", 1e9, "", low=0.0, high=1e9, structural=True),),
)


def build(hyperparameters, shape, outputs):
    from tests.acceptance.test_faults import build

    return build(hyperparameters, shape, outputs)
"""


def test_a_service_tells_the_first_error_and_trains_the_next_trials_in_another_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "installed"
    installed.mkdir()
    install(installed, "checked", CODE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(installed)]))
    definition = {
        "name": "checked",
        "model": {"family": "checked"},
        "dataset": {"name": "wine"},
        "hyperparameters": {"largest": {"type": "categorical", "choices": [1e-6, 1e9]}, "batch_size": 64},
        "training": {"epochs": 2},
        "objectives": [{"metric": "val_loss"}],
        "sampler": {"name": "grid"},
        "budget": {"trials": 2},
        "execution": {"parallel_trials": 1, "keep_models": "none"},
    }
    with running_service(tmp_path, f"sqlite:///{tmp_path / 'fettle.db'}") as client:
        wait_for(lambda: "checked" in {f.name for f in client.families()}, 120, "the advertised family")
        study = client.create_study(definition)
        for _ in client.events(study.id, patience_s=300):
            pass
        trials = {t.hyperparameters["largest"]: t for t in client.trials(study.id)}
        bad, good = trials[1e-6], trials[1e9]
        assert (bad.state, bad.reason, bad.attempt) == ("FAIL", "EXCEPTION", 1)
        assert bad.error == {"code": "InvalidArgumentError", "message": IN_WORDS}
        assert "Graph execution error" in client.logs(study.id, bad.number)
        assert (good.state, good.attempt) == ("COMPLETE", 1)
        log = (tmp_path / "service.log").read_text()
    [replaced] = [line for line in log.splitlines() if "trainer_recycled" in line]
    assert "InvalidArgumentError: assertion failed: [Too large]" in replaced
    assert "trainer_lost" not in log
