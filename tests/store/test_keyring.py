"""What an API process remembers of keys: little, not for long, and never that a stranger may come in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from app.api import keyring
from app.api.keyring import Keyring
from app.domain.access import ANYBODY, Scope
from app.domain.keys import new_key
from app.errors import Unauthenticated, Unready
from app.store import keys
from app.store.engine import Database
from app.store.pepper import Pepper
from tests.store.statements import listening


@pytest.fixture
def pepper(tmp_path: Path) -> Pepper:
    return Pepper(tmp_path)


@pytest.fixture
def made(database: Database, pepper: Pepper) -> Callable[..., bytes]:
    """`made(name)`: the header of a new key."""

    def make(name: str, **changes: float) -> bytes:
        with database.write() as session:
            new = keys.NewKey(name, "default", [Scope.READ], **changes)  # type: ignore[arg-type]
            _, text = keys.create_key(session, new, pepper.ensure())
        return f"Bearer {text}".encode()

    return make


def test_many_requests_at_once_ask_once(database: Database, pepper: Pepper, made: Callable[..., bytes]) -> None:
    header = made("one")

    async def work() -> None:
        ring = Keyring(database, pepper)
        callers = await asyncio.gather(*(ring.caller(header) for _ in range(50)))
        assert {caller.name for caller in callers} == {"one"}

    with listening(database) as heard:
        asyncio.run(work())
    assert len(heard.statements) == 2  # whether there is any key, and which this one is


def test_floods_of_made_up_keys_push_out_no_real_one(
    database: Database, pepper: Pepper, made: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "REMEMBERED", 5)
    header = made("one")

    async def work() -> None:
        ring = Keyring(database, pepper)
        await ring.caller(header)
        for _ in range(20):
            with pytest.raises(Unauthenticated):
                await ring.caller(f"Bearer {new_key().text}".encode())
        assert (len(ring._known), len(ring._unknown)) == (1, 5)
        with listening(database) as heard:
            await ring.caller(header)
        assert heard.statements == []

    asyncio.run(work())


def test_mistyped_keys_cost_no_query(database: Database, pepper: Pepper, made: Callable[..., bytes]) -> None:
    header = made("one")

    async def work() -> None:
        ring = Keyring(database, pepper)
        await ring.caller(header)
        with listening(database) as heard:
            for wrong in (header[:-1], header[:-1] + b"!", b"Bearer " + b"x" * 100_000, b"", None):
                with pytest.raises(Unauthenticated):
                    await ring.caller(wrong)
        assert heard.statements == []

    asyncio.run(work())


def test_a_service_is_never_taken_for_open_while_its_database_is_away(
    sqlite_url: str, pepper: Pepper, tmp_path: Path
) -> None:
    async def work() -> None:
        ring = Keyring(Database(sqlite_url), pepper)  # without any table
        for header in (None, b"Bearer x"):
            with pytest.raises(Unready):
                await ring.caller(header)

    asyncio.run(work())


def test_an_open_service_is_asked_again_after_some_seconds(
    database: Database, pepper: Pepper, made: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        ring = Keyring(database, pepper)
        assert await ring.caller(None) == ANYBODY
        header = await asyncio.to_thread(made, "first")
        assert await ring.caller(None) == ANYBODY  # it was asked a moment ago
        monkeypatch.setattr(keyring, "FRESH_S", 0.0)
        with pytest.raises(Unauthenticated):
            await ring.caller(None)
        assert (await ring.caller(header)).name == "first"

    asyncio.run(work())


def test_a_rotation_elsewhere_is_seen_after_some_seconds(
    database: Database, pepper: Pepper, made: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    header = made("one")

    async def work() -> None:
        ring = Keyring(database, pepper)
        key_id = str((await ring.caller(header)).key_id)
        with database.write() as session:
            _, text = keys.rotate_key(session, None, key_id, 60.0, pepper.ensure())
        monkeypatch.setattr(keyring, "FRESH_S", 0.0)
        for good in (header, f"Bearer {text}".encode()):
            assert (await ring.caller(good)).name == "one"

    asyncio.run(work())
