"""Importances and plots of studies whose answers are known."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from app.tuning import figures
from tests.integration.past import past

AXIS = {"type": "float", "low": -1.0, "high": 1.0}
TWO: dict[str, Any] = {
    "model": {"family": "mlp"},
    "dataset": {"name": "wine"},
    "hyperparameters": {name: {"type": "float", "low": 0.0, "high": 0.9} for name in ("momentum", "dropout", "l2")},
    "objectives": [{"metric": "val_loss"}, {"metric": "train_seconds", "direction": "maximize"}],
    "sampler": {"name": "random"},
}
"""A study of two objectives, whose trials are written here and never trained."""


def weighted(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Trials of 9·x0² + x1², with a curve that falls to it; x2 does nothing."""
    draws = random.Random(seed)
    trials = []
    for _ in range(count):
        x = {f"x{i}": draws.uniform(-1.0, 1.0) for i in range(3)}
        value = 9 * x["x0"] ** 2 + x["x1"] ** 2
        trials.append({"sampled": x, "values": [value], "curve": [value + 2, value + 1, value]})
    return trials


def get(service: Any, study: dict[str, Any], path: str, **params: Any) -> Any:
    response = service.client.get(f"/v1/studies/{study['id']}/{path}", params=params)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


@pytest.fixture
def bowl(service: Any) -> dict[str, Any]:
    """A study of three coordinates with 120 trials, two of which break a constraint, and some that failed."""
    study: dict[str, Any] = service.create(hyperparameters={f"x{i}": AXIS for i in range(3)}, budget={"trials": 9_000})
    trials = weighted(120)
    for broken in trials[10:12]:
        broken["violations"] = [1.0]
    failed = {"sampled": {"x0": 0.0, "x1": 0.0, "x2": 0.0}, "state": "FAIL", "reason": "EXCEPTION", "error": ("E", "e")}
    pruned = {"sampled": {"x0": 1.0, "x1": 1.0, "x2": 0.0}, "state": "PRUNED", "curve": [12.0]}
    past(service.database, study["id"], [*trials, failed, pruned])
    return study


@pytest.mark.parametrize("method", ["fanova", "ped_anova"])
def test_importances_rank_what_the_objective_depends_on(service: Any, bowl: dict[str, Any], method: str) -> None:
    found = get(service, bowl, "importances", method=method)
    shares = {item["hyperparameter"]: item["importance"] for item in found["items"]}
    assert next(iter(shares)) == "x0"
    assert shares["x0"] > 0.6 > shares["x1"]
    assert math.isclose(sum(shares.values()), 1.0, abs_tol=1e-6)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert (found["method"], found["metric"], found["trials"], found["reason"]) == (method, "value", 120, None)


def test_importances_of_a_maximized_objective_are_about_its_best(service: Any) -> None:
    study = service.create(**TWO)
    trials: list[dict[str, Any]] = []
    for trial in weighted(80):
        x = dict(zip(("momentum", "dropout", "l2"), (abs(v) * 0.9 for v in trial["sampled"].values()), strict=True))
        trials.append({"sampled": x, "values": [9 * x["momentum"] + x["dropout"], x["l2"]]})
    past(service.database, study["id"], trials)
    for method in ("fanova", "ped_anova"):
        first = get(service, study, "importances", method=method)
        second = get(service, study, "importances", method=method, metric="train_seconds")
        assert first["items"][0]["hyperparameter"] == "momentum"
        assert second["items"][0]["hyperparameter"] == "l2"
        assert second["items"][0]["importance"] > 0.7


