"""Our pages in a real Chromium: they need nothing but themselves, and run no script but their own."""

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


EVIL = "</p><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


@pytest.mark.smoke
def test_a_served_report_draws_under_its_policy_and_runs_nothing_of_a_user(
    browser: Any, sqlite_database: Database, tmp_path: Path
) -> None:
    with serving(sqlite_database, tmp_path) as service:
        study = bowl(service, description=EVIL, labels={"team": EVIL})
        page = browser.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        response = page.goto(f"{service.url}/v1/studies/{study['id']}/report")
        page.wait_for_function(DRAWN, timeout=60_000)
        policy = response.headers["content-security-policy"]
        drawn = page.eval_on_selector_all(".figure .main-svg", "found => found.length")
        title, text, told = page.title(), page.inner_text("header p"), list(problems)
        blocked = page.evaluate("""() => new Promise(resolve => {
            addEventListener('securitypolicyviolation', event => resolve(event.effectiveDirective));
            const script = document.createElement('script');
            script.textContent = "document.title = 'taken'";
            document.body.append(script);
        })""")
        origin = page.evaluate("origin")
        page.close()
    assert drawn > 4
    assert (told, text) == ([], EVIL)
    assert title.startswith(study["name"])
    assert (blocked, origin) == ("script-src-elem", "null")
    assert "script-src 'sha256-" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]


def test_the_documentation_is_a_page_that_needs_nothing_else(
    browser: Any, sqlite_database: Database, tmp_path: Path
) -> None:
    with serving(sqlite_database, tmp_path) as service:
        page = browser.new_page()
        problems: list[str] = []
        requests: list[str] = []
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{service.url}/docs")
        assert page.inner_text("h1").startswith("Fettle API")
        assert page.locator("article", has_text="/v1/studies/{study_id}/trials:ask").count() == 1
        assert page.evaluate("getComputedStyle(document.querySelector('.method')).fontWeight") == "700"
        page.close()
    assert problems == []
    assert {url.removeprefix(service.url) for url in requests} <= {"/docs", "/favicon.ico"}


def test_a_page_of_another_site_reaches_an_open_service_in_no_way(
    browser: Any, sqlite_database: Database, tmp_path: Path
) -> None:
    with serving(sqlite_database, tmp_path) as service:
        study = service.create()
        page = browser.new_page()
        page.route("http://evil.example/", lambda route: route.fulfill(content_type="text/html", body="<p>evil</p>"))
        page.goto("http://evil.example/")
        attempts = page.evaluate(
            """async (url) => {
                const tries = [
                    [`${url}:cancel`, {method: "POST", mode: "no-cors"}],
                    [`${url}:cancel`, {method: "POST"}],
                    [`${url}`, {}],
                    [`${url}`, {method: "DELETE"}],
                ];
                const form = new FormData();
                form.append("name", "evil");
                form.append("target", "y");
                form.append("file", new Blob(["x,y\\n1,0\\n2,1\\n"]), "a.csv");
                tries.push([new URL("/v1/datasets", url).href, {method: "POST", mode: "no-cors", body: form}]);
                const found = [];
                for (const [where, how] of tries) {
                    try { found.push((await fetch(where, how)).type); } catch (error) { found.push("refused"); }
                }
                return found;
            }""",
            f"{service.url}/v1/studies/{study['id']}",
        )
        page.close()
        assert attempts[1:4] == ["refused"] * 3
        assert "basic" not in attempts
        assert service.client.get(f"/v1/studies/{study['id']}").json()["state"] == "RUNNING"
        names = [d["name"] for d in service.client.get("/v1/datasets?limit=1000").json()["items"]]
        assert "evil" not in names
