"""Whatever was searched and told, importances, plots and the report answer: what can be said, else why not."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.tuning.answers import FAULT
from app.tuning.figures import KINDS
from app.tuning.importances import FEWEST_TRIALS
from tests.integration.conftest import RunningService
from tests.integration.extremes import CASES, Case
from tests.integration.past import past
from tests.integration.test_reports import Page

MOST_BYTES = 5_000_000
SHARED = {"all-sizes", "huge-range", "names", "no-front", "tiny-log"}
"""Cases that are tried on both databases: the others are the same to them."""


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def shared(request: pytest.FixtureRequest, tmp_path_factory: Any, serve_module: Any) -> Iterator[RunningService]:
    """One service for all cases: what computes stays warm."""
    folder: Path = tmp_path_factory.mktemp("extremes")
    with serve_module(request.param, folder) as running:
        yield running


def numbers(value: Any) -> Iterator[float]:
    """All numbers of a JSON value."""
    if isinstance(value, dict):
        for item in value.values():
            yield from numbers(item)
    elif isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def texts(value: Any) -> Iterator[str]:
    """All texts of a JSON value."""
    if isinstance(value, dict):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value


def refuse(token: str) -> None:
    raise AssertionError(f"not JSON: {token}")


def check_figure(figure: dict[str, Any]) -> None:
    """Whether plotly.js draws the figure as it was meant, whatever users wrote."""
    assert all(math.isfinite(number) for number in numbers(figure))
    drawable = [number for number in numbers(figure["data"]) if number != 0]
    assert all(abs(number) <= 1e300 or abs(number) >= 2**53 for number in drawable if isinstance(number, int))
    assert all(abs(number) <= 1e300 for number in drawable if isinstance(number, float))
    places: dict[str, list[float]] = {}
    for trace in figure["data"]:
        for name in ("x", "y", "z", "text"):
            assert name not in trace or isinstance(trace[name], list), (name, "base64")
        for letter in "xyz":
            axis = trace.get(f"{letter}axis", letter)
            places.setdefault(axis, []).extend(n for n in numbers(trace.get(letter, [])) if isinstance(n, float))
    for axis, shown in places.items():
        assert len(set(shown)) < 2 or max(shown) - min(shown) >= 1e-300, axis
    for trace in figure["data"]:
        sizes = {len(trace[name]) for name in ("x", "y", "text", "base") if isinstance(trace.get(name), list)}
        assert trace["type"] == "contour" or len(sizes) == 1
    words = [text for text in texts([figure["data"], figure["layout"] | {"meta": None}]) if "%{customdata" not in text]
    assert not any("<b>" in text or "<a " in text or "%{meta" in text or "$" in text for text in words)


def is_drawn(figure: dict[str, Any]) -> bool:
    return any(any(v is not None for v in trace.get("x", [])) for trace in figure["data"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_part_is_answered(shared: RunningService, case: Case, caplog: pytest.LogCaptureFixture) -> None:
    if not shared.database.is_sqlite and case.name not in SHARED:
        pytest.skip("the same to every database")
    created = shared.client.post("/v1/studies", json=case.definition())
    if created.status_code == 422 and case.name == "one-and-true":
        pytest.skip("refused in words: true and 1 are one to Optuna")
    assert created.status_code == 201, created.text
    past(shared.database, created.json()["id"], case.trials)
    base = f"/v1/studies/{created.json()['id']}"
    several, searched = len(case.objectives) > 1, sum(isinstance(p, dict) for p in case.space.values())
    unfit = set() if several else {"pareto"}
    unfit |= {"contour"} if searched < 2 else set()
    unfit |= {"slice", "parallel"} if searched < 1 else set()
    for kind in KINDS:
        answer = shared.client.get(f"{base}/plots/{kind}", timeout=90)
        assert answer.status_code == (422 if kind in unfit else 200), (kind, answer.text)
        if kind in unfit:
            continue
        assert len(answer.content) < MOST_BYTES
        figure = json.loads(answer.text, parse_constant=refuse)
        check_figure(figure)
        reason = figure["layout"]["meta"].get("reason")
        assert is_drawn(figure) != (reason is not None), (kind, reason)
        assert kind not in case.drawn or reason is None, (kind, reason)
        assert reason != FAULT
    for method in FEWEST_TRIALS:
        found = shared.client.get(f"{base}/importances", params={"method": method}, timeout=90)
        assert found.status_code == 200, found.text
        items, reason = found.json()["items"], found.json()["reason"]
        assert bool(items) == (reason is None)
        assert reason != FAULT
        assert not items or math.isclose(sum(item["importance"] for item in items), 1.0, abs_tol=1e-5)
    report = shared.client.get(f"{base}/report", timeout=90)
    assert report.status_code == 200, report.text
    for figure in Page(report.text).figures.values():
        check_figure(figure)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