@pytest.mark.parametrize("method", ["fanova", "ped_anova"])
def test_a_conditional_hyperparameter_has_an_importance(service: Any, method: str) -> None:
    space = {
        "x0": AXIS,
        "function": {"type": "categorical", "choices": ["sphere", "rastrigin"]},
        "x1": AXIS | {"when": {"function": ["sphere"]}},
    }
    study = service.create(hyperparameters=space)
    draws = random.Random(1)
    trials: list[dict[str, Any]] = []
    for _ in range(100):
        function, x0, x1 = draws.choice(["sphere", "rastrigin"]), draws.uniform(-1, 1), draws.uniform(-1, 1)
        sampled = {"x0": x0, "function": function} | ({"x1": x1} if function == "sphere" else {})
        trials.append({"sampled": sampled, "values": [0.1 * x0 + (5 * x1 if function == "sphere" else 0.0)]})
    past(service.database, study["id"], trials)
    found = {i["hyperparameter"]: i["importance"] for i in get(service, study, "importances", method=method)["items"]}
    assert set(found) == {"x0", "function", "x1"}
    assert max(found, key=lambda name: found[name]) == "x1"


def test_too_few_trials_are_told_in_words(service: Any) -> None:
    study = service.create()
    assert get(service, study, "importances") == {
        "items": [], "next_cursor": None, "method": "fanova", "metric": "value", "trials": 0,
        "reason": "Expected at least 4 COMPLETE trials for fanova. There are 0.",
    }  # fmt: skip
    past(service.database, study["id"], [{"sampled": {"x0": x}, "values": [1.0]} for x in (0.1, 0.2, 0.3, 0.4)])
    assert "same value" in get(service, study, "importances")["reason"]
    for kind in set(figures.KINDS) - {"pareto", "contour"}:
        assert get(service, study, f"plots/{kind}")["layout"]["meta"]["trials"] == 4


def test_answers_follow_the_trials_that_finish(service: Any, bowl: dict[str, Any]) -> None:
    before = get(service, bowl, "plots/history")
    assert get(service, bowl, "plots/history") == before
    past(service.database, bowl["id"], [{"sampled": {"x0": 0.0, "x1": 0.0, "x2": 0.0}, "values": [-1.0]}])
    after = get(service, bowl, "plots/history")
    assert after["layout"]["meta"]["trials"] == before["layout"]["meta"]["trials"] + 1
    assert trace(after, "best so far")["y"][-1] == -1.0


