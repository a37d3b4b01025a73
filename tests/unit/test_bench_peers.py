"""Every side runs the same study: same data, split, network and space, with the versions that Fettle has."""

from __future__ import annotations

import ast
import json
import os
import sys
import tomllib
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import optuna
import pytest
from packaging.requirements import Requirement

from app.api.validation import accepted
from app.domain.datasets import BUNDLED
from app.domain.families import FAMILIES
from app.domain.registry import BUILT_IN
from app.domain.study import StudyDefinition
from app.settings import Settings
from bench import cnn, digits, sides, spoken, text
from bench.__main__ import PARTS
from bench.peers.telling import Telling
from bench.record import ROOT, Records
from bench.tasks import Options
from bench.works import SPACE, WORKS, Work, definition, suggested
from worker.training.models import BUILDERS, architecture

READY = [work for work in WORKS.values() if work.dataset in BUNDLED]
"""Works whose data set the service has."""
WORK = WORKS["digits-mlp"]


def recordings_of(work: Work, folder: Path) -> Path | None:
    """The file that a peer reads its recordings from; None where it needs none."""
    if work.family != "audio-cnn":
        return None
    spoken.write_recordings(folder / "recordings.npz")
    return folder / "recordings.npz"


def ids(work: Work) -> str:
    return work.name


@pytest.mark.parametrize("work", READY, ids=ids)
def test_the_service_accepts_the_study_and_stacks_no_pruner_on_it(work: Work) -> None:
    study = StudyDefinition.model_validate(definition(work, "some", 3, 60))
    checked = accepted(study, Settings(), families=BUILT_IN)
    assert not checked.errors
    assert not checked.warnings
    assert study.training.epochs == work.epochs
    assert study.training.early_stopping is None
    assert study.pruner is None or study.pruner.name == "none"


def test_the_race_prunes_with_hyperband_until_the_target() -> None:
    objective = {"metric": "val_accuracy", "direction": "maximize", "target": WORK.target}
    study = definition(WORK, "race", 0, 60, objectives=[objective], pruner=cnn.HYPERBAND)
    checked = accepted(StudyDefinition.model_validate(study), Settings(), families=BUILT_IN)
    assert not checked.errors
    assert study["budget"] == {"trials": 60}


def test_units_can_be_searched_too() -> None:
    units = {"type": "int", "low": 32, "high": 128, "step": 32}
    assert digits.study("some", 0, 5, units)["hyperparameters"]["units"] == units
    assert digits.study("some", 0, 5)["hyperparameters"]["units"] == 64


def test_a_draw_has_every_parameter_within_its_range_and_a_decay_rate_only_where_it_decays() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    schedules = set()
    for _ in range(40):
        trial = study.ask()
        values = suggested(trial.suggest_float, trial.suggest_categorical)
        schedules.add(values["lr_schedule"])
        wanted = set(SPACE) - ({"decay_rate"} if values["lr_schedule"] == "constant" else set())
        assert set(values) == wanted
        assert values == trial.params
        for name, value in values.items():
            spec = SPACE[name]
            assert value in spec["choices"] if "choices" in spec else spec["low"] <= value <= spec["high"]
    assert schedules == set(SPACE["lr_schedule"]["choices"])
    assert all(isinstance(trial.distributions["l1"], optuna.distributions.FloatDistribution) for trial in study.trials)
    assert trial.distributions["learning_rate"].log  # type: ignore[union-attr]


@pytest.mark.tensorflow
@pytest.mark.parametrize("work", READY, ids=ids)
def test_a_peer_trains_on_the_same_split_as_fettle(work: Work, tmp_path: Path) -> None:
    from bench.peers import network
    from worker.training.data import load_split

    study = StudyDefinition.model_validate(definition(work, "some", 0, 1))
    assert study.dataset is not None
    if work.family == "text-transformer":
        # Keras numbers equally common tokens in another order: their lengths and what is unknown are the same.
        ours = load_split(study.dataset, "text", {**work.network, "tokens": "words"})
        theirs = network.load(work, text.written(tmp_path))
        for mine, of_keras in ((ours.train.x, theirs.x), (ours.validation.x, theirs.x_val)):
            np.testing.assert_array_equal(mine == 0, of_keras == 0)
            assert (np.minimum(mine, 2) != np.minimum(of_keras, 2)).mean() < 0.02
        np.testing.assert_array_equal(ours.train.y, theirs.y)
        np.testing.assert_array_equal(ours.validation.y, theirs.y_val)
        return
    ours = load_split(study.dataset, FAMILIES[work.family].input_kind, work.network)
    theirs = network.load(work, recordings_of(work, tmp_path))
    atol = 1e-4 if work.family == "audio-cnn" else 1e-7
    np.testing.assert_allclose(ours.train.x, theirs.x, atol=atol)
    np.testing.assert_allclose(ours.validation.x, theirs.x_val, atol=atol)
    np.testing.assert_array_equal(ours.train.y, theirs.y)
    np.testing.assert_array_equal(ours.validation.y, theirs.y_val)


