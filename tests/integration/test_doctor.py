"""`fettle doctor`: each thing is broken for real, and the finding says what was expected, found, and what to do."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, text, update

from app import doctor
from app.api.exposure import pepper_of
from app.doctor import Examination, Finding, Status, examine
from app.doctor.consistency import counters_and_logs
from app.doctor.database import clock_finding, reached, schema
from app.doctor.devices import device_here
from app.doctor.exposure import address
from app.doctor.fleet import workers_and_leases
from app.doctor.libraries import optional_libraries
from app.doctor.postgresql import postgresql_server
from app.doctor.sqlite import sqlite_file
from app.doctor.storage import places
from app.domain.access import Scope
from app.domain.trial import ArtifactPointer
from app.settings import Settings
from app.store import keys, lifecycle
from app.store.engine import Database
from app.store.migrate import VERSION_TABLE
from app.store.tables import Event, EventCounter, Study, Trial, Worker
from app.upkeep import restore
from tests.processes import ROOT, Fleet, fleet_on, wait_for
from tests.store.conftest import Bench, make_bench, make_sqlite_bench  # noqa: F401

QUICK = tuple(group for group in doctor.GROUPS if group is not device_here)


def settings_of(database: Database, data_dir: Path, **changes: Any) -> Settings:
    url = database.url.render_as_string(hide_password=False)
    return Settings(data_dir=data_dir, database_url=url, **changes)


def findings(settings: Settings, *groups: doctor.Check) -> dict[str, Finding]:
    """What these checks say, by name; the database is looked at first, as always."""
    examination = Examination(settings)
    try:
        return {f.check: f for group in (reached, schema, *groups) for f in group(examination)}
    finally:
        examination.close()


def bad(found: dict[str, Finding]) -> dict[str, Status]:
    assert all(f.advice for f in found.values() if f.status is not Status.OK)
    return {name: f.status for name, f in found.items() if f.status is not Status.OK}


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


def test_places_that_cannot_be_written(sqlite_database: Database, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    found = findings(settings_of(sqlite_database, blocked), places)
    assert bad(found) == {
        "data directory": Status.FAILED,
        "artifacts location": Status.FAILED,
        "data sets location": Status.FAILED,
    }
    elsewhere = {"artifact_url": "/proc/fettle", "dataset_url": "nosuchstore://bucket/x"}
    found = findings(settings_of(sqlite_database, tmp_path, **elsewhere), places)
    assert bad(found) == {"artifacts location": Status.FAILED, "data sets location": Status.FAILED}
    assert findings(settings_of(sqlite_database, tmp_path, artifact_url="memory://a"), places).keys() >= {"artifacts"}


def test_a_disk_that_takes_nothing(sqlite_database: Database, tmp_path: Path) -> None:
    """A limit of the operating system on the size of files stands for a full disk: every write fails."""
    folder = tmp_path / "data"
    folder.mkdir()

    def no_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4))

    code = (
        "import json, sys\n"
        "from app.doctor import Examination\n"
        "from app.doctor.storage import places\n"
        "from app.settings import Settings\n"
        "examination = Examination(Settings(data_dir=sys.argv[1]))\n"
        "print(json.dumps([f.as_json() for f in places(examination)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], preexec_fn=no_room, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    found = {f["check"]: f["status"] for f in json.loads(done.stdout)}
    assert found["data directory"] == found["artifacts location"] == found["data sets location"] == "failed"
    assert [p for p in folder.rglob("*") if p.is_file()] == []


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.doctor.storage import room

    for free, status in ((10**6, Status.FAILED), (10**9, Status.WARNING), (10**11, Status.OK)):
        usage = shutil._ntuple_diskusage(10**12, 10**12 - free, free)  # type: ignore[attr-defined]
        monkeypatch.setattr("app.doctor.storage.shutil.disk_usage", lambda _folder, u=usage: u)
        assert room(tmp_path).status is status


def test_files_that_are_missing_and_files_that_nobody_has(
    database: Database,
    tmp_path: Path,
    make_bench: Callable[..., Bench],  # noqa: F811
) -> None:
    settings = settings_of(database, tmp_path)
    bench = make_bench()
    (r,) = bench.running()
    path = f"{bench.public_id}/000000/1-{r.token[:12]}/model.keras"
    bench.finish(r, artifacts=(ArtifactPointer("model.keras", path, "a/b", 1, {}),))
    found = findings(settings, places)
    assert bad(found) == {"artifacts": Status.FAILED}
    assert path in found["artifacts"].found
    file = tmp_path / "artifacts" / path
    file.parent.mkdir(parents=True)
    file.write_bytes(b"1")
    orphan = tmp_path / "artifacts" / bench.public_id / "000001" / "1-aaaaaaaaaaaa" / "model.keras"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"1")
    assert bad(findings(settings, places)) == {}, "it may be just being written"
    os.utime(orphan, (1.7e9, 1.7e9))
    assert bad(findings(settings, places)) == {"orphaned files": Status.WARNING}


def test_a_device_that_is_not_there_and_a_tensorflow_that_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "tensorflow"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('libcudnn.so.9: cannot open shared object file')\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    found = findings(Settings(data_dir=tmp_path, device="cpu"), device_here)
    assert found["device"].status is Status.OK
    assert found["tensorflow"].status is Status.FAILED
    assert "libcudnn.so.9" in found["tensorflow"].found
    found = findings(Settings(data_dir=tmp_path, device="gpu:77"), device_here)
    assert found["device"].status is Status.FAILED
    assert "gpu:77" in found["device"].found


def test_a_tensorflow_that_takes_forever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "tensorflow"
    slow.mkdir()
    (slow / "__init__.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.setattr("app.doctor.devices.CHILD_S", 3.0)
    found = findings(Settings(data_dir=tmp_path, device="cpu"), device_here)
    assert (found["tensorflow"].status, found["tensorflow"].found) == (Status.FAILED, "no answer within 3 s")


@pytest.mark.tensorflow
def test_tensorflow_as_it_is_here(tmp_path: Path) -> None:
    found = findings(Settings(data_dir=tmp_path, device="cpu"), device_here)
    assert found["tensorflow"].status is Status.OK
    assert found["tensorflow"].found.startswith("TensorFlow 2.")


def test_an_address_that_others_reach(database: Database, tmp_path: Path) -> None:
    def look(**changes: Any) -> dict[str, Status]:
        return bad(findings(settings_of(database, tmp_path, **changes), address))

    everywhere = {"host": "0.0.0.0"}
    assert look() == {}
    assert look(**everywhere) == {"exposure": Status.FAILED}
    assert look(**everywhere, allow_open=True) == {"exposure": Status.WARNING}
    with database.write() as session:
        new = keys.NewKey("root", "default", [Scope.ADMIN], all_projects=True)
        keys.create_key(session, new, pepper_of(settings_of(database, tmp_path)).ensure())
    assert look(**everywhere) == {}
    assert look(**everywhere, key_secret="another secret of the service, which is long") == {
        "keys": Status.WARNING,
        "exposure": Status.FAILED,
    }
    nowhere = Settings(data_dir=tmp_path / "none", host="0.0.0.0")
    assert bad(findings(nowhere, address)) == {"database": Status.FAILED, "exposure": Status.WARNING}


def test_a_library_that_a_setting_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.doctor.libraries.find_spec", lambda _name: None)
    assert "s3fs" not in bad(findings(Settings(data_dir=tmp_path), optional_libraries))
    found = findings(Settings(data_dir=tmp_path, artifact_url="s3://bucket/models"), optional_libraries)
    assert found["s3fs"].status is Status.FAILED
    assert "fettle[s3]" in found["s3fs"].advice


def test_a_check_that_breaks_is_a_finding_and_the_others_are_made(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_examination: Examination) -> Iterator[Finding]:
        raise RuntimeError("no idea")
        yield

    monkeypatch.setattr(doctor, "GROUPS", (broken, reached, address))
    examination = Examination(settings_of(sqlite_database, tmp_path))
    try:
        found = {f.check: f for f in examine(examination)}
    finally:
        examination.close()
    assert found["broken"].status is Status.FAILED
    assert "no idea" in found["broken"].found
    assert found["exposure"].status is Status.OK


def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FETTLE_")}
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        capture_output=True,
        text=True,
        env=environment | variables,
        cwd=ROOT,
        timeout=170,
    )


def test_the_command_speaks_to_people_and_programs_and_says_by_its_exit_code(
    sqlite_database: Database, tmp_path: Path
) -> None:
    broken = tmp_path / "modules" / "tensorflow"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('broken on purpose')\n")
    path = f"{tmp_path / 'modules'}{os.pathsep}{ROOT}"
    done = command("doctor", "--data-dir", str(tmp_path), "--json", PYTHONPATH=path)
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["ok"]) == (1, False), done.stderr
    wrong = [check for check in answer["checks"] if check["status"] != "ok"]
    assert [(check["check"], check["status"]) for check in wrong] == [("tensorflow", "failed")]
    assert set(wrong[0]) == {"check", "status", "expected", "found", "advice"}
    done = command("doctor", "--data-dir", str(tmp_path), PYTHONPATH=path)
    assert done.returncode == 1
    assert "broken on purpose" in done.stdout
    assert "1 failed." in done.stdout


def test_backup_restore_and_prune_from_the_command_line(
    sqlite_database: Database,
    tmp_path: Path,
    make_sqlite_bench: Callable[..., Bench],  # noqa: F811
) -> None:
    bench = make_sqlite_bench()
    bench.act(lifecycle.cancel)
    with sqlite_database.write() as session:
        session.execute(update(Study).values(finished_at=Study.finished_at - 1e6))
    here, there, kept = str(tmp_path), str(tmp_path / "there"), str(tmp_path / "kept")
    assert command("backup", kept, "--data-dir", here).returncode == 0
    assert command("backup", kept, "--data-dir", here).returncode == 2
    assert command("restore", "--data-dir", there).returncode == 2
    restored = command("restore", kept, "--data-dir", there, "--json")
    assert json.loads(restored.stdout)["open_studies"] == 0, restored.stderr
    days = {"FETTLE_EVENT_RETENTION_DAYS": "10"}
    dry = command("prune", "--dry-run", "--orphans", "--data-dir", there, "--json", **days)
    assert json.loads(dry.stdout) == {"dry_run": True, "pruned": {"events": 1}, "orphans": []}
    done = command("prune", "--data-dir", there, **days)
    assert done.stdout == "Deleted 1 events of studies that are over.\n", done.stderr
    assert "for ever" in command("prune", "--data-dir", there).stdout
