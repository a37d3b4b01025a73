"""What the database keeps of deliveries: batches, leases, and where a webhook goes on after a restore."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select, update

from app.domain.json import loads
from app.errors import LeaseLost
from app.store import delivering, webhooks
from app.store.engine import Database
from app.store.events import START
from app.store.restoring import renew
from app.store.tables import Event, Webhook
from tests.store.conftest import Bench

TTL_S = 30.0


def added(database: Database, **fields: object) -> int:
    """A webhook that has heard nothing yet; its row's id."""
    with database.write() as session:
        new = webhooks.NewWebhook("https://example.com/", "whsec_" + "A" * 32, **fields)  # type: ignore[arg-type]
        row = webhooks.add_webhook(session, new, project="default", created_by=None)
        row.cursor_position, row.cursor_study, row.cursor_seq = START
        return row.id


def lease(database: Database, key: int) -> str | None:
    with database.write() as session:
        return delivering.take_lease(session, key, TTL_S)


def batch(database: Database, key: int, token: str) -> delivering.Batch | None:
    with database.write() as session:
        return delivering.next_batch(session, key, token, TTL_S, START)


def take(database: Database, key: int) -> list[tuple[str, int]]:
    """Deliver everything; the events as study and number."""
    token = lease(database, key)
    assert token is not None
    told: list[tuple[str, int]] = []
    while (sent := batch(database, key, token)) is not None:
        told += [(event["study_id"], event["seq"]) for event in map(loads, sent.events)]
        if sent.events:
            with database.write() as session:
                delivering.delivered(session, key, token, sent.end, 200)
    with database.write() as session:
        delivering.release(session, key, token)
    return told


def test_one_lease_at_a_time_and_a_lost_one_writes_nothing(
    database: Database, make_bench: Callable[..., Bench]
) -> None:
    make_bench()
    key = added(database)
    token = lease(database, key)
    assert token is not None
    assert lease(database, key) is None
    sent = batch(database, key, token)
    assert sent is not None
    with database.write() as session:
        session.execute(update(Webhook).values(lease_expires_at=1.0))
    other = lease(database, key)
    assert other not in {None, token}
    with pytest.raises(LeaseLost), database.write() as session:
        delivering.delivered(session, key, token, sent.end, 200)
    again = batch(database, key, str(other))
    assert again is not None
    assert (again.message_id, again.body) == (sent.message_id, sent.body)


def test_a_batch_that_was_begun_keeps_its_end_whatever_comes_after(
    database: Database, make_bench: Callable[..., Bench]
) -> None:
    bench = make_bench()
    key = added(database)
    token = str(lease(database, key))
    sent = batch(database, key, token)
    bench.running(2)
    again = batch(database, key, token)
    assert sent is not None
    assert again == sent


def test_after_a_restore_nothing_is_left_out_and_what_was_taken_does_not_come_again(
    database: Database, make_bench: Callable[..., Bench]
) -> None:
    first, second = make_bench(name="first"), make_bench(name="second")
    caught_up, behind, of_one = added(database), added(database), added(database)
    with database.write() as session:
        row = session.get_one(Webhook, of_one)
        row.study_id, row.cursor_study, row.cursor_seq = second.study_id, second.study_id, 0
    take(database, caught_up)
    with database.write() as session:  # as far as the first study's beginning
        place = session.execute(
            select(Event.position, Event.study_id, Event.seq).order_by(Event.position).limit(1)
        ).one()
        row = session.get_one(Webhook, behind)
        row.cursor_position, row.cursor_study, row.cursor_seq = place
    first.running(1)
    second.running(1)
    assert lease(database, caught_up) is not None
    before = {key: len(bench.events()) for key, bench in (("first", first), ("second", second))}
    with database.write() as session:
        # As in a server whose transactions have lower numbers than those that wrote the backup.
        session.execute(update(Event).values(position=Event.position + 10**12))
        for hook in session.scalars(select(Webhook).where(Webhook.study_id.is_(None))):
            hook.cursor_position += 10**12
    with database.write() as session:
        renew(session, None)
    told = take(database, caught_up)
    expected = {(b.public_id, e["seq"]) for b in (first, second) for e in b.events() if e["seq"] > 1}
    assert expected <= set(told)
    assert (first.public_id, 1) not in told
    everything = {(b.public_id, e["seq"]) for b in (first, second) for e in b.events()}
    assert everything - {(first.public_id, 1)} <= set(take(database, behind))
    assert [seq for _, seq in take(database, of_one)] == [e["seq"] for e in second.events()]
    assert before["first"] < len(first.events())
