"""What processes log: a line an event whatever users send, with the request's id, the study and the trial on it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.conftest import function_study
from tests.support.processes import wait_for

DEADLINE_S = 90.0
EVIL = 'x\n{"event": "forged", "level": "info"}\ntimestamp=\'0\' event=\'forged\'\r\x1b[2J\x07\u2028\u202eend'
KEY = re.compile(r"[a-z_]+=")


@dataclass
class Service:
    """A running `fettle up` whose log is read back."""

    client: httpx.Client
    log: Path
    form: str
    process: subprocess.Popen[bytes]

    def raw(self) -> bytes:
        return self.log.read_bytes()

    def lines(self) -> list[str]:
        """The lines of our own: the trainer's libraries write to the same stream as they please."""
        start = "{" if self.form == "json" else "timestamp="
        return [line for line in self.raw().decode().split("\n") if line.startswith(start)]

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) if self.form == "json" else read(line) for line in self.lines()]

    def of_request(self, identity: str) -> list[dict[str, Any]]:
        return [event for event in self.events() if event.get("request_id") == identity]


def read(line: str) -> dict[str, Any]:
    """The fields of a line in the text form: names and Python literals."""
    import ast

    found, rest = {}, line
    while rest:
        name, _, rest = rest.partition("=")
        assert re.fullmatch(r"[a-z_]+", name), (name, line)
        for end in [m.start() for m in re.finditer(r" (?=[a-z_]+=)", rest)] + [len(rest)]:
            with contextlib.suppress(SyntaxError, ValueError):
                found[name] = ast.literal_eval(rest[:end])
                rest = rest[end + 1 :]
                break
        else:
            raise AssertionError(f"Expected name=literal pairs. Received: {line!r}")
    return found


