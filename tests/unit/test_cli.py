"""The commands without a service: usage, settings, exit codes, and the care for worker processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from app.cli.children import DRAINED_CODE, Children
from app.cli.live import show
from app.cli.scoreboard import Scoreboard, duration_words
from app.cli.serve import environment
from app.client.models import Event, Study, event_of
from app.settings import Settings

DEADLINE_S = 20.0
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "sphere.json"


def fettle(*arguments: str, stdin: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """What `fettle` answers, run as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env={**{k: v for k, v in os.environ.items() if not k.startswith("FETTLE_")}, **variables},
        timeout=60,
    )


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:g} s: {what}"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


# -- usage and settings ------------------------------------------------------------------------------------------------


def test_without_a_service_a_command_says_so_and_ends_with_3() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    ran = fettle("studies", FETTLE_URL=url)
    assert ran.returncode == 3
    assert url in ran.stderr
    assert "fettle up" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("submit", "nowhere.json"), "nowhere.json"),
        (("submit", "-"), "Expected a study definition as JSON"),
        (("studies", "--url", "localhost:8000"), "Expected an http:// or https:// address"),
        (("up", "--port", "99999"), "FETTLE_PORT"),
        (("up", "--device", "tpu"), "FETTLE_DEVICE"),
        (("migrate", "--database-url", "mysql://user:secret@host/db"), "FETTLE_DATABASE_URL"),
        (("migrate", "--database-url", "postgresql://user:secret@127.0.0.1:1/db"), "Expected a database at"),
    ],
)
def test_wrong_usage_ends_with_2_and_words_and_tells_no_password(arguments: tuple[str, ...], words: str) -> None:
    ran = fettle(*arguments, stdin="{not json", FETTLE_DATABASE_WAIT_S="0")
    assert ran.returncode == 2
    assert words in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "secret" not in ran.stderr + ran.stdout


def test_a_taken_port_is_said_in_words(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = fettle("up", "--workers", "0", "--port", str(port), "--data-dir", str(tmp_path))
    assert ran.returncode == 2
    assert f"127.0.0.1:{port}" in ran.stderr
    assert "--port" in ran.stderr


@pytest.mark.parametrize("command", ["up", "api"])
def test_a_service_that_strangers_could_reach_is_refused_without_keys(tmp_path: Path, command: str) -> None:
    ran = fettle(command, "--host", "0.0.0.0", "--port", "0", "--data-dir", str(tmp_path / "data"))
    assert ran.returncode == 2
    assert "FETTLE_ALLOW_OPEN" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "data").exists(), "refused before anything is written"


def test_migrate_makes_the_schema_and_check_sees_it(tmp_path: Path) -> None:
    data = tmp_path / "new" / "data"
    before = fettle("check", "--data-dir", str(data))
    assert before.returncode == 2
    assert "fettle migrate" in before.stderr
    assert not data.exists(), "a check writes nothing"

    assert fettle("migrate", FETTLE_DATA_DIR=str(data)).returncode == 0
    assert fettle("migrate", FETTLE_DATA_DIR=str(data)).returncode == 0
    assert fettle("check", "--data-dir", str(data)).returncode == 0

    with sqlite3.connect(data / "fettle.db") as connection:
        connection.execute("UPDATE fettle_alembic_version SET version_num = '9999'")
    connection.close()
    newer = fettle("check", "--data-dir", str(data))
    assert newer.returncode == 2
    assert "9999" in newer.stderr


def test_the_settings_of_a_child_are_those_of_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = Settings(data_dir=Path("here"), device="cpu", allow_open=True, lease_ttl_s=2.5)
    for name, value in environment(given).items():
        monkeypatch.setenv(name, value)
    child = Settings()
    assert child.data_dir == tmp_path / "here"
    assert child.model_dump(exclude={"data_dir"}) == given.model_dump(exclude={"data_dir"})


def test_the_worker_command_becomes_the_worker_with_its_settings(tmp_path: Path) -> None:
    ran = fettle("worker", "--data-dir", str(tmp_path), "--families", "no-such-family")
    assert ran.returncode == 2
    assert "no-such-family" in ran.stderr


