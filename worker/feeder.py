"""Feeds the trainer: reserves trials, samples them one by one between its messages, and hands them out by signature."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Sequence
from functools import partial

from app.domain.trial import Reservation
from app.errors import NotFound
from app.store import leases
from app.store.engine import Database
from worker.claims import Claims, Reserved
from worker.lease_keeper import Keeper
from worker.pace import Pace, in_flight
from worker.pool import Pool, PooledTrial, Signature, StudyRef

FRUITLESS_PAUSE_S = 0.2
"""While the trainer works, nothing is asked for again for this long after an attempt that found nothing."""
SLICE_S = 0.005
"""How long sampling goes on before the trainer's messages are looked at again; a single trial may take longer."""
IDLE_SLICE_S = 0.1
"""The same where the trainer has nothing to do. The first proposal of a study that is new to this worker takes longer
than the others: a stack begun with it alone would leave those waiting for its end.
"""


class Feeder:
    """What a worker has in flight beyond the trials in training. Not thread-safe."""

    def __init__(self, database: Database, keeper: Keeper, claims: Claims) -> None:
        self._database = database
        self._keeper = keeper
        self._claims = claims
        self._pool = Pool()
        self._backlog: deque[Reserved] = deque()
        self._generation: list[PooledTrial] = []
        """Sampled trials of a deterministic study, until all that were reserved with them are sampled."""
        self._in_flight: Counter[int] = Counter()
        self._elsewhere: dict[int, int] = {}
        self._paces: dict[int, Pace] = {}
        self._widths: dict[Signature, int] = {}
        self._study_widths: dict[int, int] = {}
        self._fruitless_at = float("-inf")

    def feed(self, families: Sequence[str], *, hungry: bool = False) -> bool:
        """Reserve where too little is in flight, and sample a little; whether there was anything to do.

        `families` are those that the trainer can train by now. `hungry` says that it has nothing to do.
        """
        now = time.monotonic()
        starving = hungry and not len(self._pool)
        if not self._backlog and (starving or now - self._fruitless_at > FRUITLESS_PAUSE_S):
            reserved = self._claims.reserve(
                families, lambda study, held: self._wanted_of(study, held, hungry=starving), starving=starving
            )
            self._take_in(reserved)
            if not reserved:
                self._fruitless_at = now
                self._forget_unused()
        return self._sample(IDLE_SLICE_S if starving else SLICE_S)

    def missing(self, study: StudyRef, *, leaving: int) -> int:
        """How many trials of a study to reserve along with `leaving` ends: none where other studies wait for a turn."""
        if self._backlog or not self._claims.is_alone(study.study_id):
            return 0
        self._in_flight[study.study_id] -= leaving
        wanted = self._wanted(study, hungry=not len(self._pool))
        self._in_flight[study.study_id] += leaving
        return wanted

    def add(self, study: StudyRef, reservations: Sequence[Reservation]) -> None:
        """Take in trials that were reserved along with ends."""
        self._take_in(self._claims.adopt(study, reservations))

    def take(self, families: Sequence[str]) -> list[PooledTrial]:
        """The trials of the next stack; none where none is ready."""
        return self._pool.take(families, self.width)

    def put_back(self, trials: Sequence[PooledTrial]) -> None:
        """Take back trials that were handed out and never started."""
        self._pool.add(trials)

    def take_more(self, like: PooledTrial, count: int, *, at_least: int = 1) -> list[PooledTrial]:
        """Up to `count` trials that join a stack of one `like` them; none where there are fewer than `at_least`."""
        if count <= 0 or self._pool.count(like.signature) < min(at_least, count):
            return []
        return self._pool.take_more(like, count)

    def width(self, trial: PooledTrial) -> int:
        """How many trials of a trial's signature train together, as far as that is known."""
        if trial.study.definition.generation is not None:
            return trial.study.definition.generation
        return self._widths.get(trial.signature, trial.study.family.first_members)

    def note_width(self, trial: PooledTrial, width: int) -> None:
        """Remember how many trials of a trial's signature train together."""
        self._widths[trial.signature] = width
        self._study_widths[trial.study.study_id] = width

    def note_end(self, trial: PooledTrial) -> None:
        """Count a trial that has left: recorded, given back or lost."""
        study_id = trial.study.study_id
        self._in_flight[study_id] -= 1
        self._claims.note_end(study_id)
        self._paces.setdefault(study_id, Pace()).note(1)
        self._fruitless_at = float("-inf")

    def upcoming(self) -> list[PooledTrial]:
        """One trial of each signature that waits, those of the largest groups first."""
        return self._pool.by_signature()

    def give_back(self) -> None:
        """Release all that was never started."""
        by_study: dict[int, list[Reservation]] = {}
        for one in self._backlog:
            by_study.setdefault(one.study.study_id, []).append(one.reservation)
        for trial in [*self._pool.clear(), *self._generation]:
            by_study.setdefault(trial.study.study_id, []).append(trial.proposal.reservation)
        self._backlog.clear()
        self._generation.clear()
        for study_id, reservations in by_study.items():
            pairs = [(r.trial_id, r.token) for r in reservations]
            with contextlib.suppress(NotFound):  # deleted meanwhile
                self._database.run(partial(leases.release, study_id=study_id, leases=pairs, reason="RELEASED"))
            for pair in pairs:
                self._keeper.drop(*pair)

    def _take_in(self, reserved: Sequence[Reserved]) -> None:
        self._backlog += reserved
        for one in reserved:
            self._in_flight[one.study.study_id] += 1

    def _forget_unused(self) -> None:
        """Let go of what is known of studies that have no trial in flight here."""
        used = {study for study, count in self._in_flight.items() if count > 0}
        self._claims.forget_unused(used)
        for known in (self._in_flight, self._elsewhere, self._paces, self._study_widths):
            for study_id in [study_id for study_id in known if study_id not in used]:
                del known[study_id]
        self._widths = {key: width for key, width in self._widths.items() if key[0] in used}

    def _wanted_of(self, study: StudyRef, held: int, *, hungry: bool) -> int:
        """As `_wanted`, where all workers together held so many trials of the study."""
        self._elsewhere[study.study_id] = max(0, held - self._in_flight[study.study_id])
        return self._wanted(study, hungry=hungry)

    def _wanted(self, study: StudyRef, *, hungry: bool) -> int:
        """How many trials of the study to reserve: in batches, since a transaction costs more than a trial in it."""
        generation = study.definition.generation
        if generation is not None:
            # The next one is reserved once all of this one have ended.
            return 0 if self._in_flight[study.study_id] > 0 else generation
        width = self._study_widths.get(study.study_id, study.family.first_members)
        pace = self._paces.get(study.study_id)
        per_second = None if pace is None else pace.per_second()
        wanted = in_flight(study.definition, width, per_second, self._elsewhere.get(study.study_id, 0))
        missing = wanted - self._in_flight[study.study_id]
        return max(0, missing) if hungry or missing >= min(width, wanted) // 2 else 0

    def _sample(self, slice_s: float) -> bool:
        """Sample for that long; whether there was anything to sample."""
        if not self._backlog:
            return False
        end = time.monotonic() + slice_s
        while self._backlog and time.monotonic() < end:
            reserved = self._backlog.popleft()
            trial = self._claims.sample(reserved)
            if trial is None:
                self._in_flight[reserved.study.study_id] -= 1
            elif trial.study.definition.generation is None:
                self._pool.add([trial])
            else:
                self._generation.append(trial)
        self._release_generations()
        return True

    def _release_generations(self) -> None:
        """Let trials of deterministic studies into the pool, where none of their study has yet to be sampled."""
        waiting = {one.study.study_id for one in self._backlog}
        whole = [trial for trial in self._generation if trial.study.study_id not in waiting]
        self._generation = [trial for trial in self._generation if trial.study.study_id in waiting]
        self._pool.add(whole)
