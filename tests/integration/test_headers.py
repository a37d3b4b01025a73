"""What answers tell browsers, and which browsers, hosts and pages are answered at all."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.api import datasets, export, insights, report, results, studies
from app.api.docs_page import POLICY as DOCS_POLICY
from app.api.gate import HEAVY
from app.api.headers import ALWAYS, API_POLICY
from app.settings import Settings
from app.store.engine import Database
from tests.integration.conftest import RunningService, serving
from tests.integration.past import past
from tests.integration.wire import connected, head, read_answer

EVIL = '=HYPERLINK("http://evil.example")'
APP = "https://app.example.org"


@pytest.fixture
def local(sqlite_database: Database, tmp_path: Path) -> Iterator[RunningService]:
    with serving(sqlite_database, tmp_path) as running:
        yield running


@pytest.fixture
def shared(sqlite_database: Database, tmp_path: Path) -> Iterator[RunningService]:
    with serving(sqlite_database, tmp_path, cors_origins=f"{APP}, http://localhost:3000") as running:
        yield running


# -- on every answer --------------------------------------------------------------------------------------------------


def test_every_answer_has_the_safe_headers(local: RunningService, study: Any) -> None:
    created = local.create()
    base = f"/v1/studies/{created['id']}"
    answers = [
        local.client.get("/healthz"),
        local.client.get("/metrics"),
        local.client.get("/openapi.json"),
        local.client.get(base),
        local.client.get(f"{base}/export"),
        local.client.get(f"{base}/events?follow=false"),
        local.client.get(f"{base}/report"),
        local.client.get("/docs"),
        local.client.get("/nowhere"),
        local.client.put(base),
        local.client.post("/v1/studies", content=b"{"),
        local.client.post("/v1/studies", content=b"x" * 2_000_000, headers={"Content-Type": "application/json"}),
        local.client.delete(base),
        local.client.options(base),
    ]
    assert {a.status_code for a in answers} == {200, 404, 405, 409, 413, 415}
    for answer in answers:
        for name, value in ALWAYS.items():
            assert answer.headers[name] == value, (answer.url, name)
            assert len(answer.headers.get_list(name)) == 1
        assert answer.headers["content-security-policy"].startswith("default-src 'none'"), answer.url
        assert "server" not in answer.headers
    assert answers[3].headers["content-security-policy"] == API_POLICY
    assert answers[3].headers["cache-control"] == "no-store"
    assert answers[5].headers["cache-control"] == "no-cache"


def test_an_answer_to_what_is_no_request_has_them_too(local: RunningService) -> None:
    with connected(local.url) as wire:
        wire.sendall(b"nonsense\r\n\r\n")
        answer = read_answer(wire)
    assert answer.status == 400
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_an_error_of_the_service_has_them_too(local: RunningService, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("app.api.studies.studies.list_studies", fail)
    answer = local.client.get("/v1/studies")
    assert (answer.status_code, answer.json()["code"]) == (500, "INTERNAL")
    assert "a bug" not in answer.text
    for name, value in ALWAYS.items():
        assert answer.headers[name] == value


def test_pages_run_their_own_scripts_alone(local: RunningService) -> None:
    created = local.create()
    docs, report = local.client.get("/docs"), local.client.get(f"/v1/studies/{created['id']}/report")
    assert docs.headers["content-security-policy"] == DOCS_POLICY
    assert "<script" not in docs.text
    policy = report.headers["content-security-policy"]
    directives = dict(part.strip().partition(" ")[::2] for part in policy.split(";"))
    assert re.fullmatch(r"('sha256-[A-Za-z0-9+/=]+' ?){2}", directives["script-src"])
    assert directives["default-src"] == "'none'"
    assert "allow-same-origin" not in directives["sandbox"]
    assert "allow-scripts" in directives["sandbox"]
    for page in (docs, report):
        assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", page.text.partition("<script>")[0])


def test_what_users_wrote_is_told_as_text_or_as_a_file(local: RunningService) -> None:
    created = local.create(description="<script>alert(1)</script>")
    base = f"/v1/studies/{created['id']}"
    past(local.database, created["id"], [{"sampled": {"x0": 1.0}, "values": [1.0]}])
    logs = local.client.get(f"{base}/trials/0/logs")
    assert logs.headers["content-type"].startswith("text/plain")
    export = local.client.get(f"{base}/export")
    assert export.headers["content-disposition"].startswith("attachment;")
    for answer in (logs, export, local.client.get(base)):
        assert "sandbox" in answer.headers["content-security-policy"]
        assert "html" not in answer.headers["content-type"]


def test_a_cell_that_begins_like_a_formula_is_a_text_for_spreadsheets(local: RunningService) -> None:
    choices = [EVIL, "+1", "-1", "@x", "\tx", "plain", "Infinity"]
    created = local.create(
        model={"family": "external"},
        objectives=[{"metric": "loss"}],
        hyperparameters={"word": {"type": "categorical", "choices": choices}},
    )
    failed = {"state": "FAIL", "reason": "EXCEPTION", "error": ("=cmd", "-oops")}
    trials = [{"sampled": {"word": word}, "values": [-1.5]} for word in choices]
    past(local.database, created["id"], [*trials, {"sampled": {"word": "plain"}, **failed}])
    text = local.client.get(f"/v1/studies/{created['id']}/export?format=csv").text
    rows = list(csv.DictReader(io.StringIO(text)))
    words = [row["hyperparameters.word"] for row in rows]
    assert words == [f"'{EVIL}", "'+1", "'-1", "'@x", "'\tx", "plain", "Infinity", "plain"]
    assert [row["values.loss"] for row in rows[:7]] == ["-1.5"] * 7
    assert rows[-1]["error"] == "'=cmd: -oops"
    exact = local.client.get(f"/v1/studies/{created['id']}/export?format=json").json()["items"]
    assert [trial["hyperparameters"]["word"] for trial in exact[:7]] == choices


# -- hosts and pages --------------------------------------------------------------------------------------------------


def status(service: RunningService, host: str, method: str = "GET", path: str = "/v1/studies", **headers: str) -> int:
    with connected(service.url) as wire:
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        wire.sendall(head(method, path, *lines, host=host))
        return read_answer(wire).status


def test_an_open_service_answers_to_no_name_that_a_stranger_can_point_here(local: RunningService) -> None:
    for host in ("127.0.0.1", "127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000", "192.168.1.7", "api:80"):
        assert status(local, host) == 200, host
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", ""):
        assert status(local, host) == 421, host
    assert status(local, "evil.example", path="/healthz") == 200
    answer = local.client.get("/v1/studies", headers={"Host": "evil.example"})
    assert answer.json()["code"] == "MISDIRECTED_REQUEST"


def test_names_that_the_operator_lists_are_answered_to(sqlite_database: Database, tmp_path: Path) -> None:
    with serving(sqlite_database, tmp_path, allowed_hosts="tune.example.org, Other.example.org") as service:
        for host in ("tune.example.org", "TUNE.example.org:443", "other.example.org.", "127.0.0.1"):
            assert status(service, host) == 200, host
        assert status(service, "evil.example") == 421


def test_an_open_service_takes_nothing_that_another_sites_page_sends(local: RunningService) -> None:
    own = local.url.removeprefix("http://")
    cancel = f"/v1/studies/{local.create()['id']}:cancel"
    cases = [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": f"http://{own}", "Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Origin": f"http://{own}"}, 200),
        ({"Origin": f"http://{own}", "Sec_Fetch_Site": "same-origin"}, 200),
        ({"Sec_Fetch_Site": "none"}, 200),
        ({}, 200),
    ]
    for headers, expected in cases:
        assert status(local, own, "POST", cancel, Content_Length="0", **headers) == expected, headers
    assert status(local, own, Origin="http://evil.example") == 200  # but the page can't read it: no CORS headers


def test_without_origins_no_page_may_read_anything(local: RunningService) -> None:
    for answer in (
        local.client.get("/v1/studies", headers={"Origin": APP}),
        local.client.options("/v1/studies", headers={"Origin": APP, "Access-Control-Request-Method": "POST"}),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_listed_origin_may_call_and_read_what_it_needs(shared: RunningService, study: Any) -> None:
    asked = {
        "Origin": APP,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, idempotency-key, if-match, last-event-id",
    }
    preflight = shared.client.options("/v1/studies", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == APP
    assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
    answer = shared.client.post("/v1/studies", json=study(), headers={"Origin": APP, "Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 201
    assert answer.headers["access-control-allow-origin"] == APP
    assert {"ETag", "Location", "Retry-After"} <= set(
        answer.headers["access-control-expose-headers"].replace(" ", "").split(",")
    )
    assert "access-control-allow-credentials" not in answer.headers
    assert "Origin" in answer.headers["vary"]
    refused = shared.client.get("/v1/studies/none", headers={"Origin": APP})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (404, APP)


def test_an_origin_that_is_not_listed_gets_no_leave(shared: RunningService) -> None:
    for origin in (
        "https://evil.example", "https://app.example.org.evil.example", "http://app.example.org", "null",
        "https://app.example.org:8443", "https://xapp.example.org",
    ):  # fmt: skip
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        assert "access-control-allow-origin" not in shared.client.options("/v1/studies", headers=asked).headers
        assert "access-control-allow-origin" not in shared.client.get("/v1/studies", headers={"Origin": origin}).headers
        assert shared.client.post("/v1/studies", json={}, headers={"Origin": origin}).status_code == 403


@pytest.mark.parametrize(
    "origins", ["*", "https://*.example.org", "example.org", "https://a.b/path", "null", "file://"]
)
def test_origins_that_would_let_in_anybody_are_refused_settings(origins: str) -> None:
    with pytest.raises(ValidationError, match="origins"):
        Settings(cors_origins=origins)


@pytest.mark.parametrize("proxies", ["*", "proxy.example.org", "10.0.0.0/99"])
def test_proxies_that_are_no_addresses_are_refused_settings(proxies: str) -> None:
    with pytest.raises(ValidationError, match="addresses or networks"):
        Settings(trusted_proxies=proxies)


def test_every_call_that_is_counted_as_heavy_is_one_of_the_api() -> None:
    parts = (studies, datasets, insights, export, report, results)
    routes = {(m, getattr(r, "path", "")) for p in parts for r in p.router.routes for m in getattr(r, "methods", ())}
    assert routes >= HEAVY