@contextlib.contextmanager
def running(folder: Path, form: str, *arguments: str, **settings: str) -> Iterator[Service]:
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FETTLE_")}
    environment |= {"FETTLE_DATA_DIR": str(folder / "data"), "FETTLE_LOG_FORMAT": form, "FETTLE_FAMILIES": "function"}
    # Of its own: it sweeps up what others that were killed left in the shared one, and says so.
    environment |= {"TMPDIR": str(temporary)}
    environment |= {f"FETTLE_{name.upper()}": value for name, value in settings.items()}
    log, out = folder / "log.txt", folder / "out.txt"
    with log.open("wb") as errors, out.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "up", "--port", "0", *arguments],
            env=environment,
            stdout=output,
            stderr=errors,
        )
    try:
        found = wait_for(lambda: re.search(r"serving at (http://\S+)", out.read_text()), DEADLINE_S, "a service")
        with httpx.Client(base_url=found[1], timeout=30) as client:
            yield Service(client, log, form, process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        print(log.read_text())


@pytest.fixture(scope="module", params=["text", "json"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service without workers, in both forms of logs."""
    with running(tmp_path_factory.mktemp("logs"), request.param, "--workers", "0") as found:
        yield found


def told(service: Service, identity: str) -> dict[str, Any]:
    """The line of a request, once it is written."""

    def find() -> dict[str, Any] | None:
        return next((e for e in service.of_request(identity) if e["event"] == "request"), None)

    found: dict[str, Any] = wait_for(find, DEADLINE_S, f"a line of the request {identity}")
    return found


def test_a_request_has_an_id_a_line_and_what_it_is_about(service: Service) -> None:
    made = service.client.post("/v1/studies", json=function_study(), headers={"X-Request-ID": "ci-4711.a_B"})
    assert made.headers["X-Request-ID"] == "ci-4711.a_B"
    study = made.json()["id"]
    line = told(service, "ci-4711.a_B")
    assert (line["method"], line["route"], line["status"], line["level"]) == ("POST", "/v1/studies", 201, "info")
    assert 0 < line["duration_ms"] < 60_000

    missing = service.client.get(f"/v1/studies/{study}/trials/3")
    line = told(service, missing.headers["X-Request-ID"])
    assert (line["status"], line["study"], str(line["trial"])) == (404, study, "3")
    assert line["route"].startswith("/v1/studies/{study_id}/trials/{number")
    assert service.client.get("/healthz").headers["X-Request-ID"]
    assert not [e for e in service.events() if e.get("route") == "/healthz"], "probes are told at the level debug"


@pytest.mark.parametrize("sent", ["", "a b", "x" * 129, "a=b", "é", "<script>", "a;b", 'a"b', "a/b"])
def test_an_id_that_is_no_sane_token_is_replaced(service: Service, sent: str) -> None:
    answer = service.client.get("/v1/studies", headers={"X-Request-ID": sent.encode()})
    identity = answer.headers["X-Request-ID"]
    assert re.fullmatch(r"[0-9a-f]{16}", identity)
    assert told(service, identity)["status"] == 200


def test_nothing_that_a_user_sends_makes_a_line_of_its_own(service: Service) -> None:
    client, quoted = service.client, "".join(f"%{byte:02x}" for byte in EVIL.encode())
    forged = re.sub(r"[\n\r\x1b\x07]", "\t", EVIL).encode()
    made = client.post("/v1/studies", json=function_study(name="named" + EVIL.replace("\x07", ""), description=EVIL))
    answers = [
        made,
        client.get(f"/v1/studies/{quoted}"),
        client.get(f"/{quoted}"),
        client.get(f"/v1/studies?q={quoted}&state={quoted}"),
        client.get(f"/v1/studies?{quoted}={quoted}"),
        client.get("/v1/studies", headers={"User-Agent": forged, "Idempotency-Key": "k" * 300}),
        client.post("/v1/studies", content=EVIL.encode(), headers={"Content-Type": "application/json"}),
        client.get(f"/v1/studies/x/trials/{quoted}/artifacts/{quoted}"),
    ]
    for answer in answers:
        assert answer.status_code < 500
        told(service, answer.headers["X-Request-ID"])
    # Control characters in a header are no HTTP: such a request never reaches the application.
    broken = client.get("/v1/studies", headers={"User-Agent": "x\x1b[2J"})
    assert (broken.status_code, "X-Request-ID" in broken.headers) == (400, False)
    check_clean(service)
    assert all(line.startswith(("{", "timestamp=")) for line in service.raw().decode().splitlines())
    assert {event["event"] for event in service.events()} == {"request", "Invalid HTTP request received."}


def check_clean(service: Service) -> None:
    raw = service.raw()
    for byte in (b"\x1b", b"\r", b"\x07", "\u2028".encode(), "\u202e".encode()):
        assert byte not in raw
    assert "forged" not in {event["event"] for event in service.events()}


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_bug_is_one_line_with_its_traceback_and_the_requests_id(tmp_path: Path, form: str) -> None:
    with running(tmp_path, form, "--workers", "0") as service:
        # A table that isn't there is no outage: what an API meets that is at odds with its database.
        import sqlite3

        with contextlib.closing(sqlite3.connect(tmp_path / "data" / "fettle.db")) as connection:
            connection.execute("ALTER TABLE fettle_workers RENAME TO gone")
        answer = service.client.get("/v1/workers")
        assert (answer.status_code, answer.json()["code"]) == (500, "INTERNAL")
        identity = answer.headers["X-Request-ID"]
        line = told(service, identity)
        assert (line["level"], line["status"]) == ("error", 500)
        bug = wait_for(
            lambda: [e for e in service.of_request(identity) if "exception" in e], DEADLINE_S, "its traceback"
        )
        assert "Traceback (most recent call last):\n" in bug[0]["exception"]
        assert "no such table: fettle_workers" in bug[0]["exception"]
        assert all(text.startswith(("{", "timestamp=")) for text in service.raw().decode().splitlines())


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_workers_lines_about_a_trial_name_study_and_trial(tmp_path: Path, form: str) -> None:
    # A file where the location of artifacts would be: they can't be written, whatever the user.
    blocked = tmp_path / "file"
    blocked.touch()
    with running(tmp_path, form, artifact_url=f"{blocked}/{EVIL}", checkpoint_interval_s="0.05") as service:
        slow = {"function": "sphere", "x0": {"type": "float", "low": -1.0, "high": 1.0}, "delay_seconds": 0.1}
        made = service.client.post(
            "/v1/studies",
            json=function_study(hyperparameters=slow, training={"epochs": 4}, budget={"trials": 1}),
        )
        study = made.json()["id"]

        def lines() -> list[dict[str, Any]]:
            return [e for e in service.events() if e.get("study") == study and "request_id" not in e]

        about = wait_for(lines, DEADLINE_S, "a line of the worker about the trial")
        assert {event["trial"] for event in about} == {0}
        assert {event["event"] for event in about} <= {"checkpoint_not_written", "artifact_not_written"}
        assert "forged" in about[0]["error"], "the location that can't be written is told, on the same line"
        check_clean(service)


def test_the_level_leaves_out_what_is_below_it(tmp_path: Path) -> None:
    with running(tmp_path, "text", "--workers", "0", log_level="warning") as service:
        assert service.client.get("/v1/studies").status_code == 200
        assert service.client.get("/nowhere").status_code == 404
    assert service.raw().decode().count("timestamp=") == 0
