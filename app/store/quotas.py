"""What a project may have at most: studies, trials that run at once, and stored bytes.

Whoever takes from a quota locks the project's row first and counts then, so that no two take the last of it. A creation
locks it before the data set and the study, a reservation after its study and before the trials that it takes: nobody
who holds a project's row waits for another study's. A project without the quota is not locked by reservations at all.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, func, select
from sqlalchemy.orm import Session
from sqlalchemy.sql.selectable import ScalarSelect

from app.domain.study import StudyState
from app.errors import QuotaExceeded
from app.store.tables import Artifact, Checkpoint, IdempotencyKey, Project, StoredDataset, Study, Trial, table_of

LIVE = (StudyState.RUNNING, StudyState.PAUSED, StudyState.STOPPING)
"""States of studies with trials under way."""

_p, _s = table_of(Project), table_of(Study)
_LOCK = select(_p).where(_p.c.name == bindparam("project")).with_for_update(key_share=True)
_LEASED = select(func.coalesce(func.sum(_s.c.leased), 0)).where(
    _s.c.project == bindparam("project"), _s.c.state.in_(LIVE)
)
_LEASED_BY_OTHERS = _LEASED.where(_s.c.id != bindparam("study"))


@dataclass(frozen=True, slots=True)
class Usage:
    """What a project has now of each that it has a quota of."""

    studies: int
    running_trials: int
    stored_bytes: int


def usage_of(session: Session, project: str) -> Usage:
    """What a project has now."""
    connection = session.connection()
    return Usage(
        _studies(connection, project), trials_under_way(connection, project), stored_bytes(connection, project)
    )


def admit_study(session: Session, project: str) -> None:
    """Return where the project may have one more study.

    Raises:
        QuotaExceeded: it has as many as it may.
    """
    connection = session.connection()
    quotas = connection.execute(_LOCK, {"project": project}).one_or_none()
    if quotas is None or quotas.max_studies is None:
        return
    used = _studies(connection, project)
    if used >= quotas.max_studies:
        raise QuotaExceeded(
            f"Expected a project with room for a study. Received {project!r}, which has {used:,} of at most "
            f"{quotas.max_studies:,}: delete some that are over, or have the quota raised."
        )


def admit_bytes(session: Session, project: str, size: int) -> None:
    """Return where the project may store `size` bytes more.

    Raises:
        QuotaExceeded: it may not.
    """
    connection = session.connection()
    quotas = connection.execute(_LOCK, {"project": project}).one_or_none()
    if quotas is None or quotas.max_stored_bytes is None:
        return
    used = stored_bytes(connection, project)
    if used + size > quotas.max_stored_bytes:
        raise QuotaExceeded(
            f"Expected {size:,} bytes to fit into what the project {project!r} may store. Received one that has "
            f"{used:,} of at most {quotas.max_stored_bytes:,}: delete data sets or studies, or have the quota raised."
        )


def admit_answer(session: Session, project: str, size: int) -> None:
    """Return where the project may keep an answer of `size` bytes that is about one of its studies.

    The study is locked by now, or new: nobody who holds the project's row waits for it. A project without the quota is
    not locked.

    Raises:
        QuotaExceeded: it may not.
    """
    limited = select(_p.c.name).where(_p.c.name == project, _p.c.max_stored_bytes.is_not(None))
    if size and session.connection().execute(limited).scalar_one_or_none() is not None:
        admit_bytes(session, project, size)


def lock_byte_quota(connection: Connection, study_id: int) -> tuple[str, int] | None:
    """The project of a study and how many bytes it may store, its row locked; None where it has no such quota."""
    query = select(_p.c.name).join(_s, _s.c.project == _p.c.name)
    limited = query.where(_s.c.id == study_id, _p.c.max_stored_bytes.is_not(None))
    project = connection.execute(limited).scalar_one_or_none()
    if project is None:
        return None
    quotas = connection.execute(_LOCK, {"project": project}).one_or_none()
    return None if quotas is None or quotas.max_stored_bytes is None else (project, quotas.max_stored_bytes)


def running_quota() -> ScalarSelect[int | None]:
    """The quota of running trials of a study's project, to be selected with the study."""
    return select(_p.c.max_running_trials).where(_p.c.name == _s.c.project).scalar_subquery()


def room_for_trials(connection: Connection, project: str, study_id: int, leased: int) -> int | None:
    """How many more trials a project may run, whose study `study_id` runs `leased` now; None: any number.

    Its row stays locked until the transaction ends. Trials that hold a lease count, sampled ones that wait included.
    """
    quotas = connection.execute(_LOCK, {"project": project}).one_or_none()
    if quotas is None or quotas.max_running_trials is None:
        return None
    others = connection.execute(_LEASED_BY_OTHERS, {"project": project, "study": study_id}).scalar_one()
    return int(quotas.max_running_trials) - int(others) - leased


def trials_under_way(connection: Connection, project: str) -> int:
    """How many trials of the project hold a lease."""
    return int(connection.execute(_LEASED, {"project": project}).scalar_one())


@dataclass(frozen=True, slots=True)
class TrialRoom:
    """How many trials a project runs now, of how many that it may."""

    project: str
    used: int
    limit: int

    def reason(self, at_least: int = 1) -> str | None:
        """Why a study gets no trial that begins `at_least` so many together, in words; None where there is room."""
        if self.used + at_least <= self.limit:
            return None
        together = f", and a study that begins {at_least:,} together waits for room" if at_least > 1 else ""
        return f"The project {self.project!r} runs {self.used:,} trials of at most {self.limit:,}{together}."


def trial_room(session: Session, project: str) -> TrialRoom | None:
    """What room a project has for trials; None where it has no quota of them."""
    connection = session.connection()
    limit = connection.execute(select(_p.c.max_running_trials).where(_p.c.name == project)).scalar_one_or_none()
    return None if limit is None else TrialRoom(project, trials_under_way(connection, project), limit)


def stored_bytes(connection: Connection, project: str) -> int:
    """The bytes of the project's uploads, its trials' files and checkpoints, and kept answers about its studies."""
    uploads = select(func.sum(StoredDataset.size_bytes)).where(
        StoredDataset.project == project, StoredDataset.uri.is_(None)
    )
    files = select(func.sum(Artifact.size_bytes)).join(Study, Study.id == Artifact.study_id)
    checkpoints = (
        select(func.sum(Checkpoint.size_bytes))
        .join(Trial, Trial.id == Checkpoint.trial_id)
        .join(Study, Study.id == Trial.study_id)
    )
    answers = select(func.sum(IdempotencyKey.size_bytes)).where(
        IdempotencyKey.project == project, IdempotencyKey.size_bytes > 0
    )
    of_studies = (files.where(Study.project == project), checkpoints.where(Study.project == project))
    parts = (uploads, *of_studies, answers)
    return sum(int(connection.execute(part).scalar() or 0) for part in parts)


def _studies(connection: Connection, project: str) -> int:
    query = select(func.count()).where(Study.project == project, Study.managed)
    return int(connection.execute(query).scalar_one())
