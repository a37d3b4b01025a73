"""What importances, plots and reports may cost: memory and bytes are bounded, whatever a study is like."""

from __future__ import annotations

import json
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from app.kept import Kept
from app.store.engine import Database
from app.tuning import figures
from app.tuning.answers import answer
from app.tuning.questions import Answer, Question, Wanted
from app.tuning.snapshot import TRIAL_BYTES, VALUE_BYTES, Snapshot, Snapshots
from tests.integration.conftest import serving
from tests.integration.past import past

AXIS = {"type": "float", "low": 0.0, "high": 1.0}
MOST_BYTES = 3_000_000
"""Of the largest answer there is."""
MOST_MEMORY = 60_000_000
"""That is taken for an answer beside what libraries take when they are loaded."""


def improving(count: int, axes: int, **more: Any) -> list[dict[str, Any]]:
    """Trials each of which is better than all before it: each is a step of the line of the best."""
    points = [{f"x{k}": (i * (k + 1) * 0.618) % 1.0 for k in range(axes)} for i in range(count)]
    return [{"sampled": point, "values": [float(-i)], **more} for i, point in enumerate(points)]


def snapshot_of(
    database: Database, folder: Path, space: dict[str, Any], trials: Sequence[Any], **changes: Any
) -> Snapshot:
    """A study of an outside program with these trials."""
    definition = {
        "name": "hostile",
        "model": {"family": "external"},
        "hyperparameters": space,
        "objectives": [{"metric": "loss"}],
        "budget": {"trials": 100_000},
    }
    with serving(database, folder) as service:
        created = service.client.post("/v1/studies", json=definition | changes)
        assert created.status_code == 201, created.text
        past(database, created.json()["id"], trials)
    return Snapshots(database).take(1)


def cost(snapshot: Snapshot, question: Question) -> tuple[int, int]:
    """The bytes of an answer, and the most memory that was taken for it."""
    answer(snapshot, question)  # libraries are loaded
    tracemalloc.start()
    found = answer(snapshot, question)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.reason, found.fault) == (None, None)
    return len(found.text.encode()), most


def test_figures_of_steadily_improving_trials_are_bounded(sqlite_database: Database, tmp_path: Path) -> None:
    space = {f"x{k}": AXIS for k in range(24)}
    snapshot = snapshot_of(sqlite_database, tmp_path, space, improving(2_000, 24, curve=[1.0, 0.5]))
    axes = {"contour": 6, "parallel": 24, "slice": 24}
    for kind in set(figures.KINDS) - {"pareto"}:
        chosen = tuple(f"x{k}" for k in range(axes.get(kind, 0)))
        size, memory = cost(snapshot, Question(kind, Wanted(hyperparameters=chosen)))
        print(f"{kind}: {size:,} bytes, {memory:,} bytes of memory")
        assert size < MOST_BYTES, kind
        assert memory < MOST_MEMORY, kind


def test_a_contour_plot_keeps_the_best_of_many_steps(sqlite_database: Database, tmp_path: Path) -> None:
    trials = improving(2_000, 2)
    snapshot = snapshot_of(sqlite_database, tmp_path, {"x0": AXIS, "x1": AXIS}, trials)
    figure = json.loads(answer(snapshot, Question("contour")).text)
    (points,) = [trace for trace in figure["data"] if trace["type"] == "scatter"]
    (grid,) = [trace for trace in figure["data"] if trace["type"] == "contour"]
    assert figures.MOST_CONTOUR_POINTS <= len(points["x"]) <= 2 * figures.MOST_CONTOUR_POINTS
    best = trials[-1]["sampled"]
    assert (best["x0"], best["x1"]) in set(zip(points["x"], points["y"], strict=True))
    assert min(z for row in grid["z"] for z in row if z is not None) == trials[-1]["values"][0]
    assert len(grid["x"]) * len(grid["y"]) <= figures.MOST_CELLS**2


