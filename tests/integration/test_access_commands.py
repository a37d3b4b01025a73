"""`fettle keys`, `projects` and `audit`: on a database before there is a key, and over HTTP with one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.api import keyring
from app.cli import app
from app.client import FettleClient, FettleProblem
from app.domain.access import Scope
from tests.integration.access import Locked, locked
from tests.integration.commands import START_S, clean_environment
from tests.integration.conftest import RunningService, function_study
from tests.support.processes import wait_for

Run = Callable[..., Result]


@pytest.fixture
def guarded(service: RunningService) -> Locked:
    return locked(service)


@pytest.fixture
def over_http(guarded: Locked, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs commands with the key of all projects, as a person with it in the environment does."""
    monkeypatch.setenv("FETTLE_URL", guarded.service.url)
    monkeypatch.setenv("FETTLE_API_KEY", guarded.root.text)
    return lambda *arguments: CliRunner().invoke(app, arguments)


@pytest.fixture
def on_database(guarded: Locked, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs commands on the database, as its operator does; the key in the environment is not used then."""
    url = guarded.service.database.url.render_as_string(hide_password=False)
    monkeypatch.setenv("FETTLE_DATA_DIR", str(guarded.service.settings.data_dir))
    monkeypatch.setenv("FETTLE_API_KEY", "fettle_unused")
    return lambda *arguments: CliRunner().invoke(app, [*arguments, "--database-url", url])


def done(ran: Result) -> Any:
    """What a command with --json printed, once it is sure that it ended well."""
    assert ran.exit_code == 0, (ran.output, ran.exception)
    return json.loads(ran.stdout)


@pytest.mark.parametrize("where", ["over_http", "on_database"])
def test_the_life_of_a_key_by_commands(
    guarded: Locked, where: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "FRESH_S", 0.5)
    run: Run = request.getfixturevalue(where)
    made = done(run("keys", "create", "ci", "--scope", "read", "--expires", "90d", "--json"))
    client = guarded.service.client

    def works(key: str) -> bool:
        return client.get("/v1/studies", headers={"Authorization": f"Bearer {key}"}).status_code == 200

    assert works(made["key"])
    assert made["expires_at"] is not None
    listed = done(run("keys", "list", "--json"))["items"]
    assert made["id"] in {key["id"] for key in listed}
    assert "key" not in listed[0]
    again = done(run("keys", "rotate", made["id"], "--grace", "1h", "--json"))
    wait_for(lambda: works(again["key"]), 20, "the new secret known")
    assert works(made["key"])
    assert run("keys", "revoke", made["id"]).exit_code == 0
    wait_for(lambda: not works(again["key"]), 20, "the key refused")
    audited = done(run("audit", "--subject", made["id"], "--json"))["items"]
    assert [entry["action"] for entry in audited] == ["key.revoke", "key.rotate", "key.create"]
    actor = "root" if where == "over_http" else "local"
    assert {entry["actor"] for entry in audited} == {actor}
    for table in (("keys", "list"), ("audit",), ("projects", "list")):
        shown = run(*table)
        assert (shown.exit_code, made["key"] in shown.output) == (0, False)


@pytest.mark.parametrize("where", ["over_http", "on_database"])
def test_the_life_of_a_project_by_commands(guarded: Locked, where: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(where)
    made = done(run("projects", "create", "vision", "--max-studies", "1", "--json"))
    assert (made["name"], made["max_studies"]) == ("vision", 1)
    key = done(run("keys", "create", "v", "--project", "vision", "--json"))
    headers = {"Authorization": f"Bearer {key['key']}"}
    answers = [
        guarded.service.client.post("/v1/studies", json=function_study(name=f"s{i}"), headers=headers) for i in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 409]
    changed = done(run("projects", "change", "vision", "--max-studies", "none", "--max-stored-bytes", "5", "--json"))
    assert (changed["max_studies"], changed["max_stored_bytes"], changed["usage"]["studies"]) == (None, 5, 1)
    refused = run("projects", "delete", "vision")
    assert refused.exit_code != 0
    assert "1 studies" in str(refused.exception)


def test_only_a_command_on_the_database_makes_keys_of_all_projects(over_http: Run, guarded: Locked) -> None:
    refused = over_http("keys", "create", "power", "--scope", "admin", "--all-projects")
    assert (refused.exit_code, "--data-dir" in refused.output) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("create", "a", "--scope", "everything"), "read, submit, work or admin"),
        (("create", "a", "--expires", "soon"), "90d"),
        (("create", "a b"), "letters"),
        (("create", "a", "--all-projects"), "admin"),
        (("rotate", "key_x", "--grace", "-1"), "30m"),
    ],
)
def test_wrong_usage_is_told_in_words(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["keys", *arguments, "--data-dir", str(tmp_path)])
    assert ran.exit_code == 2
    assert words in ran.output
    assert not (tmp_path / "fettle.db").exists()


def test_the_client_manages_keys_and_projects(guarded: Locked) -> None:
    with FettleClient(guarded.service.url, guarded.root.text) as client:
        project = client.create_project("vision", max_running_trials=2)
        assert project.max_running_trials == 2
        made = client.create_key("v", ["read", "submit"], project="vision", expires_in_seconds=60)
        with FettleClient(guarded.service.url, made.key) as other:
            study = other.create_study(function_study())
            assert (study.project, study.created_by) == ("vision", "v")
            with pytest.raises(FettleProblem, match="FORBIDDEN"):
                next(other.api_keys())
        assert [key.id for key in client.api_keys(project="vision")] == [made.id]
        rotated = client.rotate_key(made.id, grace_seconds=5)
        assert rotated.key != made.key
        assert client.key(made.id).rotated_until is not None
        assert client.update_project("vision", {"max_running_trials": None}).max_running_trials is None
        assert {p.name for p in client.projects()} == {"default", "elsewhere", "vision"}
        assert client.project("vision").usage.studies == 1
        client.revoke_key(made.id)
        with pytest.raises(FettleProblem, match="1 studies"):
            client.delete_project("vision")
        entries = client.audit(project="vision", key=guarded.root.id)
        assert [e.action for e in entries][:3] == ["key.revoke", "project.change", "key.rotate"]
    with FettleClient(guarded.service.url) as nobody:
        assert nobody.ready()
        with pytest.raises(FettleProblem, match="UNAUTHENTICATED"):
            next(nobody.studies())
    with FettleClient(guarded.service.url, guarded.by_scope[Scope.READ].text) as reader:
        assert list(reader.studies()) == []


def test_a_service_that_others_reach_starts_once_it_has_a_key(tmp_path: Path) -> None:
    def fettle(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "app", *arguments, "--data-dir", str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, env=clean_environment(), timeout=120)

    serve = ("up", "--host", "0.0.0.0", "--port", "0", "--workers", "0")
    refused = fettle(*serve)
    assert (refused.returncode, "fettle keys create" in refused.stderr) == (2, True)
    made = fettle("keys", "create", "root", "--scope", "admin", "--all-projects")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert re.fullmatch(r"fettle_\w{12}_\w{38}", key)  # the key alone: KEY=$(fettle keys create …)
    log = tmp_path / "log"
    with log.open("wb") as file:
        command = [sys.executable, "-m", "app", *serve, "--data-dir", str(tmp_path)]
        process = subprocess.Popen(command, stdout=file, stderr=file, env=clean_environment())
    try:
        found = wait_for(lambda: re.search(r"serving at http://0.0.0.0:(\d+)", log.read_text()), START_S, "a service")
        with FettleClient(f"http://127.0.0.1:{found[1]}", key) as client:
            assert [k.name for k in client.api_keys()] == ["root"]
        with FettleClient(f"http://127.0.0.1:{found[1]}") as nobody, pytest.raises(FettleProblem, match="401"):
            next(nobody.studies())
    finally:
        process.terminate()
        process.wait(30)
    assert key not in log.read_text()
