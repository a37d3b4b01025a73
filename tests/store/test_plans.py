"""What storage costs as a study grows: every statement on a trial's way finds its rows by an index, on both databases,
and says as much to the database for a stack as for a pair, with thousands of finished trials as with twenty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app.domain.trial import ArtifactPointer, FailureReason, Proposal, Reservation
from app.store import leases, lifecycle, recording, turnover, workers
from app.store.reaper import Reaper
from app.store.tables import Base
from tests.store.conftest import TTL_S, Bench, complete
from tests.store.filled import fill
from tests.store.statements import Heard, counting_steps, listening, postgresql_scans, sqlite_scans

PAST = 1_000
"""Finished trials of a grown study."""
QUEUE = 100
"""Its trials that wait."""
MOST_ROWS = 50
"""Rows that one step of a plan may read on behalf of a stack of two, with what lies around them in an index."""

Work = Callable[[Bench], Callable[[], Any]]
"""Prepares something, and returns the work that is watched."""


def _pairs(reservations: list[Reservation]) -> list[tuple[int, str]]:
    return [(r.trial_id, r.token) for r in reservations]


def _proposals(reservations: list[Reservation]) -> list[Proposal]:
    return [Proposal(r, {"x0": 0.5}, {"x0": 0.5}, {}) for r in reservations]


def _reports(bench: Bench, reservations: list[Reservation]) -> list[recording.Report]:
    return [bench.report(r, epoch, 1.0) for r in reservations for epoch in range(3)]


def reserve(bench: Bench) -> Callable[[], Any]:
    return lambda: bench.reserve(2)


def reserve_given_back(bench: Bench) -> Callable[[], Any]:
    bench.act(leases.release, _pairs(bench.running(2)), "RELEASED")
    bench.act(lifecycle.enqueue, {"x0": 0.25})
    return lambda: bench.reserve(2)


def start(bench: Bench) -> Callable[[], Any]:
    reservations = bench.reserve(2)
    return lambda: bench.start(reservations)


def start_alike(bench: Bench) -> Callable[[], Any]:
    """Two trials that take the results of others, among many whose identities are known."""
    with bench.database.write() as session:
        session.execute(
            text("UPDATE fettle_trials SET identity = 'id' || id WHERE study_id = :study AND state = 'COMPLETE'"),
            {"study": bench.study_id},
        )
    alike = [f"id{bench.trial(number).id}" for number in (0, 1)]
    reservations = bench.reserve(2)
    made = [
        Proposal(r, {"x0": 0.5}, {"x0": 0.5}, {}, identity=identity, on_duplicate="reuse")
        for r, identity in zip(reservations, alike, strict=True)
    ]
    return lambda: bench.act(leases.start, made, "w1", "cpu", TTL_S)


def record(bench: Bench) -> Callable[[], Any]:
    reports = _reports(bench, bench.running(2))
    return lambda: bench.record(*reports)


def finish(bench: Bench, count: int = 2) -> Callable[[], Any]:
    running, others = bench.running(count), bench.running(2)
    outcomes = [complete(r, -float(i), log="done\n") for i, r in enumerate(running)]
    reports = _reports(bench, [*running, *others])
    return lambda: bench.act(recording.finish, outcomes, reports, TTL_S)


def finish_and_reserve(bench: Bench) -> Callable[[], Any]:
    outcomes = [complete(r) for r in bench.running(2)]
    return lambda: bench.act(turnover.finish_and_reserve, outcomes, [], 2, "w1", TTL_S)


def finish_and_start(bench: Bench) -> Callable[[], Any]:
    outcomes = [complete(r) for r in bench.running(2)]
    proposals = _proposals(bench.reserve(2))
    return lambda: bench.act(turnover.finish_and_start, outcomes, [], proposals, "w1", "cpu", TTL_S)


def publish(bench: Bench) -> Callable[[], Any]:
    first, second = bench.running(2)
    pointer = ArtifactPointer("model.keras", "a/model.keras", "application/zip", 1)
    bench.finish(first, -1.0, artifacts=(pointer,))
    return lambda: bench.finish(second, -2.0, artifacts=(pointer,))


def release(bench: Bench) -> Callable[[], Any]:
    pairs = _pairs([*bench.running(2), *bench.reserve(2)])
    return lambda: bench.act(leases.release, pairs, "RELEASED")


def charge(bench: Bench) -> Callable[[], Any]:
    pairs = _pairs(bench.running(2))
    return lambda: bench.act(leases.charge, pairs, FailureReason.EXCEPTION, "TRAINER_CRASHED", "segfault")


def fail(bench: Bench) -> Callable[[], Any]:
    pairs = _pairs(bench.reserve(2))
    return lambda: bench.act(leases.fail, pairs, FailureReason.EXCEPTION, "SAMPLER_FAILED", "no cell left")


def keep(bench: Bench) -> Callable[[], Any]:
    pairs = _pairs(bench.running(2))

    def work() -> None:
        with bench.database.write() as session:
            leases.renew(session, pairs, TTL_S)
        with bench.database.read() as session:
            leases.standing(session, pairs)
            workers.halted_studies(session, [bench.study_id])
            workers.claimable(session, workers.Offer("cpu", ["function"], {}))

    return work


def reap(bench: Bench) -> Callable[[], Any]:
    bench.expire(*bench.running(2))
    reaper = Reaper(bench.database)
    assert reaper.look() == 0
    return reaper.look


def end(bench: Bench) -> Callable[[], Any]:
    """The end of a study whose waiting trials were cancelled one by one."""
    for trial in bench.trials():
        if trial.state == "WAITING":
            bench.act(lifecycle.cancel_trial, trial.number)
    return lambda: bench.act(lifecycle.cancel)


WORKS: list[Work] = [
    reserve, reserve_given_back, start, start_alike, record, finish, finish_and_reserve, finish_and_start, publish,
    release, charge, fail, keep, reap, end,
]  # fmt: skip
BREAKS: list[tuple[str, Work]] = [
    ("ix_fettle_trials_queue", reserve_given_back),
    ("ix_fettle_trials_lease_expires_at", reap),
    ("ix_fettle_artifacts_study", publish),
    ("ix_fettle_trials_identity", start_alike),
]
"""Indexes, and work that reads too much without them. A study's live trials begin two of them: either one will do."""
ON_SQLITE_ALONE = {"ix_fettle_trials_lease_expires_at"}
"""Indexes in whose place PostgreSQL finds another one that is as good for a test."""