def test_a_front_of_all_trials_is_bounded(sqlite_database: Database, tmp_path: Path) -> None:
    trials = [{"sampled": {"x": 0.5}, "values": [float(i), float(-i), (i * 0.618) % 1]} for i in range(7_000)]
    objectives = [{"metric": name} for name in ("a", "b", "c")]
    snapshot = snapshot_of(sqlite_database, tmp_path, {"x": AXIS}, trials, objectives=objectives)
    size, memory = cost(snapshot, Question("pareto"))
    assert size < MOST_BYTES
    assert memory < MOST_MEMORY
    figure = json.loads(answer(snapshot, Question("pareto")).text)
    assert figure["layout"]["meta"]["trials_shown"] <= figures.MOST_POINTS
    assert "evenly over the study" in figure["layout"]["meta"]["notes"][0]


def test_long_choices_are_named_once_and_short(sqlite_database: Database, tmp_path: Path) -> None:
    choices = [f"{i:03}" + "<b>" * 80 for i in range(150)]
    space = {f"c{k}": {"type": "categorical", "choices": choices} for k in range(8)}
    trials = [{"sampled": {f"c{k}": choices[i * k % 150] for k in range(8)}, "values": [float(i)]} for i in range(900)]
    snapshot = snapshot_of(sqlite_database, tmp_path, space, trials)
    for kind in ("slice", "parallel", "contour"):
        size, memory = cost(snapshot, Question(kind))
        assert size < MOST_BYTES
        assert memory < MOST_MEMORY


@pytest.mark.thorough
def test_long_curves_are_thinned_while_they_are_read(sqlite_database: Database, tmp_path: Path) -> None:
    curve = [float(epoch % 7) for epoch in range(10_000)]
    snapshot = snapshot_of(sqlite_database, tmp_path, {"x0": AXIS}, improving(120, 1, curve=curve))
    size, memory = cost(snapshot, Question("intermediate"))
    assert size < MOST_BYTES
    assert memory < MOST_MEMORY
    figure = json.loads(answer(snapshot, Question("intermediate")).text)
    assert {len(trace["x"]) for trace in figure["data"]} == {figures.MOST_CURVE_POINTS}
    assert all((trace["x"][0], trace["x"][-1]) == (0, 9_999) for trace in figure["data"])


@pytest.mark.thorough
def test_importances_of_hundreds_of_hyperparameters_look_at_fewer_trials(
    sqlite_database: Database, tmp_path: Path
) -> None:
    numbers = {f"x{k}": AXIS for k in range(150)}
    choices = {f"c{k}": {"type": "categorical", "choices": list(range(300))} for k in range(50)}
    points = improving(3_000, 150)
    for i, trial in enumerate(points):
        trial["sampled"] |= {f"c{k}": (i * k) % 300 for k in range(50)}
    snapshot = snapshot_of(sqlite_database, tmp_path, numbers | choices, points)
    question = Question(None, Wanted(method="ped_anova"))
    _, memory = cost(snapshot, question)
    assert memory < MOST_MEMORY
    found = json.loads(answer(snapshot, question).text)
    assert (found["trials"], len(found["items"])) == (1_000, 200)
    assert "ask for method=ped_anova" in str(answer(snapshot, Question(None)).reason)


def test_outlines_of_finished_trials_are_kept_up_to_a_number_of_bytes(
    sqlite_database: Database, tmp_path: Path
) -> None:
    each = TRIAL_BYTES + VALUE_BYTES
    snapshots = Snapshots(sqlite_database, kept_bytes=1_000 * each)
    with serving(sqlite_database, tmp_path) as service:
        for i, count in enumerate((400, 500, 600, 1_100), start=1):
            study = service.create(name=f"s{i}", budget={"trials": 9_000})
            past(sqlite_database, study["id"], [{"sampled": {"x0": 0.5}, "values": [1.0]}] * count)
            assert len(snapshots.take(i).trials) == count
            assert snapshots.kept_bytes == {1: 400, 2: 900, 3: 600, 4: 0}[i] * each


def test_answers_are_kept_up_to_a_number_of_bytes() -> None:
    kept: Kept[Answer] = Kept(100_000)

    def keep(number: int, text: str) -> None:
        kept.put((1, number, Question("history")), Answer(text), sys.getsizeof(text))

    for i in range(100):
        keep(i, "x" * 5_000)
        assert kept.bytes <= 100_000
    assert kept.get((1, 99, Question("history"))) is not None
    assert kept.get((1, 0, Question("history"))) is None
    for i in range(80, 100):
        keep(i, "y" * 200_000)
    assert (kept.bytes, kept.get((1, 99, Question("history")))) == (0, None)