def trace(figure: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [t for t in figure["data"] if t.get("name") == name]
    return found


def test_the_history_shows_values_the_best_and_what_breaks_constraints(service: Any, bowl: dict[str, Any]) -> None:
    figure = get(service, bowl, "plots/history")
    values = [t["values"][0] for t in weighted(120)]
    assert trace(figure, "breaks a constraint")["x"] == [10, 11]
    points = trace(figure, "value")
    assert points["x"] == [i for i in range(120) if i not in (10, 11)]
    assert points["y"] == [values[i] for i in points["x"]]
    best = trace(figure, "best so far")["y"]
    assert best == [min(points["y"][: i + 1]) for i in range(len(points["y"]))]
    assert figure["layout"]["meta"] == {"kind": "history", "study": "sphere", "trials_shown": 120, "trials": 122}


def test_the_curves_of_all_trials_with_reports_are_shown(service: Any, bowl: dict[str, Any]) -> None:
    figure = get(service, bowl, "plots/intermediate")
    assert len(figure["data"]) == figures.MOST_CURVES
    assert figure["layout"]["meta"]["trials_shown"] == figures.MOST_CURVES
    assert "(100 of 121 trials)" in figure["layout"]["title"]["text"]
    best = min(range(120), key=lambda i: weighted(120)[i]["values"][0])
    (curve,) = [t for t in figure["data"] if t["name"] == f"Trial{best}"]
    assert list(curve["x"]) == [0, 1, 2]
    assert curve["y"] == weighted(120)[best]["curve"]


def test_axes_are_the_searched_hyperparameters_or_those_asked_for(service: Any, bowl: dict[str, Any]) -> None:
    line = get(service, bowl, "plots/parallel")["data"][0]
    assert [label for label, _ in line["customdata"]] == ["value", "x0", "x1", "x2"]
    figure = get(service, bowl, "plots/slice", hyperparameter=["x2", "x0"])
    titles = {axis["title"]["text"] for name, axis in figure["layout"].items() if name.startswith("xaxis")}
    assert titles == {"x0", "x2"}
    contour = get(service, bowl, "plots/contour", hyperparameter=["x0", "x1"])
    assert {t["type"] for t in contour["data"]} >= {"contour", "scatter"}


def test_a_log_hyperparameter_has_a_log_axis(service: Any) -> None:
    axis = {"type": "float", "low": 1e-4, "high": 1.0, "log": True}
    study = service.create(hyperparameters={"x0": axis, "x1": axis})
    trials = [{"sampled": {"x0": 10.0 ** (-i % 4), "x1": 0.01}, "values": [float(i)]} for i in range(1, 9)]
    past(
        service.database,
        study["id"],
        [t | {"sampled": {**t["sampled"], "x0": 10.0 ** -(i % 4)}} for i, t in enumerate(trials)],
    )
    figure = get(service, study, "plots/slice")
    assert {figure["layout"][name]["type"] for name in ("xaxis", "xaxis2")} == {"log"}


def test_the_distribution_and_the_timeline_hold_every_trial(service: Any, bowl: dict[str, Any]) -> None:
    (line,) = get(service, bowl, "plots/edf")["data"]
    assert line["name"] == "sphere"
    timeline = get(service, bowl, "plots/timeline")
    assert {t["name"] for t in timeline["data"]} >= {"COMPLETE", "FAIL", "PRUNED"}
    assert timeline["layout"]["meta"]["trials_shown"] == 122


def test_the_importances_figure_shows_the_importances(service: Any, bowl: dict[str, Any]) -> None:
    for method in ("fanova", "ped_anova"):
        items = get(service, bowl, "importances", method=method)["items"]
        (bars,) = get(service, bowl, "plots/importances", method=method)["data"]
        assert dict(zip(bars["y"], bars["x"], strict=True)) == {i["hyperparameter"]: i["importance"] for i in items}


def test_the_pareto_plot_shows_the_front(service: Any) -> None:
    study = service.create(**TWO)
    values = [[1.0, 1.0], [2.0, 3.0], [3.0, 2.0], [0.5, 0.5], [4.0, 9.0]]
    past(service.database, study["id"], [{"sampled": {"l2": 0.0}, "values": v} for v in values])
    figure = get(service, study, "plots/pareto")
    (front,) = [t for t in figure["data"] if "Best Trial" in t["hovertemplate"]]
    assert front["marker"]["color"] == figures.FRONT_COLOUR
    assert sorted(zip(front["x"], front["y"], strict=True)) == [(0.5, 0.5), (1.0, 1.0), (2.0, 3.0), (4.0, 9.0)]
    assert figure["layout"]["xaxis"]["title"]["text"] == "val_loss"


def test_a_large_study_is_thinned_and_its_best_line_is_exact(service: Any, bowl: dict[str, Any]) -> None:
    past(service.database, bowl["id"], weighted(4_000, seed=3))
    values = [*(t["values"][0] for t in weighted(120)), *(t["values"][0] for t in weighted(4_000, seed=3))]
    feasible = [v for i, v in enumerate(values) if i not in (10, 11)]
    for kind in ("history", "parallel", "slice", "timeline", "edf"):
        figure = get(service, bowl, f"plots/{kind}")
        shown = figure["layout"]["meta"]["trials_shown"]
        most = figures.MOST_LINES if kind == "parallel" else figures.MOST_POINTS
        assert most <= shown < most + 60
        assert "trials)" in figure["layout"]["title"]["text"]
    best = trace(get(service, bowl, "plots/history"), "best so far")["y"]
    assert best[-1] == min(feasible)
    assert sorted(set(best), reverse=True) == sorted(
        {min(feasible[: i + 1]) for i in range(len(feasible))}, reverse=True
    )