def grown(make_bench: Callable[..., Bench], name: str = "grown", past: int = PAST) -> Bench:
    """A study with many finished trials and many that wait."""
    bench = make_bench(name=name, budget={"trials": 4 * PAST})
    fill(bench.database, bench.study_id, past, epochs=1)
    with bench.database.write() as session:
        for _ in range(QUEUE):
            lifecycle.enqueue(session, bench.study_id, {"x0": 0.25})
    return bench


@pytest.fixture
def among_others(make_bench: Callable[..., Bench]) -> Bench:
    """A grown study beside another one that kept its files, in a database that knows its statistics."""
    other = grown(make_bench, "other")
    bench = grown(make_bench)
    with bench.database.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO fettle_artifacts"
                " (study_id, trial_id, name, attempt, path, media_type, size_bytes, details, created_at)"
                " SELECT study_id, id, 'log.txt', 1, 'x', 'text/plain', 1, '{}', 0 FROM fettle_trials"
                " WHERE study_id = :study"
            ),
            {"study": other.study_id},
        )
        if not bench.database.is_sqlite:
            connection.execute(text("ANALYZE"))
    return bench


def heard_of(bench: Bench, work: Work, most: int = MOST_ROWS) -> Heard:
    """The statements of a piece of work, explained."""
    watched = work(bench)
    explain = sqlite_scans if bench.database.is_sqlite else postgresql_scans(most)
    with listening(bench.database, explain) as heard:
        watched()
    return heard


def test_no_statement_reads_more_than_it_is_about(among_others: Bench) -> None:
    heard = {work.__name__: heard_of(among_others, work) for work in WORKS}
    assert all(found.statements for found in heard.values())
    assert {name: found.bad for name, found in heard.items() if found.bad} == {}


def test_nor_does_it_scan_a_table_while_that_is_small(make_bench: Callable[..., Bench]) -> None:
    young = grown(make_bench, past=20)
    heard = {work.__name__: heard_of(young, work, most=PAST) for work in WORKS}
    assert {name: found.bad for name, found in heard.items() if found.bad} == {}


def test_an_index_that_is_missing_is_noticed(among_others: Bench) -> None:
    indexes = {str(index.name): index for table in Base.metadata.tables.values() for index in table.indexes}
    unnoticed = set()
    for name, work in BREAKS:
        with among_others.database.engine.begin() as connection:
            indexes[name].drop(connection)
        try:
            if not heard_of(among_others, work).bad:
                unnoticed.add(name)
        except OperationalError as error:  # SQLite, where the statement names its index
            assert name in str(error)  # noqa: PT017
        with among_others.database.engine.begin() as connection:
            indexes[name].create(connection)
    assert unnoticed == (set() if among_others.database.is_sqlite else ON_SQLITE_ALONE)


def statements_of(bench: Bench, work: Work) -> list[str]:
    watched = work(bench)
    with listening(bench.database) as heard:
        watched()
    return heard.statements


def test_a_stack_of_sixteen_is_finished_with_the_statements_of_a_pair(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(budget={"trials": 100})
    pair = statements_of(bench, finish)
    sixteen = statements_of(bench, lambda b: finish(b, 16))
    assert sixteen == pair
    bench.check()


def test_as_many_statements_with_many_finished_trials_as_with_twenty(make_bench: Callable[..., Bench]) -> None:
    young, old = grown(make_bench, "young", past=20), grown(make_bench, "old")
    for work in WORKS:
        assert statements_of(old, work) == statements_of(young, work), work.__name__


def test_sqlite_does_no_more_steps_with_many_finished_trials_than_with_twenty(
    make_sqlite_bench: Callable[..., Bench],
) -> None:
    def steps_of(bench: Bench, work: Work) -> int:
        watched = work(bench)
        with counting_steps(bench.database) as steps:
            watched()
        return steps[0]

    young, old = grown(make_sqlite_bench, "young", past=20), grown(make_sqlite_bench, "old")
    for work in WORKS:
        assert steps_of(old, work) <= 1.2 * steps_of(young, work), work.__name__
