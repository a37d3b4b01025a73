"""A report in a real Chromium: it draws its figures from the file alone, without an error or a request."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.store.engine import Database
from tests.integration.conftest import serving
from tests.integration.test_reports import bowl

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed")

NAMES = ("chromium", "chromium-browser", "google-chrome")
DRAWN = "document.documentElement.dataset.drawn > 0"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the path, and CHROMIUM names none")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def page_file(sqlite_database: Database, tmp_path: Path) -> Path:
    with serving(sqlite_database, tmp_path) as service:
        study = bowl(service, description="<b>bold</b>")
        text = service.client.get(f"/v1/studies/{study['id']}/report").text
    path = tmp_path / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_draws_all_figures_offline(browser: Any, page_file: Path, scheme: str) -> None:
    page = browser.new_page(color_scheme=scheme, viewport={"width": 1100, "height": 900})
    problems: list[str] = []
    requests: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: requests.append(request.url))
    page.goto(page_file.as_uri())
    page.wait_for_function(DRAWN, timeout=60_000)
    kinds = page.eval_on_selector_all(".figure", "places => places.map(place => place.dataset.kind)")
    assert kinds == ["history", "importances", "parallel", "slice", "intermediate"]
    drawn = page.eval_on_selector_all(
        ".figure", "places => places.map(place => place.querySelectorAll('.main-svg').length > 0)"
    )
    assert drawn == [True] * 5
    assert page.eval_on_selector_all(".figure .point", "points => points.length") > 40
    assert page.inner_text("header p") == "<b>bold</b>"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert (problems, requests) == ([], [page_file.as_uri()])
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(246, 247, 249)") == (scheme == "light")
    page.close()


def test_a_report_prints(browser: Any, page_file: Path, tmp_path: Path) -> None:
    page = browser.new_page()
    page.goto(page_file.as_uri())
    page.wait_for_function(DRAWN, timeout=60_000)
    pdf = page.pdf(path=tmp_path / "report.pdf", format="A4", print_background=True)
    assert pdf.startswith(b"%PDF-")
    assert len(pdf) > 20_000
    page.close()
