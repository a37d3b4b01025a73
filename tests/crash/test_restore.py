"""What a backup and a restore refuse, what an interruption leaves, and what else comes back: webhooks, keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.api.exposure import pepper_of
from app.domain.json import loads
from app.settings import Settings
from app.store import delivering, restoring
from app.store.engine import Database
from app.store.events import START
from app.store.migrate import migrate
from app.store.restoring import NUMBERS_LEFT_OUT
from app.store.tables import Event, EventCounter, Study, Webhook
from app.upkeep.backup import back_up
from app.upkeep.copies import BackupRefused
from app.upkeep.restore import renew_in_place, restore
from tests.store.conftest import Bench, make_bench  # noqa: F401
from tests.support.places import Places, check
from tests.support.processes import Fleet, wait_for

MakeStudy = Callable[..., Bench]


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


@pytest.mark.smoke
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
