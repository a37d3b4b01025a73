"""Quotas of projects: never exceeded by one, however many take from them at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select

from app.domain.trial import ArtifactPointer, CheckpointPointer
from app.errors import NotFound, QuotaExceeded
from app.store import datasets, lifecycle, projects, quotas, recording, workers
from app.store.engine import Database
from app.store.tables import Artifact, Study, TrialLog
from tests.store.conftest import TTL_S, Bench, complete, definition
from tests.store.statements import listening

OFFER = workers.Offer("cpu", ["function"], {})


def limit(database: Database, **changes: int | None) -> None:
    with database.write() as session:
        projects.change_project(session, "default", None, changes)


def leased(database: Database) -> int:
    with database.read() as session:
        return int(session.scalar(select(func.coalesce(func.sum(Study.leased), 0))) or 0)


def together(count: int, work: Callable[[int], None]) -> None:
    """Do `work` in so many threads that start at once; raises what one of them raised."""
    barrier, errors = threading.Barrier(count), []

    def run(index: int) -> None:
        try:
            barrier.wait(30)
            work(index)
        except Exception as error:  # noqa: BLE001 - told to the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if errors:
        raise errors[0]


# -- running trials ---------------------------------------------------------------------------------------------------


def test_studies_of_a_project_share_its_quota_of_trials(make_bench: Callable[..., Bench]) -> None:
    one, other = make_bench(), make_bench(name="other")
    limit(one.database, max_running_trials=3)
    first = one.running(2)
    assert len(other.reserve(5)) == 1
    assert one.reserve(1) == other.reserve(1) == []
    one.finish(first[0])
    assert len(other.reserve(5)) == 1
    limit(one.database, max_running_trials=1)
    one.finish(first[1])
    assert other.reserve(1) == []  # two run: nothing is stopped, nothing is added
    limit(one.database, max_running_trials=None)
    assert len(other.reserve(1)) == 1
    one.check()
    other.check()


def test_a_trial_that_was_given_back_waits_for_room_too(make_bench: Callable[..., Bench]) -> None:
    one, other = make_bench(), make_bench(name="other")
    limit(one.database, max_running_trials=1)
    (held,) = one.running(1)
    one.expire(held)
    one.reap()
    assert len(other.reserve(1)) == 1
    assert one.reserve(1) == []


def test_turnover_takes_no_more_than_the_quota(make_bench: Callable[..., Bench]) -> None:
    from app.store.turnover import finish_and_reserve

    one, other = make_bench(), make_bench(name="other")
    limit(one.database, max_running_trials=2)
    (held,), _ = one.running(1), other.running(1)
    with one.database.write() as session:
        _, reserved = finish_and_reserve(session, one.study_id, [complete(held)], [], 3, "w1", TTL_S)
    assert len(reserved) == 1
    assert leased(one.database) == 2


@pytest.mark.parametrize("threads", [6])
def test_reservations_at_once_never_exceed_the_quota(make_bench: Callable[..., Bench], threads: int) -> None:
    benches = [make_bench(name=f"study-{i}", budget={"trials": 10_000}) for i in range(3)]
    database, most = benches[0].database, 4
    limit(database, max_running_trials=most)
    seen: list[int] = []
    done = threading.Event()

    def work(index: int) -> None:
        if index == threads:
            while not done.is_set():
                seen.append(leased(database))
            return
        bench = benches[index % len(benches)]
        for _ in range(12):
            reserved = database.run(lambda s: _reserve(s, bench, index))
            started = bench.start(reserved, f"w{index}")
            for reservation in reserved:
                assert reservation.trial_id in started
                database.run(lambda s, r=reservation: recording.finish(s, bench.study_id, [complete(r)], [], TTL_S))
        remaining.release()

    def _reserve(session: Any, bench: Bench, index: int) -> Any:
        from app.store import leases

        return leases.reserve(session, bench.study_id, f"w{index}", 3, TTL_S)

    remaining = threading.Semaphore(0)

    def watch() -> None:
        for _ in range(threads):
            remaining.acquire(timeout=100)
        done.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    together(threads + 1, work)
    watcher.join(120)
    assert max(seen) <= most
    assert leased(database) == 0
    for bench in benches:
        bench.check()
    with database.read() as session:
        assert int(session.scalar(select(func.sum(Study.complete))) or 0) > 0


def test_workers_pass_over_projects_that_are_held_back_and_studies_say_so(make_bench: Callable[..., Bench]) -> None:
    one, other = make_bench(), make_bench(name="other")
    with one.database.read() as session:
        assert {c.study_id for c in workers.claimable(session, OFFER)} == {one.study_id, other.study_id}
        assert quotas.trial_room(session, "default") is None
    limit(one.database, max_running_trials=1)
    one.reserve(1)
    with one.database.read() as session:
        assert workers.claimable(session, OFFER) == []
        room = quotas.trial_room(session, "default")
        assert "1 trials of at most 1" in str(workers.pending_reason(other.study(), [OFFER], {}, room))
        assert workers.pending_reason(one.study(), [OFFER], {}, room) is None  # something of it runs


def test_without_a_quota_a_reservation_says_nothing_more_to_the_database(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    with listening(bench.database) as heard:
        bench.reserve(1)
    assert len(heard.statements) == 3  # the study, the new trial, the study's counters
    limit(bench.database, max_running_trials=10)
    with listening(bench.database) as heard:
        bench.reserve(1)
    assert len(heard.statements) == 5


def test_a_generation_that_the_quota_has_no_room_for_waits_as_a_whole(make_bench: Callable[..., Bench]) -> None:
    changes = {"execution": {"parallel_trials": 2}, "training": {"deterministic": True}}
    bench, other = make_bench(**changes), make_bench(name="other")
    assert bench.study().generation == 2
    limit(bench.database, max_running_trials=2)
    (held,) = other.running(1)
    assert bench.reserve(2) == []
    with bench.database.read() as session:
        room = quotas.trial_room(session, "default")
    assert "begins 2 together" in str(workers.pending_reason(bench.study(), [OFFER], {}, room))
    other.finish(held)
    assert len(bench.reserve(2)) == 2


# -- studies ----------------------------------------------------------------------------------------------------------


def test_creations_at_once_never_exceed_the_quota_of_studies(database: Database) -> None:
    limit(database, max_studies=3)
    made, refused = [], []

    def work(index: int) -> None:
        try:
            made.append(database.run(lambda session: _create(session, index)))
        except QuotaExceeded as error:
            refused.append(error)

    together(8, work)
    assert (len(made), len(refused)) == (3, 5)
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Study)) == 3


def _create(session: Any, index: int, project: str = "default") -> int:
    study = lifecycle.create_study(
        session, definition(name=f"study-{index}"), project=project, created_by=None, sample_limit=None
    )
    return study.id


def test_quotas_are_each_projects_own(database: Database) -> None:
    limit(database, max_studies=0)
    with database.write() as session:
        projects.create_project(session, "apart", "", projects.Quotas(), created_by=None)
    with pytest.raises(QuotaExceeded, match="0 of at most 0"), database.write() as session:
        _create(session, 1)
    with database.write() as session:
        _create(session, 1, "apart")
    with pytest.raises(NotFound), database.write() as session:
        projects.change_project(session, "nothing", None, {"max_studies": 1})


# -- stored bytes -----------------------------------------------------------------------------------------------------


def file(path: str, size: int) -> ArtifactPointer:
    return ArtifactPointer(name="model.keras", path=path, media_type="application/zip", size_bytes=size, details={})


def paths(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.scalars(select(Artifact.path)))


def test_a_model_that_does_not_fit_is_let_go_and_the_result_stands(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    limit(bench.database, max_stored_bytes=100)
    first, second, third = bench.running(3)

    def finish(reservation: Any, value: float, artifact: ArtifactPointer) -> list[str]:
        outcome = complete(reservation, value, artifacts=(artifact,))
        with bench.database.write() as session:
            recorded = recording.finish(session, bench.study_id, [outcome], [], TTL_S)
        assert recorded.trial_ids == {reservation.trial_id}
        return recorded.superseded_paths

    assert finish(first, 0.9, file("a", 60)) == []
    assert finish(second, 0.5, file("b", 101)) == ["b"]
    assert paths(bench.database) == {"a"}  # better an earlier model than none
    assert bench.trial(1).state == "COMPLETE"
    assert bench.study().best_number == 1
    with bench.database.read() as session:
        words = session.scalar(select(TrialLog.text).where(TrialLog.trial_id == second.trial_id)) or ""
    assert "QUOTA_EXCEEDED" in words
    assert "100 bytes" in words
    assert finish(third, 0.1, file("c", 100)) == ["a"]  # it takes the place of the earlier one
    assert paths(bench.database) == {"c"}
    bench.check()


def test_a_quota_that_was_lowered_lets_smaller_files_take_the_place_of_larger_ones(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    first, second = bench.running(2)
    for reservation, value, artifact in ((first, 0.9, file("a", 60)), (second, 0.5, file("b", 50))):
        with bench.database.write() as session:
            outcome = complete(reservation, value, artifacts=(artifact,))
            recording.finish(session, bench.study_id, [outcome], [], TTL_S)
        limit(bench.database, max_stored_bytes=10)
    assert paths(bench.database) == {"b"}


def test_uploads_at_once_never_exceed_the_quota_of_bytes(database: Database) -> None:
    limit(database, max_stored_bytes=100)
    made, refused = [], []

    def work(index: int) -> None:
        try:
            made.append(database.run(lambda session: _add(session, index, 30)))
        except QuotaExceeded as error:
            refused.append(error)

    together(6, work)
    assert (len(made), len(refused)) == (3, 3)
    with database.write() as session:
        assert quotas.usage_of(session, "default").stored_bytes == 90
        assert _add(session, made[0], 30) == made[0]  # the same one again takes nothing
        _add(session, 99, 1_000, uri="file:///elsewhere")  # is not stored here
        assert quotas.usage_of(session, "default").stored_bytes == 90


def _add(session: Any, index: int, size: int, uri: str | None = None) -> int:
    from dataclasses import replace

    from app.domain.datasets import BUILT_IN

    known = replace(BUILT_IN["wine"], name=f"upload-{index}")
    new = datasets.NewDataset(known, f"{index:064d}", f"{index:064d}", size, "{}", uri)
    datasets.add_dataset(session, new, project="default", created_by=None)
    return index


def test_checkpoints_count_and_are_always_written(make_bench: Callable[..., Bench]) -> None:
    from app.store.checkpoints import New
    from app.store.turnover import record_and_checkpoint

    bench = make_bench()
    limit(bench.database, max_stored_bytes=10)
    (held,) = bench.running(1)
    written = New(held.trial_id, held.token, 1, CheckpointPointer(epochs=1, path="c", size_bytes=1_000))
    with bench.database.write() as session:
        standing, _ = record_and_checkpoint(session, bench.study_id, bench.public_id, [written], [], TTL_S)
    assert standing == {held.trial_id}
    with bench.database.read() as session:
        assert quotas.usage_of(session, "default").stored_bytes == 1_000
    with pytest.raises(QuotaExceeded), bench.database.write() as session:
        _add(session, 1, 1)
