"""Retention: old events, metrics, logs and files of studies that are over go in small steps; all else stays."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, select, update

from app.domain.trial import ArtifactPointer, CheckpointPointer
from app.settings import Settings
from app.store import checkpoints, lifecycle, retention
from app.store.engine import Database
from app.store.retention import DAY_S, What
from app.store.tables import Artifact, Checkpoint, Event, Metric, Pruning, Study, TrialLog, Worker
from app.upkeep import prune as upkeep
from tests.store.conftest import Bench, definition
from tests.store.filled import fill

KEPT_DAYS = 30.0


def settings(folder: Path, **kept: float) -> Settings:
    """Settings that keep the named things for ever, but for those given."""
    return Settings(data_dir=folder, **kept)


def everything(folder: Path) -> Settings:
    names = ("event", "metric", "log", "artifact")
    return settings(folder, **{f"{name}_retention_days": KEPT_DAYS for name in names})


def age(database: Database, study_id: int, days: float) -> None:
    """Let a study have ended so many days ago."""
    with database.write() as session:
        session.execute(update(Study).where(Study.id == study_id).values(finished_at=Study.finished_at - days * DAY_S))


def finished(bench: Bench, files: Path | None = None) -> None:
    """Run the study of five trials to its end: one fails and logs it, the best has a file."""
    reservations = bench.running(5)
    for r in reservations[:4]:
        bench.record(*(bench.report(r, epoch, 1.0) for epoch in range(3)))
    bench.fail(reservations[4])
    for i, r in enumerate(reservations[:4]):
        path = f"{bench.public_id}/{r.number:06d}/1-{r.token[:12]}/model.keras"
        pointers = ()
        if files is not None and i == 0:
            (files / path).parent.mkdir(parents=True)
            (files / path).write_bytes(b"weights")
            pointers = (ArtifactPointer("model.keras", path, "application/vnd.keras", 7, {}),)
        bench.finish(r, value=0.1 * (i + 1), artifacts=pointers)
    assert bench.study().state == "COMPLETED"


def rows(database: Database, entity: Any) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(entity)) or 0


def counts(database: Database) -> dict[What, int]:
    return {
        What.EVENTS: rows(database, Event),
        What.METRICS: rows(database, Metric),
        What.LOGS: rows(database, TrialLog),
        What.FILES: rows(database, Artifact),
    }


def test_what_is_old_goes_and_what_is_young_or_runs_stays(make_bench: Callable[..., Bench], tmp_path: Path) -> None:
    files = tmp_path / "artifacts"
    old, young, open_ = make_bench(name="old"), make_bench(name="young"), make_bench(name="open")
    for bench in (old, young):
        finished(bench, files)
    open_.record(open_.report(open_.running()[0], 0, 1.0))
    database = old.database
    age(database, old.study_id, KEPT_DAYS + 1)
    age(database, young.study_id, KEPT_DAYS - 1)
    before, kept, told = counts(database), young.events(), open_.events()
    trials = [(t.number, t.state, t.value, t.curve) for t in old.trials()]
    foretold = {(p.study_id, p.what): p.count for p in upkeep.prunable(database, everything(tmp_path))}
    assert counts(database) == before, "a dry run writes nothing"
    done = upkeep.prune(database, everything(tmp_path))
    assert foretold == {(old.study_id, what): count for what, count in done.items()}
    assert done[What.METRICS] == 12
    assert done[What.LOGS] == 1
    assert done[What.FILES] == 1
    assert done[What.EVENTS] == before[What.EVENTS] - len(kept) - len(told) - 1
    assert old.kinds() == ["study.finished"]
    assert (young.events(), open_.events()) == (kept, told)
    assert [(t.number, t.state, t.value, t.curve) for t in old.trials()] == trials
    assert not (files / old.public_id).exists()
    assert [f.read_bytes() for f in (files / young.public_id).rglob("model.keras")] == [b"weights"]
    assert not any(upkeep.prune(database, everything(tmp_path)).values()), "there is nothing left to do"


def test_each_thing_is_kept_for_its_own_time(bench: Bench, tmp_path: Path) -> None:
    finished(bench)
    before = counts(bench.database)
    age(bench.database, bench.study_id, 10)
    assert upkeep.prune(bench.database, settings(tmp_path)) == {}
    upkeep.prune(bench.database, settings(tmp_path, metric_retention_days=9, event_retention_days=11))
    assert counts(bench.database) == before | {What.METRICS: 0}


@pytest.mark.parametrize("most", [1, 7, 1000])
def test_a_log_has_no_gap_after_any_step(bench: Bench, most: int) -> None:
    fill(bench.database, bench.study_id, 5, epochs=4)
    bench.act(lifecycle.cancel)
    age(bench.database, bench.study_id, 2)
    total = len(bench.events())
    steps, after = 0, 0
    while after is not None:
        with bench.database.write() as session:
            step = retention.prune(session, bench.study_id, What.EVENTS, DAY_S, after, most)
        numbers = [event["seq"] for event in bench.events()]
        assert numbers == list(range(numbers[0], total + 1))
        steps, after = steps + 1, step.after
        assert step.count <= most
    assert steps == -(-(total - 1) // most)
    assert bench.kinds() == ["study.finished"]


def test_what_follows_the_end_in_a_log_stays_with_it(bench: Bench, tmp_path: Path) -> None:
    finished(bench)
    words = definition(description="what we learned")
    bench.act(lifecycle.update_study, words)
    age(bench.database, bench.study_id, KEPT_DAYS + 1)
    upkeep.prune(bench.database, everything(tmp_path))
    assert bench.kinds() == ["study.finished", "study.updated"]


def test_a_study_that_is_reopened_keeps_what_it_has_and_is_pruned_again_later(bench: Bench, tmp_path: Path) -> None:
    finished(bench)
    age(bench.database, bench.study_id, KEPT_DAYS + 1)
    with bench.database.read() as session:
        assert retention.due(session, What.EVENTS, KEPT_DAYS * DAY_S, 10) == [bench.study_id]
    bench.act(lifecycle.update_study, definition(budget={"trials": 7}))
    with bench.database.write() as session:
        step = retention.prune(session, bench.study_id, What.EVENTS, KEPT_DAYS * DAY_S, 0, 1000)
    assert (step.count, step.after) == (0, None), "it was listed before it was reopened"
    bench.check()
    for r in bench.running(2):
        bench.finish(r)
    age(bench.database, bench.study_id, KEPT_DAYS + 1)
    upkeep.prune(bench.database, everything(tmp_path))
    assert bench.kinds() == ["study.finished"]
    bench.act(lifecycle.update_study, definition(budget={"trials": 8}))
    (r,) = bench.running(1)
    bench.record(bench.report(r, 0, 1.0))
    bench.finish(r)
    with bench.database.read() as session:
        old, new = (retention.pruned_at(session, bench.trial(n), What.METRICS) for n in (0, 7))
    assert old is not None
    assert new is None, "a trial that finished after the pruning has what it reported"
    # The clock of the note is the database's: an hour later the study is old again.
    with bench.database.write() as session:
        session.execute(update(Pruning).values(pruned_at=Pruning.pruned_at - 40 * DAY_S))
    age(bench.database, bench.study_id, KEPT_DAYS + 1)
    assert upkeep.prune(bench.database, everything(tmp_path))[What.METRICS] == 1
    assert bench.kinds() == ["study.finished"]


def test_work_goes_on_while_much_is_pruned(make_bench: Callable[..., Bench], tmp_path: Path) -> None:
    """Every transaction of a worker comes through while two processes prune the same things."""
    old = make_bench(name="old", budget={"trials": 2000})
    fill(old.database, old.study_id, 1000, epochs=10)
    old.act(lifecycle.cancel)
    age(old.database, old.study_id, KEPT_DAYS + 1)
    live = make_bench(name="live", budget={"trials": 20})
    results: list[dict[What, int]] = []
    pruners = [
        threading.Thread(target=lambda: results.append(upkeep.prune(old.database, everything(tmp_path))))
        for _ in range(2)
    ]
    for pruner in pruners:
        pruner.start()
    for _ in range(20):
        (r,) = live.running()
        assert live.record(live.report(r, 0, 1.0)) == {r.trial_id}
        assert live.finish(r) == {r.trial_id}
    for pruner in pruners:
        pruner.join(120)
    assert sum(result[What.METRICS] for result in results) == 10_000
    assert old.kinds() == ["study.finished"]
    live.check()


def test_it_stops_when_its_time_is_over_and_goes_on_the_next_time(bench: Bench, tmp_path: Path) -> None:
    fill(bench.database, bench.study_id, 500, epochs=10)
    bench.act(lifecycle.cancel)
    age(bench.database, bench.study_id, KEPT_DAYS + 1)
    total = len(bench.events())
    rounds = 0
    while len(bench.events()) > 1:
        upkeep.prune(bench.database, settings(tmp_path, event_retention_days=1), most_s=0.001)
        numbers = [event["seq"] for event in bench.events()]
        assert numbers == list(range(numbers[0], total + 1))
        rounds += 1
        assert rounds < 100
    assert rounds > 1


def test_a_population_that_may_be_reopened_keeps_the_checkpoints_that_it_goes_on_from(
    bench: Bench, tmp_path: Path
) -> None:
    finished(bench)
    database = bench.database
    with database.write() as session:
        pointers = [(t.id, f"{bench.public_id}/{t.number:06d}/1-a-epoch-1/state.npz") for t in bench.trials()[:2]]
        new = [checkpoints.New(key, "t", 1, CheckpointPointer(path, 1, 1)) for key, path in pointers]
        checkpoints.put(session.connection(), new, at=1.0)
        session.execute(update(Study).values(generation_size=2))
    age(database, bench.study_id, KEPT_DAYS + 1)
    assert upkeep.prune(database, everything(tmp_path))[What.FILES] == 0
    assert rows(database, Checkpoint) == 2
    with database.write() as session:
        session.execute(update(Study).values(state="STOPPED"))
        session.execute(delete(Pruning))
    assert [p.count for p in upkeep.prunable(database, everything(tmp_path)) if p.what is What.FILES] == [2]
    assert upkeep.prune(database, everything(tmp_path))[What.FILES] == 2
    assert rows(database, Checkpoint) == 0


def test_workers_that_are_long_gone_are_forgotten(bench: Bench, tmp_path: Path) -> None:
    from app.store.workers import Offer, register_worker

    with bench.database.write() as session:
        for name in ("gone", "here"):
            register_worker(session, name, "host", 1, Offer("cpu", ["function"], {}))
        session.execute(update(Worker).where(Worker.id == "gone").values(heartbeat_at=Worker.heartbeat_at - 2 * DAY_S))
    assert upkeep.forget_workers(bench.database, Settings(data_dir=tmp_path, worker_retention_days=None)) == 0
    assert upkeep.forget_workers(bench.database, Settings(data_dir=tmp_path, worker_retention_days=1)) == 1
    with bench.database.read() as session:
        assert list(session.scalars(select(Worker.id))) == ["here"]


def test_settings_take_words_for_never(monkeypatch: pytest.MonkeyPatch) -> None:
    for word in ("", "null", "None", "never"):
        monkeypatch.setenv("FETTLE_WORKER_RETENTION_DAYS", word)
        assert Settings().worker_retention_days is None
    monkeypatch.setenv("FETTLE_WORKER_RETENTION_DAYS", "0")
    with pytest.raises(ValueError, match="greater than 0"):
        Settings()


def test_a_deleted_study_is_pruned_of_nothing(bench: Bench) -> None:
    finished(bench)
    bench.act(lifecycle.delete_study)
    with bench.database.write() as session:
        assert retention.prune(session, bench.study_id, What.EVENTS, DAY_S, 0, 10).after is None
