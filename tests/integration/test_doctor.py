"""`fettle doctor`: each thing is broken for real, and the finding says what was expected, found, and what to do."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, text, update

from app.doctor import Examination, Finding, Status
from app.doctor.consistency import counters_and_logs
from app.doctor.database import clock_finding
from app.doctor.fleet import workers_and_leases
from app.doctor.open_files import open_files
from app.doctor.postgresql import postgresql_server
from app.doctor.sqlite import sqlite_file
from app.settings import Settings
from app.store import lifecycle
from app.store.engine import Database
from app.store.migrate import VERSION_TABLE
from app.store.tables import Event, EventCounter, Study, Trial, Worker
from app.upkeep import restore
from tests.store.conftest import Bench, make_bench, make_sqlite_bench  # noqa: F401
from tests.support.findings import QUICK, bad, findings, settings_of
from tests.support.processes import Fleet, fleet_on, wait_for


@pytest.fixture
def fleet(database: Database, tmp_path: Path) -> Iterator[Fleet]:
    with fleet_on(database, tmp_path) as started:
        yield started


def test_a_service_at_work_is_well(
    database: Database,
    tmp_path: Path,
    fleet: Fleet,
    make_bench: Callable[..., Bench],  # noqa: F811
) -> None:
    parameters = {"x0": {"type": "float", "low": -1.0, "high": 1.0}, "delay_seconds": 0.02}
    bench = make_bench(hyperparameters=parameters, budget={"trials": 500})
    fleet.start()
    wait_for(lambda: bench.study().complete > 3, 60, "results")
    for _ in range(3):  # the counters are looked at while they change
        found = findings(settings_of(database, tmp_path), *QUICK)
        assert bad(found) == {}
    assert found["workers"].found.startswith("1 live (1 on cpu), 0 of them draining; families: function")
    assert "1 studies" in found["consistency"].found


def test_a_database_that_does_not_answer(tmp_path: Path) -> None:
    url = "postgresql+psycopg://fettle:secret@127.0.0.1:9/fettle"
    found = findings(Settings(data_dir=tmp_path, database_url=url), *QUICK)
    assert bad(found) == {"database": Status.FAILED}
    assert "secret" not in str(found)
    assert "refused" in found["database"].found.lower()
    assert "schema" not in found
    assert found["data directory"].status is Status.OK, "what needs no database is looked at all the same"


def test_no_database_file_and_nothing_is_made(tmp_path: Path) -> None:
    found = findings(Settings(data_dir=tmp_path / "none"), *QUICK)
    assert bad(found) == {"database": Status.FAILED}
    assert list(tmp_path.iterdir()) == []


def test_another_schema(database: Database, tmp_path: Path) -> None:
    settings = settings_of(database, tmp_path)
    for revision, words in (("0003", "older"), ("9999", "newer")):
        with database.engine.begin() as connection:
            connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '{revision}'"))
        found = findings(settings, *QUICK)
        assert bad(found) == {"schema": Status.FAILED}
        assert words in found["schema"].found
        assert "consistency" not in found


def test_no_schema(database_url: str, tmp_path: Path) -> None:
    database = Database(database_url)
    with database.read() as session:
        session.execute(text("SELECT 1"))
    database.dispose()
    found = findings(Settings(data_dir=tmp_path, database_url=database_url), *QUICK)
    assert bad(found) == {"schema": Status.FAILED}
    assert "fettle migrate" in found["schema"].advice


def test_a_damaged_file_a_wrong_journal_and_a_lock_that_is_held(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.doctor.sqlite.LOCK_S", 0.2)
    sqlite_database.dispose()
    file = Path(sqlite_database.url.database or "")

    def look() -> dict[str, Status]:
        examination = Examination(Settings(data_dir=tmp_path, database_url=f"sqlite:///{file}"))
        try:
            return bad({f.check: f for f in sqlite_file(examination)})
        finally:
            examination.close()

    assert look() == {}
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        assert look() == {"sqlite journal": Status.FAILED}
        connection.execute("PRAGMA journal_mode=WAL")
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        assert look() == {"sqlite lock": Status.FAILED}
        connection.execute("ROLLBACK")
    content = bytearray(file.read_bytes())
    content[8_192:40_960] = bytes(os.urandom(40_960 - 8_192))
    file.write_bytes(content)
    assert look() == {"sqlite integrity": Status.FAILED}
    file.write_bytes(b"this is no database, and it is long enough to look like one" * 100)
    assert look() == {"sqlite integrity": Status.FAILED}


@pytest.mark.parametrize("mishap", ["deleted", "replaced", "moved", "log deleted"])
def test_processes_whose_file_was_deleted_or_replaced_are_named(
    sqlite_database: Database, tmp_path: Path, mishap: str
) -> None:
    file = Path(sqlite_database.url.database or "")

    def look() -> dict[str, Finding]:
        examination = Examination(Settings(data_dir=tmp_path, database_url=f"sqlite:///{file}"))
        try:
            return {f.check: f for f in open_files(examination)}
        finally:
            examination.close()

    with fleet_on(sqlite_database, tmp_path) as fleet:
        worker = fleet.start()
        wait_for(lambda: "worker_started" in worker.log(), 60, "a worker")
        wait_for(lambda: look()["sqlite open files"].found.startswith("1 processes"), 60, "its open files")
        assert bad(look()) == {}
        if mishap == "log deleted":
            Path(f"{file}-wal").unlink()
        else:
            shutil.copyfile(file, tmp_path / "another.db")
            file.unlink() if mishap == "deleted" else file.rename(tmp_path / "aside.db")
            if mishap == "replaced":
                (tmp_path / "another.db").rename(file)
        found = look()
        assert bad(found) == {"sqlite open files": Status.FAILED}
        assert f"process {worker.pid} (" in found["sqlite open files"].found
        assert "/proc/" in found["sqlite open files"].advice


def test_postgresql_without_room_without_rights_and_behind_a_long_transaction(
    postgres_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(postgres_database, tmp_path)
    assert bad(findings(settings, postgresql_server)) == {}
    monkeypatch.setattr("app.doctor.postgresql.CONNECTIONS_A_PROCESS", 10_000)
    assert bad(findings(settings, postgresql_server)) == {"postgresql connections": Status.WARNING}
    monkeypatch.undo()
    with postgres_database.engine.connect() as connection:
        connection.execute(text("UPDATE fettle_studies SET name = name"))
        connection.execute(text("SELECT pg_current_xact_id()"))
        monkeypatch.setattr("app.doctor.postgresql.LONG_TRANSACTION_S", 0.0)
        found = findings(settings, postgresql_server)
        assert bad(found) == {"postgresql transactions": Status.WARNING}
        connection.rollback()
    monkeypatch.undo()
    with postgres_database.engine.begin() as connection:
        connection.execute(text("CREATE ROLE fettle_reader LOGIN"))
        connection.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA public TO fettle_reader"))
    try:
        reader = postgres_database.url.set(username="fettle_reader").render_as_string(hide_password=False)
        found = findings(Settings(data_dir=tmp_path, database_url=reader), postgresql_server)
        assert bad(found) == {"postgresql writes": Status.FAILED}
    finally:
        with postgres_database.engine.begin() as connection:
            connection.execute(text("DROP OWNED BY fettle_reader"))
            connection.execute(text("DROP ROLE fettle_reader"))


def test_clocks_that_differ() -> None:
    assert clock_finding(0.4).status is Status.OK
    assert clock_finding(90.0).status is Status.WARNING
    assert "90.0 s ahead" in clock_finding(90.0).found
    assert "90.0 s behind" in clock_finding(-90.0).found


def test_a_database_whose_clock_was_set_back(database: Database, tmp_path: Path, fleet: Fleet) -> None:
    worker = fleet.start()
    (name,) = wait_for(lambda: _worker_ids(database), 60, "a worker")
    worker.signal(signal.SIGKILL)
    worker.wait()
    with database.write() as session:
        session.execute(update(Worker).values(heartbeat_at=Worker.heartbeat_at + 600))
    found = findings(settings_of(database, tmp_path), workers_and_leases)
    assert found["heartbeats"].status is Status.FAILED
    assert name in found["heartbeats"].found


def _worker_ids(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.scalars(text("SELECT id FROM fettle_workers")))


def test_a_dead_worker_another_version_a_study_that_nobody_can_run_and_a_lease_that_nobody_takes_back(
    database: Database,
    tmp_path: Path,
    fleet: Fleet,
    make_bench: Callable[..., Bench],  # noqa: F811
) -> None:
    settings = settings_of(database, tmp_path)
    assert bad(findings(settings, workers_and_leases)) == {}, "no worker is needed where nothing runs"
    bench = make_bench(execution={"worker_labels": {"gpu": "big"}})
    found = findings(settings, workers_and_leases)
    assert bad(found) == {"workers": Status.WARNING, "pending studies": Status.WARNING}
    worker = fleet.start()
    wait_for(lambda: _worker_ids(database), 60, "a worker")
    found = findings(settings, workers_and_leases)
    assert bad(found) == {"pending studies": Status.WARNING}
    assert "labels gpu=big" in found["pending studies"].found
    with database.write() as session:
        session.execute(update(Worker).values(version="0.0.1"))
    assert findings(settings, workers_and_leases)["versions"].found == "1 of 0.0.1"
    worker.signal(signal.SIGKILL)
    worker.wait()
    bench.running()
    with database.write() as session:
        session.execute(update(Worker).values(heartbeat_at=Worker.heartbeat_at - 60))
        session.execute(update(Trial).values(lease_expires_at=Trial.lease_expires_at - 90))
    found = findings(settings, workers_and_leases)
    assert bad(found) == {"workers": Status.WARNING, "lost workers": Status.WARNING, "leases": Status.FAILED}
    bench.reap()
    assert "leases" not in bad(findings(settings, workers_and_leases))


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (update(Study).values(running=Study.running + 1), "running is 2, but 1 trials are"),
        (update(Study).values(leased=5), "leased is 5, but 1 trials have a lease"),
        (update(Study).values(next_number=7), "the next trial is number 7, but there are 3"),
        (update(Study).values(finished_count=1), "finished_count is 1, but 2 trials"),
        (update(Study).values(best_value=-1.0), "the best value is -1.0"),
        (delete(Event).where(Event.seq.in_([3, 4])), "events 3 to 4 are missing"),
        (update(EventCounter).values(last_seq=EventCounter.last_seq + 2), "by its counter, but"),
        (delete(EventCounter), "it has no counter of events"),
    ],
)
def test_counters_and_logs_that_do_not_agree(
    broken: Any,
    words: str,
    database: Database,
    tmp_path: Path,
    make_bench: Callable[..., Bench],  # noqa: F811
) -> None:
    settings = settings_of(database, tmp_path)
    sound, bench = make_bench(name="sound"), make_bench(name="broken")
    for each in (sound, bench):
        first, second, _ = each.running(3)
        each.finish(first)
        each.finish(second, value=0.2)
    assert bad(findings(settings, counters_and_logs)) == {}
    table = broken.table
    own = table.c.study_id if "study_id" in table.c else table.c.id
    with database.write() as session:
        session.execute(broken.where(own == bench.study_id))
    found = findings(settings, counters_and_logs)["consistency"]
    assert found.status is Status.FAILED
    assert bench.public_id in found.found
    assert words in found.found
    assert sound.public_id not in found.found


def test_logs_that_were_pruned_or_restored_are_in_order(
    database: Database,
    tmp_path: Path,
    make_bench: Callable[..., Bench],  # noqa: F811
) -> None:
    settings = settings_of(database, tmp_path)
    over, open_ = make_bench(name="over"), make_bench(name="open")
    over.act(lifecycle.cancel)
    open_.finish(open_.running()[0])
    with database.write() as session:
        session.execute(delete(Event).where(Event.study_id == over.study_id, Event.seq < 2))
    restore.renew_in_place(settings)
    found = findings(settings, counters_and_logs)
    assert bad(found) == {}
    assert found["restores"].found == "restored 1 times"
