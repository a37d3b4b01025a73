"""The order of the log where transactions overlap: within a study the firehose tells events by their numbers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.domain.json import loads
from app.store import log
from app.store.engine import Database
from app.store.events import START, Position, project_events_after
from app.store.log import NewEvent
from app.store.tables import Event
from tests.store.conftest import Bench, bench_maker


def tell(session: Session, bench: Bench, trial: int) -> None:
    event = NewEvent("trial.metrics", {"attempt": 1, "epoch": 0, "metrics": {}}, trial)
    log.append(session, bench.study_id, bench.public_id, [event], at=log.clock(session))


def firehose(database: Database, after: Position = START, limit: int = 1000) -> list[tuple[Position, dict[str, Any]]]:
    with database.read() as session:
        return [(e.position, loads(e.data)) for e in project_events_after(session, "default", after, limit)]


def test_who_began_first_and_tells_second_comes_second(postgres_database: Database) -> None:
    make = bench_maker(postgres_database)
    bench, other = make(), make(name="other")
    with postgres_database.write() as early:
        early.execute(text("SELECT pg_current_xact_id()"))
        with postgres_database.write() as late:
            late.execute(text("SELECT pg_current_xact_id()"))
            tell(late, other, 0)
            tell(late, bench, 0)
        assert {data["trial"] for _, data in firehose(postgres_database) if "trial" in data} == set()
        tell(early, bench, 1)
        tell(early, bench, 2)
    events = firehose(postgres_database)
    own = [data for _, data in events if data["study_id"] == bench.public_id]
    assert [data.get("trial") for data in own] == [None, 0, 1, 2]
    assert [data["seq"] for data in own] == [1, 2, 3, 4]
    # Whoever was given a part of it gets the rest by the last position.
    for index, (position, _) in enumerate(events):
        assert firehose(postgres_database, position) == events[index + 1 :]


def test_many_who_tell_of_one_study_at_once_are_told_in_the_order_of_its_log(
    make_bench: Callable[..., Bench], database: Database
) -> None:
    """A reader that follows all the while sees each event once, and each study's in its order."""
    benches = [make_bench(name=f"s{i}") for i in range(2)]

    def write(number: int) -> None:
        for turn in range(25):
            with database.write() as session:
                if not database.is_sqlite:
                    session.execute(text("SELECT pg_current_xact_id()"))
                tell(session, benches[(number + turn) % 2], number)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for writer in writers:
        writer.start()
    seen: list[dict[str, Any]] = []
    at = START
    while any(writer.is_alive() for writer in writers) or firehose(database, at):
        for position, data in firehose(database, at, limit=7):
            at = position
            seen.append(data)
    for bench in benches:
        own = [data["seq"] for data in seen if data["study_id"] == bench.public_id]
        with database.read() as session:
            query = select(Event.seq).where(Event.study_id == bench.study_id).order_by(Event.seq)
            assert own == list(session.scalars(query)) == list(range(1, len(own) + 1))
    assert len(seen) == 6 * 25 + 2