# -- worker processes --------------------------------------------------------------------------------------------------


def children(tmp_path: Path, code: str, count: int = 1, grace_s: float = 10.0) -> Children:
    """Children that each add their process id to the file `started`, then run `code` in the folder."""
    script = tmp_path / "child.py"
    script.write_text(
        "import os, signal, subprocess, sys, time\n"
        "with open('started', 'a') as file: print(os.getpid(), file=file, flush=True)\n" + textwrap.dedent(code)
    )
    command = ["/bin/sh", "-c", f"cd {tmp_path} && exec {sys.executable} child.py"]
    return Children(command, dict(os.environ), count, grace_s=grace_s)


def started(tmp_path: Path) -> list[int]:
    file = tmp_path / "started"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def test_a_worker_that_dies_is_replaced_and_all_are_gone_after_a_stop(tmp_path: Path) -> None:
    fleet = children(tmp_path, "time.sleep(600)", count=2)
    fleet.start()
    try:
        until(lambda: len(started(tmp_path)) == 2, "two workers")
        os.kill(started(tmp_path)[0], signal.SIGKILL)
        until(lambda: len(started(tmp_path)) == 3, "a third in place of the first")
    finally:
        fleet.stop()
    assert len(started(tmp_path)) == 3
    assert not any(psutil.pid_exists(pid) for pid in started(tmp_path))


@pytest.mark.parametrize("code", [0, 2])
def test_a_worker_that_ends_on_purpose_is_not_replaced(tmp_path: Path, code: int) -> None:
    fleet = children(tmp_path, f"sys.exit({code})")
    fleet.start()
    until(lambda: started(tmp_path), "the worker")
    until(lambda: not psutil.pid_exists(started(tmp_path)[0]), "its end")
    time.sleep(1.0)  # twice the first pause: enough for a wrong restart to show
    fleet.stop()
    assert len(started(tmp_path)) == 1


def test_a_worker_that_was_drained_over_http_is_replaced_until_the_service_stops(tmp_path: Path) -> None:
    fleet = children(tmp_path, f"time.sleep(600) if os.path.exists('drained') else sys.exit({DRAINED_CODE})", count=1)
    fleet.start()
    until(lambda: len(started(tmp_path)) >= 3, "one after the other")
    (tmp_path / "drained").touch()
    fleet.stop()
    there = started(tmp_path)
    assert not any(psutil.pid_exists(pid) for pid in there)
    time.sleep(1.0)  # several looks: enough for a wrong start to show
    assert started(tmp_path) == there


def test_a_worker_drains_before_it_goes(tmp_path: Path) -> None:
    fleet = children(
        tmp_path,
        """
        def drain(*_):
            time.sleep(0.5)
            open('drained', 'w').close()
            sys.exit(0)
        signal.signal(signal.SIGTERM, drain)
        open('ready', 'w').close()
        time.sleep(600)
        """,
    )
    fleet.start()
    until((tmp_path / "ready").exists, "the worker")
    fleet.drain()
    fleet.stop()
    assert (tmp_path / "drained").exists()


