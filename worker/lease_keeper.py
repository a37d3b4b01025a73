"""The keeper: a thread that keeps the worker's leases alive and hears what the service wants of it.

It owns the set of held leases. A lease that no longer stands is reported by `is_lost`; the supervisor stops that trial.
Where the thread dies, the worker must not go on: `check` raises.
"""

from __future__ import annotations

import threading
import time

import structlog
from sqlalchemy.exc import DBAPIError

from app.errors import Unready
from app.store import leases, workers
from app.store.engine import Database
from app.store.migrate import check_schema
from app.store.reaper import Reaper

HEARTBEAT_S = 2.0
"""Seconds between a worker's signs of life."""
LONGEST_TICK_S = 0.5
"""Seconds between looks at the leases: how fast a cancelled trial is noticed."""
LONGEST_REAP_S = 5.0
"""Seconds between sweeps for leases of other workers that have expired."""
SCHEMA_LOOK_S = 5.0
"""Seconds between looks at the schema's revision: it may be changed under a running worker."""
RENEWALS_PER_TTL = 3
"""A lease is renewed this often in its life: two renewals may fail."""

log = structlog.get_logger(__name__)


class Keeper(threading.Thread):
    """Renews leases, sends heartbeats, reaps expired leases of others."""

    def __init__(self, database: Database, worker_id: str, ttl_s: float) -> None:
        super().__init__(name="keeper", daemon=True)
        self._database = database
        self._worker_id = worker_id
        self._ttl_s = ttl_s
        self._reaper = Reaper(database)
        self._tick_s = min(LONGEST_TICK_S, ttl_s / RENEWALS_PER_TTL / 2)
        self._lock = threading.Lock()
        self._held: dict[int, tuple[str, int]] = {}
        self._lost: set[str] = set()
        self._halted: set[int] = set()
        self._closing = threading.Event()
        self._failure: BaseException | None = None
        self._said: str | None = None
        self.drain_requested = threading.Event()
        self.misfit: str | None = None
        """Why this worker may not go on with the schema that the database has now; it is to drain then."""

    def hold(self, trial_id: int, token: str, study_id: int) -> None:
        """Keep this lease alive from now on."""
        with self._lock:
            self._held[trial_id] = (token, study_id)

    def drop(self, trial_id: int, token: str) -> None:
        """Forget a lease: its trial was recorded or given back."""
        with self._lock:
            self._held.pop(trial_id, None)
            self._lost.discard(token)

    def is_lost(self, token: str) -> bool:
        """Whether the lease was taken away: the trial is cancelled, over, or another's."""
        return token in self._lost

    def is_halted(self, study_id: int) -> bool:
        """Whether the study's limit or target is met: running trials stop at their next epoch."""
        return study_id in self._halted

    def check(self) -> None:
        """Raise what ended the thread, where something did."""
        if self._failure is not None:
            raise RuntimeError("The lease keeper died.") from self._failure

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self.join()

    def run(self) -> None:
        """Look after the leases until `close`."""
        due = dict.fromkeys(("renew", "beat", "reap", "schema"), 0.0)
        try:
            while not self._closing.wait(self._tick_s):
                try:
                    self._tick(due)
                except DBAPIError as error:
                    # The fence protects the trials; the next tick tries again.
                    self._say(str(error.orig))
                else:
                    self._said = None
        except BaseException as error:  # told to the supervisor by `check`
            self._failure = error
            log.exception("keeper_died")

    def _say(self, error: str) -> None:
        """Log why the database can't be used: once while it stays the same."""
        if error != self._said:
            log.warning("database_unreachable", worker=self._worker_id, error=error)
        self._said = error

    def _tick(self, due: dict[str, float]) -> None:
        now = time.monotonic()
        with self._lock:
            held = dict(self._held)
        pairs = [(trial_id, token) for trial_id, (token, _) in held.items()]
        if pairs and now >= due["renew"]:
            with self._database.write() as session:
                standing = leases.renew(session, pairs, self._ttl_s)
            due["renew"] = now + self._ttl_s / RENEWALS_PER_TTL
            self._note(held, standing)
        elif pairs:
            with self._database.read() as session:
                standing = leases.standing(session, pairs)
            self._note(held, standing)
        if pairs:
            with self._database.read() as session:
                self._halted = workers.halted_studies(session, sorted({study for _, study in held.values()}))
        if now >= due["beat"]:
            due["beat"] = now + HEARTBEAT_S
            with self._database.write() as session:
                if workers.heartbeat(session, self._worker_id):
                    self.drain_requested.set()
        if now >= due["schema"] and self.misfit is None:
            due["schema"] = now + SCHEMA_LOOK_S
            self._check_schema()
        if now >= due["reap"]:
            interval_s = min(LONGEST_REAP_S, self._ttl_s / 2)
            due["reap"] = now + interval_s
            ended = self._reaper.look()
            due["reap"] = time.monotonic() + interval_s  # it may have waited long for the database
            if ended:
                log.info("leases_reaped", attempts=ended)

    def _check_schema(self) -> None:
        try:
            check_schema(self._database)
        except Unready as error:
            self.misfit = error.detail
            log.error("schema_changed", worker=self._worker_id, error=error.detail)
            self.drain_requested.set()

    def _note(self, held: dict[int, tuple[str, int]], standing: set[int]) -> None:
        with self._lock:
            for trial_id, (token, _) in held.items():
                # Recorded meanwhile: no longer ours to lose.
                if trial_id not in standing and self._held.get(trial_id, ("",))[0] == token:
                    self._lost.add(token)
