"""Whatever is searched and told, however extreme: insights are answered with what can be said, or why not."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.store.engine import Database
from app.tuning.answers import FAULT
from app.tuning.figures import KINDS
from tests.integration.conftest import RunningService, serving
from tests.integration.past import past
from tests.integration.test_insights_extremes import check_figure, refuse
from tests.integration.test_reports import Page
from tests.support.effort import searching

FINITE = st.floats(allow_nan=False, allow_infinity=False)
BIG = 2**53


@st.composite
def floats(draw: st.DrawFn) -> tuple[dict[str, Any], st.SearchStrategy[Any]]:
    """A range of numbers, and what may come out of it."""
    low, high = sorted(draw(st.lists(FINITE, min_size=2, max_size=2, unique=True)))
    if not math.isfinite(high - low):
        low, high = low / 4, high / 4
    log = low > 0 and draw(st.booleans())
    return {"type": "float", "low": low, "high": high, "log": log}, st.floats(low, high)


@st.composite
def integers(draw: st.DrawFn) -> tuple[dict[str, Any], st.SearchStrategy[Any]]:
    low, high = sorted(draw(st.lists(st.integers(-BIG, BIG), min_size=2, max_size=2, unique=True)))
    return {"type": "int", "low": low, "high": high, "log": low > 0 and draw(st.booleans())}, st.integers(low, high)


@st.composite
def choices(draw: st.DrawFn) -> tuple[dict[str, Any], st.SearchStrategy[Any]]:
    texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
    value = st.one_of(FINITE, st.integers(-BIG, BIG), texts)
    some = draw(st.lists(value, min_size=1, max_size=5, unique=True))
    return {"type": "categorical", "choices": some, "ordered": draw(st.booleans())}, st.sampled_from(some)


@st.composite
def pasts(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A definition, and trials that it may have had."""
    space = [draw(st.one_of(floats(), integers(), choices())) for _ in range(draw(st.integers(1, 4)))]
    objectives = [{"metric": f"m{i}", "direction": draw(st.sampled_from(["minimize", "maximize"]))} for i in range(2)]
    objectives = objectives[: draw(st.integers(1, 2))]
    point = st.fixed_dictionaries({f"x{i}": drawn for i, (_, drawn) in enumerate(space)})
    told = st.fixed_dictionaries(
        {"sampled": point, "values": st.lists(FINITE, min_size=len(objectives), max_size=len(objectives))},
        optional={"violations": st.lists(FINITE, min_size=1, max_size=1), "curve": st.lists(FINITE, max_size=4)},
    )
    definition = {
        "model": {"family": "external"},
        "hyperparameters": {f"x{i}": parameter for i, (parameter, _) in enumerate(space)},
        "objectives": objectives,
        "budget": {"trials": 1000},
    }
    some = draw(st.lists(told, max_size=8))
    return definition, some * draw(st.sampled_from([1, 1, 5]))


@pytest.fixture
def shared(sqlite_database: Database, tmp_path: Path) -> Iterator[RunningService]:
    """One service for all examples: what computes stays warm."""
    with serving(sqlite_database, tmp_path) as running:
        running.client.timeout = 120
        yield running


@given(pasts())
@searching(15)
@pytest.mark.slow
def test_insights_of_anything_are_answered(
    shared: RunningService, given_past: tuple[dict[str, Any], list[dict[str, Any]]]
) -> None:
    definition, trials = given_past
    created = shared.client.post("/v1/studies", json=definition | {"name": f"fuzz-{uuid.uuid4().hex}"})
    assert created.status_code in {201, 422}, created.text
    if created.status_code == 422:
        return
    past(shared.database, created.json()["id"], trials)
    base = f"/v1/studies/{created.json()['id']}"
    for kind in KINDS:
        answer = shared.client.get(f"{base}/plots/{kind}")
        assert answer.status_code in {200, 422}, (kind, answer.text)
        if answer.status_code == 200:
            figure = json.loads(answer.text, parse_constant=refuse)
            check_figure(figure)
            assert figure["layout"]["meta"].get("reason") != FAULT, kind
    for method in ("fanova", "ped_anova"):
        found = shared.client.get(f"{base}/importances", params={"method": method})
        assert found.status_code == 200, found.text
        assert found.json()["reason"] != FAULT
    report = shared.client.get(f"{base}/report")
    assert report.status_code == 200, report.text
    assert FAULT not in report.text
    for figure in Page(report.text).figures.values():
        check_figure(figure)