def test_a_worker_that_ignores_the_stop_is_killed_with_what_it_started(tmp_path: Path) -> None:
    fleet = children(
        tmp_path,
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen([sys.executable, '-c', 'import os, signal, time;'
            'signal.signal(signal.SIGTERM, signal.SIG_IGN);'
            'print(os.getpid(), file=open("started", "a"), flush=True); time.sleep(600)'])
        time.sleep(600)
        """,
        grace_s=600.0,
    )
    fleet.start()
    until(lambda: len(started(tmp_path)) == 2, "the worker and its child")
    fleet.hurry()
    began = time.monotonic()
    fleet.stop()
    assert time.monotonic() - began < DEADLINE_S, "a hurried stop waits for no grace"
    until(lambda: not any(_alive(pid) for pid in started(tmp_path)), "both are gone")


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# -- the live view -----------------------------------------------------------------------------------------------------

STUDY = Study(id="s", name="digits", state="RUNNING", definition={"budget": {"trials": 4}})
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def events() -> list[Event]:
    """A study of four trials: one pruned, one retried, one failed, the third the best; a trial ends every 10 s."""
    rows: list[tuple[str, dict[str, object]]] = [
        ("study.created", {"state": "RUNNING"}),
        ("trial.started", {"trial": 0, "attempt": 1}),
        ("trial.metrics", {"trial": 0, "attempt": 1, "epoch": 0, "metrics": {"val_accuracy": 0.5}}),
        ("trial.finished", {"trial": 0, "state": "PRUNED"}),
        ("trial.started", {"trial": 1, "attempt": 1}),
        ("trial.retried", {"trial": 1, "attempt": 2, "reason": "LOST"}),
        ("trial.started", {"trial": 2, "attempt": 1}),
        ("trial.best", {"trial": 2, "values": {"val_accuracy": 0.98333}}),
        ("trial.finished", {"trial": 2, "state": "COMPLETE", "values": {"val_accuracy": 0.98333}}),
        ("trial.started", {"trial": 1, "attempt": 2}),
        ("trial.finished", {"trial": 1, "state": "FAIL", "reason": "TIMEOUT"}),
    ]
    ends = 0
    found = []
    for seq, (kind, fields) in enumerate(rows, start=1):
        ends += kind == "trial.finished"
        at = BEGIN + timedelta(seconds=10 * ends)
        found.append(event_of(kind, {"seq": seq, "study_id": "s", "at": at.isoformat(), **fields}))
    return found


def test_the_standing_adds_up_from_events_alone() -> None:
    board = Scoreboard(STUDY)
    for event in events():
        board.add(event)
    assert (board.done, board.total, board.ended) == (3, 4, {"COMPLETE": 1, "PRUNED": 1, "FAIL": 1})
    assert board.running == {}
    assert board.best_words() == "trial 2: val_accuracy 0.9833"
    assert board.seconds_left() == pytest.approx(10.0)
    assert board.line().startswith("running: 3 of 4 trials done, 1 pruned, 1 failed, 0 running, best trial 2")


def test_running_trials_show_their_epoch() -> None:
    board = Scoreboard(STUDY)
    for event in events()[:3]:
        board.add(event)
    assert board.running == {0: "epoch 1"}


def test_without_a_terminal_the_view_prints_lines_and_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    over = event_of("study.finished", {"seq": 12, "state": "COMPLETED", "state_reason": "4 trials were run"})
    board = show(STUDY, [*events(), over])
    lines = capsys.readouterr().out.splitlines()
    assert board.over
    assert lines[-1] == "Study digits is COMPLETED: 4 trials were run. Best trial 2: val_accuracy 0.9833."
    assert any(line.startswith("completed: 3 of 4 trials done") for line in lines)
    assert not any("\x1b" in line for line in lines)


def test_the_table_of_a_terminal_shows_the_same() -> None:
    from rich.console import Console

    from app.cli.live import _Terminal

    board = Scoreboard(STUDY)
    for event in events()[:7]:
        board.add(event)
    console = Console(width=100, force_terminal=False, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(_Terminal(board))
    console.file.close()
    shown = console.export_text()
    assert "digits (running)" in shown
    assert "1 of 4 done" in shown
    assert "2 (starting)" in shown


@pytest.mark.parametrize(("seconds", "words"), [(45.2, "45 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_durations_are_said_as_people_do(seconds: float, words: str) -> None:
    assert duration_words(seconds) == words


def test_the_version_is_the_projects() -> None:
    assert fettle("version").stdout.strip() == "0.1.0"


def test_an_example_is_read_from_standard_input_too() -> None:
    ran = fettle("submit", "-", stdin=EXAMPLE.read_text(), FETTLE_URL=f"http://127.0.0.1:{free_port()}")
    assert ran.returncode == 3, "it got as far as looking for the service"
    assert json.loads(EXAMPLE.read_text())["name"] == "sphere"