@pytest.mark.tensorflow
@pytest.mark.parametrize("work", READY, ids=ids)
def test_a_peers_network_has_as_many_weights_as_fettles(work: Work, tmp_path: Path) -> None:
    from bench.peers import network

    study = accepted(
        StudyDefinition.model_validate(definition(work, "some", 0, 1)), Settings(), families=BUILT_IN
    ).definition
    split = network.load(
        work, text.written(tmp_path) if work.family == "text-transformer" else recordings_of(work, tmp_path)
    )
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)).ask()
    model = network.compiled(work, split, suggested(trial.suggest_float, trial.suggest_categorical))
    made = architecture(BUILDERS[work.family], split.x.shape[1:], study.hyperparameters, int(split.y.max()) + 1)
    assert model.count_params() == made.parameter_count


@pytest.mark.slow
@pytest.mark.tensorflow
def test_a_peers_script_tells_its_figures_and_what_it_used() -> None:
    found = sides.peer(sys.executable, "plain_keras", WORK, 3, 0, "--in-flight", "2")
    assert (found["complete"], found["other"]) == (3, 0)
    assert found["rate"] == pytest.approx(60 * 3 / found["seconds"])
    assert 0.5 < found["best"] <= 1
    assert found["cpu_s"] > 0
    assert found["peak_mb"] > 100
    assert {"tensorflow", "keras", "optuna"} <= set(found["versions"])


def test_without_the_peers_environment_a_person_is_told_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="Make it with: make peers"):
        sides.peer(tmp_path / "python", "ray_tune_peer", WORK, 1, 0)


def test_a_script_that_fails_is_told_with_what_it_wrote() -> None:
    with pytest.raises(RuntimeError, match=r"No module named bench\.peers\.nobody"):
        sides.peer(sys.executable, "nobody", WORK, 1, 0)


def test_only_trials_with_all_their_epochs_count(capsys: pytest.CaptureFixture[str]) -> None:
    telling = Telling(WORK)
    telling.start()
    telling.trial(0.99, WORK.epochs - 1)
    telling.trial(0.90, WORK.epochs)
    assert telling.target_s is None
    telling.trial(0.98, WORK.epochs)
    telling.trial(0.97, WORK.epochs)
    telling.finish()
    start, stop = map(json.loads, capsys.readouterr().out.splitlines())
    assert start == {"clock": "start"}
    figures = stop["figures"]
    assert (figures["complete"], figures["other"], figures["best"]) == (3, 1, 0.98)
    assert 0 <= figures["target_s"] <= figures["seconds"]


# -- the peers' environment -------------------------------------------------------------------------------------------


def pins(name: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in (ROOT / "requirements" / f"{name}.txt").read_text().splitlines():
        requirement = Requirement(line)
        assert str(requirement.specifier).startswith("=="), f"not pinned: {line}"
        found.setdefault(requirement.name.lower(), set()).add(str(requirement.specifier))
    return found


def test_the_peers_run_with_our_versions_of_what_both_use() -> None:
    ours, theirs = pins("dev"), pins("bench-peers")
    assert {"tensorflow", "keras", "optuna", "numpy", "scikit-learn"} <= set(ours) & set(theirs)
    assert {name: theirs[name] for name in set(ours) & set(theirs)} == {
        name: ours[name] for name in set(ours) & set(theirs)
    }


def test_every_declared_peer_is_pinned_and_apart_from_fettles_own_requirements() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["bench-peers"]
    theirs = pins("bench-peers")
    for requirement in map(Requirement, declared):
        assert requirement.name in theirs
        assert all(requirement.specifier.contains(pin.removeprefix("==")) for pin in theirs[requirement.name])
    assert not {"ray", "keras-tuner"} & (set(pins("dev")) | set(pins("worker")) | set(pins("api")))


def imported(file: Path) -> set[str]:
    tree: Any = ast.parse(file.read_text())
    names = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    return names | {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


def test_the_peers_import_nothing_of_fettle_but_its_data() -> None:
    files = [*(ROOT / "bench" / "peers").glob("*.py"), ROOT / "bench" / "works.py"]
    assert len(files) >= 6
    ours = {name for file in files for name in imported(file) if name.split(".")[0] in {"app", "worker", "bench"}}
    assert {name for name in ours if not name.startswith("bench.peers.")} <= {
        "worker.training.shape_images",
        "bench.works",
    }


def test_no_parts_records_are_taken_for_anothers() -> None:
    rows: dict[str, str] = {}
    for part in PARTS:
        for task in part.tasks(Options(), Records(Path("nowhere.jsonl"))):
            for row in task.rows:
                assert rows.setdefault(row, part.name) == part.name
