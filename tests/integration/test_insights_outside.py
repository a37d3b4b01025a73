"""Studies at the ends of what may be searched, asked and told over HTTP: their insights and reports are answered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from app.tuning.figures import KINDS
from tests.integration.extremes import VALUES_OF_ALL_SIZES
from tests.integration.test_external import Outside, external
from tests.integration.test_insights_extremes import check_figure, refuse
from tests.integration.test_reports import Page

SPACES: dict[str, dict[str, Any]] = {
    "when-float-step": {
        "dropout": {"type": "float", "low": 0.1, "high": 0.5, "step": 0.1},
        "noise": {"type": "categorical", "choices": [1, 2], "when": {"dropout": [0.3]}},
    },
    "huge-range": {
        "x": {"type": "float", "low": 0.0, "high": 1e300},
        "y": {"type": "float", "low": 0.0, "high": 1.0},
    },
    "tiny-log": {
        "eps": {"type": "float", "low": 1e-320, "high": 1e-300, "log": True},
        "lr": {"type": "float", "low": 0.001, "high": 0.0010000000001, "log": True},
    },
    "big-integers": {"seed": 2**53 + 1, "k": {"type": "int", "low": -(2**53), "high": 2**53}},
    "int-log-wide": {"n": {"type": "int", "low": 1, "high": 2**53, "log": True}},
    "negative-zero": {
        "x": {"type": "categorical", "choices": [0.0, 1.0]},
        "y": {"type": "float", "low": -0.5, "high": 0.5, "step": 0.25},
    },
    "many": {f"x{i}": {"type": "float", "low": 0.0, "high": 1.0} for i in range(150)},
}


def answers(program: Outside) -> dict[str, Any]:
    """All insights of the program's study: importances by method, figures and the report's by kind."""
    found: dict[str, Any] = {}
    for method in ("fanova", "ped_anova"):
        found[method] = program.get(f"/importances?method={method}")
    for kind in KINDS:
        answer = program.client.get(f"{program.path}/plots/{kind}")
        assert answer.status_code in {200, 422}, answer.text
        if answer.status_code == 422:
            assert answer.json()["errors"][0]["loc"] == ["path", "kind"]
            continue
        found[kind] = json.loads(answer.text, parse_constant=refuse)
        check_figure(found[kind])
    report = program.client.get(f"{program.path}/report")
    assert report.status_code == 200, report.text
    found["report"] = Page(report.text)
    return found


def reason(figure: Mapping[str, Any]) -> str | None:
    text: str | None = figure["layout"]["meta"].get("reason")
    return text


def run(program: Outside, count: int, values: list[Any], **more: Any) -> None:
    """Train `count` trials that come to these values in turn."""
    for i in range(count):
        (trial,) = program.ask()
        program.tell(trial, values={"loss": values[i % len(values)], **more})


@pytest.mark.parametrize("name", SPACES)
def test_an_extreme_space_that_was_searched_has_insights(service: Any, name: str) -> None:
    definition = external(name=name, hyperparameters=SPACES[name], budget={"trials": 24}, sampler={"name": "random"})
    response = service.client.post("/v1/studies", json=definition)
    assert response.status_code == 201, response.text
    program = Outside(service.client, response.json())
    service.client.timeout = 90
    run(program, 24, [*VALUES_OF_ALL_SIZES, "Infinity", "NaN"])
    found = answers(program)
    complete = program.get()["progress"]["complete"]
    assert complete == 20
    assert found["fanova"]["items"], found["fanova"]["reason"]
    assert reason(found["history"]) is None
    assert len(found["history"]["data"][0]["x"]) == complete
    drawn = {"history", "importances", "parallel", "slice"}
    assert drawn <= set(found["report"].figures)


def test_one_point_told_again_and_again_is_explained_by_nothing(service: Any) -> None:
    flag = {"type": "categorical", "choices": [True, False]}
    space = {"x": {"type": "float", "low": -1.0, "high": 1.0}, "flag": flag}
    response = service.client.post("/v1/studies", json=external(hyperparameters=space))
    program = Outside(service.client, response.json())
    for _ in range(6):
        program.post("/trials", status=201, hyperparameters={"x": 0.25, "flag": True})
    for i in range(6):
        (trial,) = program.ask()
        program.tell(trial, values={"loss": float(i)})
    found = answers(program)
    assert "same hyperparameters" in found["fanova"]["reason"]
    assert found["fanova"]["items"] == []
    assert "same hyperparameters" in str(reason(found["importances"]))
    words = " ".join(found["report"].words)
    assert "same hyperparameters" in words
    assert {"history", "parallel", "slice"} <= set(found["report"].figures)
    assert "importances" not in found["report"].figures


def test_a_front_of_trials_that_break_a_constraint_is_empty_in_words(service: Any) -> None:
    definition = external(
        objectives=[{"metric": "a"}, {"metric": "b", "direction": "maximize"}],
        constraints=[{"metric": "c", "max": -1.0}],
        sampler={"name": "nsgaii", "options": {"population_size": 4}},
        budget={"trials": 24},
    )
    program = Outside(service.client, service.client.post("/v1/studies", json=definition).json())
    for i in range(24):
        (trial,) = program.ask()
        values = {"a": float(i), "b": "Infinity" if i == 5 else 1e308 / (i + 1), "c": "Infinity" if i == 7 else 0.0}
        program.tell(trial, values=values)
    found = answers(program)
    assert "the front is empty" in found["pareto"]["layout"]["meta"]["notes"][0]
    assert [trace["name"] for trace in found["pareto"]["data"]] == ["Infeasible Trial"]
    words = " ".join(found["report"].words)
    assert "No feasible trial has finished yet." in words
    assert "the front is empty" in words
