"""Lists of trials: every sort, filter and page against a sort in Python, at a cost that doesn't grow with the study."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, text
from sqlalchemy.orm import Session

from app.domain.trial import FailureReason, Outcome, TrialState
from app.store import leases, recording, trials
from app.store.listing import ALL_CLASSES, Class, ShownTrial, at_one_moment, list_trials, sort_key
from app.store.tables import Trial, table_of
from tests.store.conftest import Bench
from tests.store.plans import check_plans, statements

SORTS = ("number", "-number", "value", "-value")
VALUES = st.sampled_from([None, math.nan, math.inf, -math.inf, -1.5, -0.0, 0.0, 0.1, 0.1 + 0.2, 0.3, 5e-324, 1e308])
FILTERS = [
    (states, feasible)
    for count in range(len(TrialState) + 1)
    for states in itertools.combinations(TrialState, count)
    for feasible in (None, True, False)
]


@dataclass(frozen=True)
class Stored:
    """What decides whether and where a list shows a trial."""

    number: int
    kind: Class
    value: float | None


def fill(bench: Bench, kinds: list[tuple[Class, float | None]]) -> list[Stored]:
    """Put trials of these classes and values into the study."""
    stored = [Stored(number, kind, value) for number, (kind, value) in enumerate(kinds)]
    rows = [
        {
            "study_id": bench.study_id,
            "number": s.number,
            "state": s.kind[0],
            "feasible": s.kind[1],
            "value": s.value,
            "attempt": 1,
            "epochs": 2,
            "metrics": None if s.number % 2 else "{}",
            "created_at": 1.0,
        }
        for s in stored
    ]
    reports = text(
        "INSERT INTO fettle_metrics SELECT id, 1, epoch, '{}', 0.0 FROM fettle_trials "
        "JOIN (SELECT 0 AS epoch UNION ALL SELECT 1) AS epochs ON TRUE WHERE study_id = :id"
    )
    with bench.database.write() as session:
        if rows:
            session.connection().execute(insert(table_of(Trial)), rows)
            session.connection().execute(reports, {"id": bench.study_id})
    return stored


def expected(stored: list[Stored], states: tuple[TrialState, ...], feasible: bool | None, sort: str) -> list[int]:
    """What a list shows, by the contract."""
    chosen = [s for s in stored if not states or s.kind[0] in states]
    chosen = [s for s in chosen if feasible is None or s.kind[1] is feasible]
    if sort in {"number", "-number"}:
        return sorted((s.number for s in chosen), reverse=sort == "-number")
    sign = -1.0 if sort == "-value" else 1.0

    def place(s: Stored) -> tuple[bool, float, int]:
        without = s.value is None or math.isnan(s.value)
        return (without, 0.0 if s.value is None or without else sign * s.value, s.number)

    return [s.number for s in sorted(chosen, key=place)]


def pages(session: Session, study_id: int, limit: int, **query: Any) -> Iterator[list[ShownTrial]]:
    """All pages of a list, each asked for after the last trial of the one before."""
    after = None
    while found := list_trials(session, study_id, after=after, limit=limit, **query):
        yield found
        after = sort_key(found[-1], query["sort"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kinds=st.lists(st.tuples(st.sampled_from(ALL_CLASSES), VALUES), max_size=40),
    chosen=st.lists(st.sampled_from(FILTERS), min_size=1, max_size=6),
    limit=st.integers(1, 7),
)
def test_pages_are_what_a_sort_of_all_trials_gives(
    make_bench: Callable[..., Bench],
    kinds: list[tuple[Class, float | None]],
    chosen: list[tuple[tuple[TrialState, ...], bool | None]],
    limit: int,
) -> None:
    bench = make_bench(name=f"study-{next(_NAMES)}")
    stored = fill(bench, kinds)
    with bench.database.read() as session:
        for (states, feasible), sort in itertools.product(chosen, SORTS):
            found = list(pages(session, bench.study_id, limit, states=states, feasible=feasible, sort=sort))
            numbers = [trial.number for some in found for trial in some]
            assert numbers == expected(stored, states, feasible, sort), (states, feasible, sort)
            assert all(len(some) == limit for some in found[:-1])


_NAMES = itertools.count()


def test_many_trials_with_one_value_are_listed_by_number_in_both_directions(bench: Bench) -> None:
    good, bad = (TrialState.COMPLETE, True), (TrialState.COMPLETE, False)
    stored = fill(bench, [(bad if i % 3 == 0 else good, float(i % 2)) for i in range(60)])
    with bench.database.read() as session:
        for sort, limit in itertools.product(("value", "-value"), (1, 7, 30, 59, 60, 61)):
            found = pages(session, bench.study_id, limit, sort=sort)
            assert [t.number for some in found for t in some] == expected(stored, (), None, sort)


def test_every_outcome_falls_into_a_class_that_lists_show(bench: Bench) -> None:
    """Lists ask class by class: what a worker can record must be in one of them, or it would be shown by none."""
    bench.act(_raise_budget)
    for i, state in enumerate((TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)):
        (trial,) = bench.running()
        reason = FailureReason.EXCEPTION if state is TrialState.FAIL else None
        outcome = Outcome(trial.trial_id, trial.token, state, violations=(i - 0.5,), reason=reason)
        bench.act(recording.finish, [outcome], [], 60.0)
    bench.running()
    bench.reserve()
    with bench.database.read() as session:
        for sort in SORTS:
            assert len(list_trials(session, bench.study_id, sort=sort, limit=10)) == 6
    stored = {(t.state, t.feasible) for t in bench.trials()}
    assert stored <= set(ALL_CLASSES)
    assert len(stored) == 6


def _raise_budget(session: Session, study_id: int) -> None:
    session.execute(text("UPDATE fettle_studies SET trial_limit = 100 WHERE id = :id"), {"id": study_id})


def test_a_page_shows_one_moment(bench: Bench) -> None:
    """A trial that changes its place between the statements of a page is neither lost nor shown twice."""
    (running,) = bench.running()
    with bench.database.read() as session:
        at_one_moment(session)
        assert list_trials(session, bench.study_id, states=[TrialState.COMPLETE], limit=5) == []
        bench.finish(running)
        assert list_trials(session, bench.study_id, states=[TrialState.COMPLETE], limit=5) == []
        (shown,) = list_trials(session, bench.study_id, states=[TrialState.RUNNING], limit=5)
        assert shown.state == "RUNNING"


# What a page costs. Most trials are COMPLETE with few values; some classes are rare, some are empty.

PAGE = 20


def _large(count: int) -> list[tuple[Class, float | None]]:
    kinds: list[tuple[Class, float | None]] = []
    for i in range(count):
        if i % 400 == 7:
            kinds.append(((TrialState.FAIL, None), None))
        elif i % 500 == 9:
            kinds.append(((TrialState.COMPLETE, False), 0.5))
        elif i % 10 == 3:
            kinds.append(((TrialState.PRUNED, None), None if i % 20 == 3 else 0.25))
        else:
            kinds.append(((TrialState.COMPLETE, True), (i * 7919 % 50) / 50))
    return kinds


def _places(stored: list[Stored], states: Any, feasible: Any, sort: str) -> list[tuple[Any, ...] | None]:
    """Cursors to the first page, the middle and the end of a list."""
    numbers = expected(stored, states, feasible, sort)
    places: list[tuple[Any, ...] | None] = [None]
    for i in {len(numbers) // 2, max(0, len(numbers) - PAGE // 2)} - {0}:
        last = stored[numbers[i - 1]]
        places.append((last.number,) if sort.endswith("number") else (last.value, last.number))
    return places


LISTS = [
    ((), None),
    ((), True),
    ((), False),
    *(((state,), None) for state in TrialState),
    ((TrialState.COMPLETE,), False),
    ((TrialState.FAIL,), True),
    ((TrialState.COMPLETE, TrialState.PRUNED), None),
    ((TrialState.FAIL, TrialState.RUNNING), None),
]


def _show_pages(session: Session, bench: Bench, stored: list[Stored]) -> Iterator[tuple[Any, ...]]:
    """Read pages of every list, with all that they show; between two of them the caller looks at what that took."""
    for (states, feasible), sort in itertools.product(LISTS, SORTS):
        for i, after in enumerate(_places(stored, states, feasible, sort)):
            found = list_trials(
                session, bench.study_id, states=states, feasible=feasible, sort=sort, after=after, limit=PAGE
            )
            trials.last_metrics(session, [trial for trial in found if trial.metrics is None])
            trials.artifacts_of(session, [trial.id for trial in found])
            yield states, feasible, sort, i


def test_pages_are_read_from_ranges_of_indexes_without_sorting(bench: Bench) -> None:
    stored = fill(bench, _large(8_000))
    if not bench.database.is_sqlite:
        with bench.database.engine.begin() as connection:
            connection.execute(text("ANALYZE"))
    with statements(bench.database) as seen, bench.database.read() as session:
        for query in _show_pages(session, bench, stored):
            # Every row that is touched is shown, or was merged away: at most a page of each class.
            check_plans(session, seen, PAGE * len(ALL_CLASSES), query)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_the_steps_of_a_page_do_not_grow_with_the_study(make_bench: Callable[..., Bench]) -> None:
    """Counted by SQLite's virtual machine, in units of ten instructions."""
    small, large = make_bench(name="small"), make_bench(name="large")

    def count(bench: Bench, size: int) -> dict[Any, int]:
        stored = fill(bench, _large(size))
        steps = [0]

        def tick() -> None:
            steps[0] += 1

        found = {}
        with bench.database.read() as session:
            connection: Any = session.connection().connection.dbapi_connection
            connection.set_progress_handler(tick, 10)
            for query in _show_pages(session, bench, stored):
                found[query] = steps[0]
                steps[0] = 0
            connection.set_progress_handler(None, 0)
        return found

    dearest = max(count(small, 1_000).values())
    for query, steps in count(large, 16_000).items():
        assert steps < 1.3 * dearest, (query, steps, dearest)


def test_metrics_of_a_page_are_those_of_the_last_epoch(bench: Bench) -> None:
    first, second, third = bench.running(3)
    for epoch in range(3):
        bench.record(bench.report(first, epoch, epoch / 10))
    bench.record(bench.report(second, 0, 7.0))
    bench.act(leases.release, [(second.trial_id, second.token)], "draining")
    (again,) = bench.running()
    assert again.trial_id == second.trial_id
    with bench.database.read() as session:
        shown = list_trials(session, bench.study_id, limit=3)
        assert trials.last_metrics(session, shown) == {first.trial_id: '{"value":0.2}'}
    bench.record(bench.report(again, 0, 8.0))
    with bench.database.read() as session:
        found = trials.last_metrics(session, list_trials(session, bench.study_id, limit=3))
    assert found == {first.trial_id: '{"value":0.2}', second.trial_id: '{"value":8.0}'}
    assert third.trial_id not in found
