"""Who a key belongs to: looked up once, then remembered for a few seconds, so that requests cost no query.

All methods but `forget`, `pepper` and `write_used` belong to one event loop. What is remembered is at most `FRESH_S`
old: a key that was revoked elsewhere is refused after that, and here at once.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.domain.access import ANYBODY, Caller
from app.domain.keys import Presented, digest, read_key
from app.errors import Unauthenticated, Unready
from app.store import keys
from app.store.engine import Database
from app.store.keys import StoredKey
from app.store.pepper import Pepper

log = logging.getLogger("fettle.access")

FRESH_S = 5.0
"""How long what the database said of a key is used."""
REMEMBERED = 10_000
"""Keys that are remembered, and as many ids that no key has: floods of either push out their own kind alone."""
LOOKUPS_AT_ONCE = 2
"""Threads that look keys up: strangers who make up ids can't take those of the endpoints."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Known:
    """What the database said of an id at a moment of the monotonic clock."""

    key: StoredKey | None
    at: float


class Keyring:
    """The keys of a service, for one API process."""

    def __init__(self, database: Database, pepper: Pepper) -> None:
        self._database = database
        self._pepper = pepper
        self._secret: bytes | None = None
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._unknown: OrderedDict[str, _Known] = OrderedDict()
        self._lookups: dict[str, asyncio.Task[Any]] = {}
        self._limiter = CapacityLimiter(LOOKUPS_AT_ONCE)
        self._has_keys = False
        self._asked_at = float("-inf")
        self._used: dict[str, float] = {}

    async def caller(self, header: bytes | None) -> Caller:
        """Who sends this `Authorization` header; anybody where the service has no keys.

        Raises:
            Unauthenticated: it has keys, and the header has none of them in force.
            Unready: the database can't be asked.
        """
        if not await self._is_closed():
            return ANYBODY
        presented = _presented(header)
        if presented is None:
            raise _nobody()
        now = time.monotonic()
        known = self._known.get(presented.key_id) or self._unknown.get(presented.key_id)
        if known is None or now - known.at > FRESH_S:
            known = await self._once(presented.key_id, partial(self._look_up, presented.key_id))
        found = await self._checked(presented, known)
        if found is None:
            raise _nobody()
        self._used[presented.key_id] = time.monotonic()
        return found

    def forget(self, key_id: str) -> None:
        """Look the key up again when it is next presented: it was changed."""
        self._known.pop(key_id, None)

    def pepper(self) -> bytes:
        """The secret that keys are hashed under; made where there is none yet.

        Raises:
            Unready: it can't be read or made.
        """
        return self._pepper.ensure()

    def write_used(self, database: Database) -> int:
        """Note in the database when keys were last used; how many were since the last time."""
        used, self._used = self._used, {}
        if used:
            now = time.monotonic()
            ages = {key_id: max(0.0, now - at) for key_id, at in used.items()}
            database.run(lambda session: keys.note_used(session, ages))
        return len(used)

    async def _is_closed(self) -> bool:
        if not self._has_keys and time.monotonic() - self._asked_at > FRESH_S:
            await self._once("", self._ask_for_any)
        return self._has_keys

    async def _ask_for_any(self) -> None:
        asked_at = time.monotonic()
        self._has_keys = await self._ask(keys.any_key)
        self._asked_at = asked_at

    async def _once(self, what: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of `work`, done once for all requests that wait for it."""
        task = self._lookups.get(what)
        if task is None:
            task = self._lookups[what] = asyncio.create_task(work())
            task.add_done_callback(partial(self._done, what))
        found: T = await asyncio.shield(task)
        return found

    def _done(self, what: str, task: asyncio.Task[Any]) -> None:
        self._lookups.pop(what, None)
        if not task.cancelled():
            task.exception()  # asked for also where all who waited have left

    async def _look_up(self, key_id: str) -> _Known:
        """What the database says of an id now."""
        at = time.monotonic()
        known = _Known(await self._ask(lambda session: keys.stored_key(session, key_id)), at)
        kept, other = (self._known, self._unknown) if known.key is not None else (self._unknown, self._known)
        other.pop(key_id, None)
        kept.pop(key_id, None)
        kept[key_id] = known
        if len(kept) > REMEMBERED:
            kept.popitem(last=False)
        return known

    async def _checked(self, presented: Presented, known: _Known) -> Caller | None:
        if self._secret is None:
            self._secret = await to_thread.run_sync(self._pepper.find, limiter=self._limiter)
            if self._secret is None:
                log.error("no key can be checked: there is no secret in %s", self._pepper.where)
                return None
        offered = digest(self._secret, presented.text)
        key, age_s = known.key, time.monotonic() - known.at
        if key is None:
            return None
        current = hmac.compare_digest(offered, key.secret_hash)
        rotated = hmac.compare_digest(offered, key.old_hash or "") and age_s < key.old_good_for_s
        in_force = key.good_for_s is None or age_s < key.good_for_s
        return key.caller if (current or rotated) and in_force else None

    async def _ask(self, work: Callable[[Session], T]) -> T:
        def in_session() -> T:
            with self._database.read() as session:
                return work(session)

        try:
            return await to_thread.run_sync(in_session, limiter=self._limiter)
        except SQLAlchemyError as error:
            log.warning("keys could not be looked up: %s", error)
            raise Unready("Expected a database that answers. Received: none. Try again in a moment.") from None


def _nobody() -> Unauthenticated:
    """What every unknown caller is told, whatever is wrong with their key."""
    return Unauthenticated(
        "Expected the header Authorization: Bearer <key> with an API key that is in force. Received none, or one that "
        "isn't."
    )


def _presented(header: bytes | None) -> Presented | None:
    if header is None:
        return None
    try:
        scheme, _, credentials = header.decode("ascii").partition(" ")
    except UnicodeDecodeError:
        return None
    return read_key(credentials.strip()) if scheme.lower() == "bearer" else None
