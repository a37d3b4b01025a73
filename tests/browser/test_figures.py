"""Figures in a real Chromium: what is extreme is drawn, what can't be says why, users' texts are shown as written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.store.engine import Database
from app.tuning.figures import KINDS
from app.tuning.labels import shortened
from tests.browser.test_report import DRAWN, browser  # noqa: F401 - a fixture
from tests.integration.conftest import serving
from tests.integration.extremes import CASES, MARKUP
from tests.integration.past import past

pytestmark = pytest.mark.browser

CHOSEN = ("names", "all-sizes", "tiny-log", "huge-range", "subnormal", "big-integers", "same-point", "conditional")
DRAW = """async (figure) => {
    const place = document.createElement("div");
    document.body.append(place);
    await Plotly.newPlot(place, figure.data, figure.layout);
    const texts = [...place.querySelectorAll("text")].map((text) => text.textContent);
    const marks = place.querySelectorAll(".point, .js-line, .contourlayer path, .hm image").length;
    const links = place.querySelectorAll("text a, text [style*=bold]").length;
    Plotly.purge(place);
    place.remove();
    return {texts, marks, links};
}"""


@pytest.mark.parametrize("name", CHOSEN)
def test_extreme_figures_are_drawn(
    browser: Any,  # noqa: F811
    sqlite_database: Database,
    tmp_path: Path,
    name: str,
) -> None:
    (case,) = [case for case in CASES if case.name == name]
    with serving(sqlite_database, tmp_path) as service:
        service.client.timeout = 90
        created = service.client.post("/v1/studies", json=case.definition()).json()
        past(sqlite_database, created["id"], case.trials)
        base = f"/v1/studies/{created['id']}"
        figures = {kind: service.client.get(f"{base}/plots/{kind}") for kind in KINDS if kind != "pareto"}
        report = service.client.get(f"{base}/report").text
    path = tmp_path / "report.html"
    path.write_text(report, encoding="utf-8")
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(path.as_uri())
    page.wait_for_function(DRAWN, timeout=60_000)
    assert page.eval_on_selector_all(".figure.broken", "places => places.length") == 0
    for kind, answer in figures.items():
        if answer.status_code == 422:
            continue
        figure = answer.json()
        found = page.evaluate(DRAW, figure)
        reason = figure["layout"]["meta"].get("reason")
        assert (found["marks"] > 0) == (reason is None), (kind, found)
        assert found["links"] == 0
        if name == "names" and kind == "slice":
            shown = next(text for text in found["texts"] if text.startswith("<b>x</b>"))
            assert shown == shortened(MARKUP)
    page.close()
    assert problems == []


def test_a_part_of_a_report_that_cannot_be_drawn_leaves_the_rest(
    browser: Any,  # noqa: F811
    sqlite_database: Database,
    tmp_path: Path,
) -> None:
    (case,) = [case for case in CASES if case.name == "same-point"]
    with serving(sqlite_database, tmp_path) as service:
        created = service.client.post("/v1/studies", json=case.definition()).json()
        past(sqlite_database, created["id"], case.trials)
        text = service.client.get(f"/v1/studies/{created['id']}/report", timeout=90).text
    # What a browser's own limits may do to one figure: here, one that is no figure.
    broken = text.replace('"layout":{"xaxis":{"tickvals"', '"layout":null,"was":{"xaxis":{"tickvals"')
    assert broken != text
    path = tmp_path / "report.html"
    path.write_text(broken, encoding="utf-8")
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    page.goto(path.as_uri())
    page.wait_for_function(DRAWN, timeout=60_000)
    assert "the same hyperparameters" in page.inner_text(".reason >> nth=0")
    assert "could not be drawn" in page.inner_text(".figure.broken")
    kinds = page.eval_on_selector_all(
        ".figure:not(.broken)",
        "places => places.map(p => [p.dataset.kind, p.querySelectorAll('.main-svg').length > 0])",
    )
    assert kinds == [["history", True], ["slice", True]]
    page.close()
