"""Backup under load and restore: the state of one moment comes back whole, goes on exactly, and reuses no number."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from app.domain.json import loads
from app.domain.trial import ArtifactPointer
from app.store import leases, restoring
from app.store.restoring import NUMBERS_LEFT_OUT
from app.store.tables import Artifact, Event, EventCounter, Trial
from app.upkeep.backup import back_up
from app.upkeep.copies import read_manifest
from app.upkeep.restore import restore
from tests.integration.conftest import serving
from tests.integration.test_stream_events import parse, stream
from tests.store.conftest import Bench, make_bench  # noqa: F401
from tests.support.places import Places, check
from tests.support.processes import Fleet, fleet_on, over, wait_for

MakeStudy = Callable[..., Bench]


def held_leases(bench: Bench) -> list[tuple[int, str]]:
    """The trials that are leased, with their tokens."""
    with bench.database.read() as session:
        return [(t.id, t.lease_token) for t in session.scalars(select(Trial)) if t.lease_token is not None]


def running(events: list[dict[str, Any]]) -> set[int]:
    """The numbers of the trials that had begun an attempt and not ended it."""
    found: set[int] = set()
    for event in events:
        if event["type"] == "trial.started":
            found.add(event["trial"])
        elif event["type"] in ("trial.finished", "trial.retried"):
            found.discard(event["trial"])
    return found


def test_a_service_is_backed_up_at_work_and_its_study_ends_exactly_elsewhere(
    fleet: Fleet, make_study: MakeStudy, places: Places, tmp_path: Path
) -> None:
    bench = make_study(trials=60, epochs=5, delay_seconds=0.05, execution={"parallel_trials": 4})
    workers = [fleet.start() for _ in range(2)]
    wait_for(lambda: bench.study().complete >= 4, what="some results")
    manifest = back_up(places.old, places.folder)
    backed_up = bench.study().complete
    assert manifest.events > 0
    # The future that is lost: more is told than the backup knows.
    wait_for(lambda: bench.study().complete >= backed_up + 4, what="results after the backup")
    # Read while the workers live: between the end of a stack and the next one nothing is leased.
    held = wait_for(lambda: held_leases(bench), what="leases that are held")
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
        # What trained at that moment trains again; a reservation that had not begun is free without a word.
        ran = running(events[:before])
        retried = {e["trial"] for e in events[before:] if e["type"] == "trial.retried"}
        assert retried == ran
        assert done.renewed.leases >= len(ran)
        assert all(t.charged == 0 for t in trials), "nobody is charged for a restore"
        check(again, before)
        # Whoever held a lease in the other world is refused, though its trial is there.
        with again.database.write() as session:
            assert leases.renew(session, held, 30.0) == set()
        results = {t.number: t.value for t in trials if t.state == "COMPLETE"}
        new_folder = tmp_path / "new-workers"
        new_folder.mkdir()
        with fleet_on(again.database, new_folder) as fresh:
            fresh.start()
            assert over(again, 90) == "COMPLETED"
        check(again, before)
        assert [t.state for t in again.trials()] == ["COMPLETE"] * 60
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
