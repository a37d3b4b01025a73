"""Checkpoints of a stack's trials, on the supervisor's side: when they are taken, and who goes on from them.

The trainer writes a snapshot to a scratch path; it is copied below the artifact location, into a folder of its own, and
then pointed to by a fenced write: a zombie overwrites nothing. A checkpoint that can't be written or read is no reason
to lose a trial: the worker's log, or the trial's, says so.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import DBAPIError

from app.domain.metrics import values_of
from app.domain.population import population_of
from app.domain.trial import CheckpointPointer
from app.errors import NotFound
from app.store import checkpoints as store
from app.store import recording, turnover
from app.store.engine import Database
from worker.artifacts import SNAPSHOT_NAME, ArtifactWriter
from worker.pool import StudyRef
from worker.trainer.protocol import KeptSnapshot, MemberResult, Resume, ResumedMember, TakeSnapshot

if TYPE_CHECKING:
    from worker.ledger import Running

LAST_MOMENTS_S = 2.0
"""A draining worker takes the last checkpoints this long before it gives its trials back: an epoch has to end in it."""

log = structlog.get_logger(__name__)


class Checkpoints:
    """The checkpoints of one stack's study. Not thread-safe."""

    def __init__(
        self, database: Database, artifacts: ArtifactWriter, study: StudyRef, *, every_s: float, ttl_s: float
    ) -> None:
        self._database = database
        self._artifacts = artifacts
        self._study = study
        self._every_s = every_s
        self._ttl_s = ttl_s
        self._population = population_of(study.definition)
        self._candidates: dict[int, list[store.Stored]] = {}
        self._fetched: dict[int, list[str]] = {}

    @property
    def are_taken(self) -> bool:
        """Whether the study's trials leave checkpoints while they train."""
        return self._study.definition.execution.checkpoints == "auto"

    # Going on from one

    def resumes(self, started: Sequence[Running]) -> dict[int, list[Resume]]:
        """What the trials that were just started go on from, their own last checkpoint first, by trial id."""
        numbers = set[int]()
        for one in started:
            reservation, parent = one.trial.proposal.reservation, one.trial.proposal.parent
            numbers |= {reservation.number} if reservation.attempt > 1 else set()
            numbers |= set() if parent is None else {parent}
        if not numbers:
            return {}
        with self._database.read() as session:
            stored = store.of_numbers(session, self._study.study_id, numbers)
        return {one.trial_id: self._resumes(one, stored) for one in started}

    def _resumes(self, one: Running, stored: Mapping[int, store.Stored]) -> list[Resume]:
        proposal = one.trial.proposal
        found: list[Resume] = []
        candidates = self._candidates[one.trial_id] = []
        for number in (proposal.reservation.number, proposal.parent):
            checkpoint = None if number is None else stored.get(number)
            if checkpoint is None:
                continue
            own = number == proposal.reservation.number
            try:
                path = self._artifacts.fetch(checkpoint.path)
            except Exception as error:  # noqa: BLE001 - a store's driver may raise anything: the trainer tells of it
                log.warning("checkpoint_not_fetched", study=self._study.public_id, trial=number, error=str(error))
                path = checkpoint.path
            found.append(Resume(path=path, key=checkpoint.path.removesuffix(f"/{SNAPSHOT_NAME}"), own=own))
            candidates.append(checkpoint)
            self._fetched.setdefault(one.trial_id, []).append(path)
        if proposal.parent is not None and not any(not resume.own for resume in found):
            # Nothing to read: the trainer fails the member by what it finds there.
            found.append(Resume(path="", key="", own=False))
        return found

    def resumed(self, one: Running, told: ResumedMember) -> None:
        """Note where a trial started: the epochs behind it are its own from here on."""
        own = [c for c in self._candidates.get(one.trial_id, []) if c.trial_id == one.trial_id]
        study_id = self._study.study_id
        try:
            for problem in told.problems:
                words = f"CHECKPOINT_UNREADABLE: {problem} The trial starts from epoch {told.epochs} of its own."
                self._database.run(
                    lambda session, words=words: store.note(session, study_id, one.trial_id, one.token, words)  # type: ignore[misc]
                )
            if not told.epochs or not own:
                return
            behind = self._database.run(
                lambda session: store.take_over(session, study_id, one.trial_id, one.token, own[0])
            )
        except NotFound:
            return  # the study was deleted: all its leases are lost
        objectives = self._study.definition.objectives
        if self._study.definition.training.instances > 1:
            behind = list(enumerate(told.instances))
        one.curve = [(epoch, *values) for epoch, metrics in behind if (values := values_of(objectives, metrics))]

    def release(self, one: Running) -> None:
        """Let go of what was fetched for a trial."""
        for path in self._fetched.pop(one.trial_id, []):
            self._artifacts.let_go(path)
        self._candidates.pop(one.trial_id, None)

    # Leaving one

    def due(self, members: Mapping[int, Running]) -> list[TakeSnapshot]:
        """The members of which a checkpoint is due: they have trained for the interval since the last one."""
        now = time.monotonic()
        return self._asked_of({n: m for n, m in members.items() if now - m.snapshot_at >= self._every_s})

    def last(self, members: Mapping[int, Running]) -> list[TakeSnapshot]:
        """Of all members, as a draining worker wants it before it gives them back."""
        return self._asked_of(members)

    def _asked_of(self, members: Mapping[int, Running]) -> list[TakeSnapshot]:
        if not self.are_taken:
            return []
        idle = {n: m for n, m in members.items() if m.snapshot_pending is None}
        return [TakeSnapshot(member=n, path=self._path(m)) for n, m in idle.items()]

    def _path(self, member: Running) -> str:
        member.snapshot_pending = self._artifacts.scratch_snapshot(member.token)
        return member.snapshot_pending

    def handed_on(self, ended: Mapping[int, tuple[Running, MemberResult]]) -> list[TakeSnapshot]:
        """The members that ended whose state later trials may go on from."""
        population = self._population
        if population is None:
            return []
        return [
            TakeSnapshot(member=number, path=self._path(member), key=self._key(member))
            for number, (member, result) in ended.items()
            if result.outcome == "complete" and not population.is_last(member.trial.proposal.reservation.number)
        ]

    def write(self, kept: Sequence[tuple[Running, KeptSnapshot]], others: Collection[Running]) -> None:
        """Point to checkpoints of running trials, and write all reports that wait, the `others`' too, with them."""
        new = []
        for member, snapshot in kept:
            member.snapshot_pending, member.snapshot_at = None, time.monotonic()
            pointer = self.published(member, snapshot)
            if pointer is not None:
                attempt = member.trial.proposal.reservation.attempt
                new.append(store.New(member.trial_id, member.token, attempt, pointer))
        if not new:
            return
        members = {m.trial_id: m for m in (*(m for m, _ in kept), *others)}
        reports: list[recording.Report] = [report for m in members.values() for report in m.take_reports()]
        study = self._study
        standing, superseded = self._database.run(
            lambda session: turnover.record_and_checkpoint(
                session, study.study_id, study.public_id, new, reports, self._ttl_s
            )
        )
        refused = [c.pointer.path for c in new if c.trial_id not in standing]
        for checkpoint in new:
            if checkpoint.trial_id not in standing:
                number = members[checkpoint.trial_id].trial.proposal.reservation.number
                log.warning("lease_lost", study=study.public_id, trial=number, what="checkpoint")
        current = {c.pointer.path for c in new if c.trial_id in standing}
        self._artifacts.remove([path for path in (*superseded, *refused) if path not in current])

    def published(self, member: Running, snapshot: KeptSnapshot) -> CheckpointPointer | None:
        """Copy a written snapshot below the artifact location; None where there is none."""
        if snapshot.error is None:
            try:
                return self._artifacts.publish_snapshot(self._key(member), snapshot)
            except Exception as error:  # noqa: BLE001 - a store's driver may raise anything: the trial goes on without
                snapshot = snapshot.model_copy(update={"error": f"{type(error).__name__}: {error}"})
        number = member.trial.proposal.reservation.number
        log.warning("checkpoint_not_written", study=self._study.public_id, trial=number, error=snapshot.error)
        return None

    def discard(self, snapshot: KeptSnapshot) -> None:
        """Delete a snapshot that came too late."""
        self._artifacts.let_go(snapshot.path)

    def _key(self, member: Running) -> str:
        """The attempt's place below the artifact location."""
        reservation = member.trial.proposal.reservation
        return f"{self._study.public_id}/{reservation.number:06d}/{reservation.attempt}-{reservation.token[:12]}"


class Sweeper:
    """Deletes checkpoints that nobody can go on from any more, whoever left them."""

    EVERY_S = 2.0
    """Pause between two looks."""

    def __init__(self, database: Database, artifacts: ArtifactWriter) -> None:
        self._database = database
        self._artifacts = artifacts
        self._swept_at = float("-inf")

    def sweep(self) -> None:
        """Look once, where the last time is long enough ago."""
        if time.monotonic() - self._swept_at < self.EVERY_S:
            return
        self._swept_at = time.monotonic()
        try:
            with self._database.read() as session:
                any_obsolete = bool(store.obsolete(session, 1))
            if any_obsolete:
                self._artifacts.remove(self._database.run(store.forget_obsolete))
        except DBAPIError as error:
            log.warning("database_unreachable", error=str(error.orig))  # the next look tries again
