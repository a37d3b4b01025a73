"""What users and trials wrote is printed by commands: none of it steers the terminal, and none of it is changed."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from app.cli import main
from app.cli.live import _Terminal
from app.cli.printing import printable
from app.cli.scoreboard import Scoreboard
from app.client.models import Study
from app.store.engine import Database
from tests.integration.conftest import RunningService, serving

NASTY = "a\x1b[2J\x1b]0;owned\x07b\x9b31mc\u202egnp.exe\u2066d\x7f\r\ne\u2028f\u200b[red]g[/red]"
SHOWN = "a\\x1b[2J\\x1b]0;owned\\x07b\\x9b31mc\\u202egnp.exe\\u2066d\\x7f\\r\\ne\\u2028f\\u200b[red]g[/red]"
KEPT = "größe 数 ‍क्‍ष 👩‍👩‍👧 \\x1b"


def steering(text: str) -> set[str]:
    """Characters of an output that could do more than show themselves; ends of lines are its own."""
    return {c for c in text if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and c not in "\n\u200c\u200d"}


@pytest.fixture
def service(sqlite_database: Database, tmp_path: Path) -> Iterator[RunningService]:
    with serving(sqlite_database, tmp_path) as running:
        yield running


@dataclass(frozen=True)
class Ran:
    """What a command printed."""

    stdout: str
    stderr: str


Run = Callable[..., Ran]


@pytest.fixture
def run(service: RunningService, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("trials", "sphere")`: the command line in this process."""

    def call(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["fettle", *arguments])
        monkeypatch.setenv("FETTLE_URL", service.url)
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main()
        return Ran(*capsys.readouterr())

    return call


def submitted(service: RunningService) -> dict[str, Any]:
    """A study of outside programs, over, whose words are all nasty."""
    definition = {
        "name": "outside",
        "description": NASTY,
        "labels": {"team": NASTY},
        "model": {"family": "external"},
        "hyperparameters": {
            "note": NASTY,
            "kind": {"type": "categorical", "choices": [NASTY, NASTY + "2"]},
        },
        "objectives": [{"metric": "loss"}],
        "sampler": {"name": "random"},
        "budget": {"trials": 2},
    }
    made = service.client.post("/v1/studies", json=definition)
    assert made.status_code == 201, made.text
    study: dict[str, Any] = made.json()
    return study


def test_no_command_prints_what_steers_a_terminal(service: RunningService, run: Run) -> None:
    study = submitted(service)
    where = f"/v1/studies/{study['id']}/trials"
    asked = service.client.post(f"{where}:ask", json={"count": 2, "worker": "me"}).json()["items"]
    ends: list[dict[str, Any]] = [
        {"state": "COMPLETE", "values": {"loss": 1.0}},
        {"state": "FAIL", "error": {"code": "EXCEPTION", "message": NASTY}},
    ]
    for trial, end in zip(asked, ends, strict=True):
        told = service.client.post(
            f"{where}/{trial['number']}:tell", json={"lease_token": trial["lease"]["token"], **end}
        )
        assert told.status_code == 200, told.text
    commands = [
        ("trials", "outside"), ("best", "outside"), ("studies",), ("watch", "outside"), ("lineage", "outside", "0"),
        ("importances", "outside"), ("audit",), ("stop", "outside"), ("enqueue", "outside", f"kind={NASTY}"),
        ("trials", NASTY), ("datasets",), ("webhooks",),
    ]  # fmt: skip
    for command in commands:
        ran = run(*command)
        assert ran.stdout + ran.stderr, command
        assert steering(ran.stdout + ran.stderr) == set(), command
    assert SHOWN in run("trials", "outside").stdout
    assert f"  note = {SHOWN}" in run("best", "outside").stdout.splitlines()


def test_json_and_exports_say_exactly_what_was_written(service: RunningService, run: Run, tmp_path: Path) -> None:
    study = submitted(service)
    asked = service.client.post(f"/v1/studies/{study['id']}/trials:ask", json={"worker": "me"})
    assert asked.status_code == 200, asked.text
    ran = run("trials", "outside", "--json")
    assert steering(ran.stdout) == set()
    (trial,) = json.loads(ran.stdout)["items"]
    assert trial["hyperparameters"]["note"] == NASTY
    listed = run("studies", "--json")
    assert steering(listed.stdout) == set()
    assert NASTY in set(_texts(json.loads(listed.stdout)))
    file = tmp_path / "trials.json"
    run("export", "outside", "--format", "json", "--output", str(file))
    assert NASTY in set(_texts(json.loads(file.read_bytes())))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, str):
        yield value


def test_the_live_table_shows_names_as_they_are_written() -> None:
    study = Study.model_validate(
        {
            "id": "st_1", "project": "default", "name": NASTY, "state": "RUNNING", "revision": 1,
            "definition": {"budget": {"trials": 2}}, "progress": {}, "created_at": "2026-01-01T00:00:00Z",
        }
    )  # fmt: skip
    out = StringIO()
    Console(file=out, width=400, force_terminal=True, color_system=None).print(_Terminal(Scoreboard(study)))
    assert f"{SHOWN} (running)" in out.getvalue()
    assert steering(out.getvalue().replace("\x1b[2m", "").replace("\x1b[0m", "")) == set()


def test_words_of_all_languages_stay_as_they_are() -> None:
    assert printable(KEPT) == KEPT
    assert printable(NASTY) == SHOWN
    assert printable("\ud800\U000e0041") == "\\ud800\\U000e0041"
    assert printable("two\nlines") == "two\\nlines"
