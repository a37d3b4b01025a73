"""Lists of studies and pages of events: in order, each once, and read from ranges of indexes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import insert, text
from sqlalchemy.orm import Session

from app.domain.study import StudyState
from app.store import events
from app.store.engine import Database
from app.store.studies import StudyFilter, list_studies, sort_key
from app.store.tables import Event, Study, StudyLabel, table_of
from tests.store.conftest import Bench
from tests.store.plans import check_plans, statements

STUDIES = 1_500
PAGE = 20
MOST_ROWS = 3 * PAGE
"""Rows that PostgreSQL may touch for a page: it filters by a frequent state, and looks an event's study up."""
SORTS = ("name", "created_at", "-created_at")


@pytest.fixture
def many(database: Database) -> Database:
    """A database with many studies, three for each moment, few of them running."""
    rows = [
        {
            "id": i + 1,
            "public_id": f"st_{i}",
            "name": f"study-{i * 7 % STUDIES:05}",
            "directions": "[]",
            "definition": "x" * 1_500,
            "state": "RUNNING" if i % 50 == 7 else "COMPLETED",
            "created_at": 1.7e9 + i // 3,
        }
        for i in range(STUDIES)
    ]
    labels = [{"study_id": row["id"], "key": "team", "value": "ab"[i % 2]} for i, row in enumerate(rows)]
    with database.write() as session:
        session.connection().execute(insert(table_of(Study)), rows)
        session.connection().execute(insert(table_of(StudyLabel)), labels)
    _analyze(database)
    return database


def _analyze(database: Database) -> None:
    if not database.is_sqlite:
        with database.engine.begin() as connection:
            connection.execute(text("ANALYZE"))


def _walk(session: Session, narrowed: StudyFilter, sort: str, limit: int) -> list[Study]:
    found: list[Study] = []
    after = None
    while some := list_studies(session, "default", narrowed, sort=sort, after=after, limit=limit):
        found += some
        after = sort_key(some[-1], sort)
    return found


def test_lists_of_studies_give_each_once_in_order(many: Database) -> None:
    filters: list[tuple[StudyFilter, Callable[[Study], bool]]] = [
        (StudyFilter(), lambda _: True),
        (StudyFilter(states=[StudyState.RUNNING]), lambda s: s.state == "RUNNING"),
        (StudyFilter(states=[StudyState.RUNNING, StudyState.COMPLETED]), lambda _: True),
        (StudyFilter(states=[StudyState.FAILED]), lambda _: False),
        (StudyFilter(labels=[("team", "b")]), lambda s: s.id % 2 == 0),
        (StudyFilter(text="-0001"), lambda s: "-0001" in s.name),
    ]
    with many.read() as session:
        whole = session.query(Study).all()
        for (narrowed, shows), sort in itertools.product(filters, SORTS):
            keys: dict[str, Callable[[Study], Any]] = {
                "name": lambda s: s.name,
                "created_at": lambda s: (s.created_at, s.id),
                "-created_at": lambda s: (-s.created_at, -s.id),
            }
            expected = [s.id for s in sorted(filter(shows, whole), key=keys[sort])]
            assert [s.id for s in _walk(session, narrowed, sort, 67)] == expected, (narrowed, sort)


def test_lists_of_studies_are_read_from_ranges_of_indexes(many: Database) -> None:
    queries: list[tuple[StudyFilter, str]] = [
        *((StudyFilter(), sort) for sort in SORTS),
        *((StudyFilter(states=[state]), sort) for state in StudyState for sort in ("created_at", "-created_at")),
    ]
    with statements(many) as seen, many.read() as session:
        for narrowed, sort in queries:
            whole = _walk(session, narrowed, sort, STUDIES)
            for i in {0, len(whole) // 2, max(0, len(whole) - PAGE)}:
                seen.clear()
                after = sort_key(whole[i - 1], sort) if i else None
                found = list_studies(session, "default", narrowed, sort=sort, after=after, limit=PAGE)
                assert [s.id for s in found] == [s.id for s in whole[i : i + PAGE]]
                check_plans(session, seen, MOST_ROWS, (narrowed, sort, i))


@pytest.mark.parametrize("project", ["default", None])
def test_pages_of_events_are_read_from_ranges_of_indexes(make_bench: Callable[..., Bench], project: str | None) -> None:
    """Those that name their project, and those of older releases, which don't."""
    first, second = make_bench(name="first"), make_bench(name="second")
    count = 6_000
    rows = [
        {
            "study_id": bench.study_id,
            "seq": 10 + i,
            "position": 5 + i // 4,
            "type": "trial.metrics",
            "data": "{}",
            "project": project,
        }
        for i in range(count)
        for bench in (first, second)
    ]
    with first.database.write() as session:
        session.connection().execute(insert(table_of(Event)), rows)
        if not first.database.is_sqlite:
            session.execute(text("UPDATE fettle_events SET position = 1 WHERE position > 10000"))
    _analyze(first.database)
    reads: list[Callable[[Session], Any]] = [
        *(
            lambda session, at=at: events.read_log(session, first.study_id, at, PAGE)  # type: ignore[misc]
            for at in (0, count // 2, count)
        ),
        *(
            lambda session, at=at: events.project_events_after(session, "default", at, PAGE)  # type: ignore[misc]
            for at in (events.START, (5 + count // 8, first.study_id, 10 + count // 2), (5 + count // 4, 0, 0))
        ),
        lambda session: events.latest_position(session, "default"),
    ]
    with statements(first.database) as seen, first.database.read() as session:
        for i, read in enumerate(reads):
            read(session)
            check_plans(session, seen, MOST_ROWS, i)


def test_the_firehose_shows_the_events_of_its_project_alone(make_bench: Callable[..., Bench]) -> None:
    ours, theirs = make_bench(name="ours"), make_bench(name="theirs")
    with ours.database.write() as session:
        session.execute(text("UPDATE fettle_studies SET project = 'other' WHERE id = :id"), {"id": theirs.study_id})
        session.execute(
            text("UPDATE fettle_events SET project = 'other' WHERE study_id = :id"), {"id": theirs.study_id}
        )
    for bench in (theirs, ours, theirs):
        bench.reserve()
        bench.running()
    with ours.database.read() as session:
        found = events.project_events_after(session, "default", events.START, 100)
        assert [e.type for e in found] == ours.kinds()
        assert {e.position[1] for e in found} == {ours.study_id}
        assert events.latest_position(session, "default") == found[-1].position
        assert events.latest_position(session, "nobody") == events.START
