"""Rows as the resources of the contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from app.api import schemas
from app.domain.json import loads
from app.domain.stored import read_definition
from app.domain.study import StudyDefinition
from app.store import tables, workers
from app.store.log import rfc3339
from app.store.quotas import TrialRoom, trial_room
from app.store.settling import best_of, progress_of
from app.store.warnings import warnings_of
from app.store.workers import Offer


def definition_of(study: tables.Study) -> StudyDefinition:
    """The study's definition.

    Raises:
        DefinitionTooNew: newer code stored it.
    """
    return read_definition(study.definition or "{}")


def _time(at: float | None) -> str | None:
    return None if at is None else rfc3339(at)


def study_view(
    study: tables.Study,
    offers: Sequence[Offer],
    unread: Mapping[int, Mapping[str, str]],
    room: TrialRoom | None,
    warnings: Sequence[Mapping[str, Any]],
    definition: dict[str, Any] | None = None,
) -> schemas.Study:
    """A study; `offers` are what live workers offer, `unread` says which of them can't read which study, `room` is what
    its project has for trials, `warnings` are those about the study. `definition` is shown in the place of the stored
    one.
    """
    return schemas.Study.model_validate(
        {
            "id": study.public_id,
            "project": study.project,
            "name": study.name,
            "state": study.state,
            "state_reason": study.state_reason,
            "pending_reason": workers.pending_reason(study, offers, unread.get(study.id, {}), room),
            "revision": study.revision,
            "definition": loads(study.definition or "{}") if definition is None else definition,
            "progress": progress_of(study),
            "best": best_of(study),
            "warnings": list(warnings),
            "created_by": study.created_by,
            "created_at": rfc3339(study.created_at),
            "started_at": _time(study.started_at),
            "finished_at": _time(study.finished_at),
        }
    )


def study_now(session: Session, study: tables.Study) -> schemas.Study:
    """A study as it is in this transaction."""
    (view,) = study_views(session, [study])
    return view


def study_text(session: Session, study: tables.Study) -> str:
    """A study as JSON text, as it is in this transaction. Its definition goes in as it is stored, whatever its size.

    It is neither read nor written anew: this happens while the study's row is locked.
    """
    (shown,) = study_views(session, [study], definition={})
    # The first one is the field: what comes before it are texts, whose quotes are escaped.
    return shown.model_dump_json().replace('"definition":{}', f'"definition":{study.definition or "{}"}', 1)


def study_views(
    session: Session, studies: Sequence[tables.Study], definition: dict[str, Any] | None = None
) -> list[schemas.Study]:
    """Studies of one project as they are in this transaction; `definition` is shown in the place of the stored ones."""
    pending = next(filter(workers.is_pending, studies), None)
    room = None if pending is None else trial_room(session, pending.project)
    offers, unread = workers.live_offers(session), workers.unread(session, studies)
    warnings = warnings_of(session, [study.id for study in studies])
    return [study_view(study, offers, unread, room, warnings[study.id], definition) for study in studies]


def artifact_view(file: tables.Artifact) -> schemas.Artifact:
    """A file of a trial."""
    return schemas.Artifact(
        name=file.name,
        media_type=file.media_type,
        size_bytes=file.size_bytes,
        attempt=file.attempt,
        details=loads(file.details),
        created_at=rfc3339(file.created_at),
    )


def worker_view(row: tables.Worker, *, live: bool, held: Sequence[tuple[str, int]]) -> schemas.Worker:
    """A worker and the trials that it trains."""
    return schemas.Worker(
        id=row.id,
        host=row.host,
        pid=row.pid,
        state=row.state,
        live=live,
        drain_requested=row.drain_requested,
        device=row.device,
        families=loads(row.families),
        labels=loads(row.labels),
        version=row.version,
        memory_mb=row.memory_mb,
        trials=[schemas.RunningTrial(study_id=study_id, number=number) for study_id, number in held],
        started_at=rfc3339(row.started_at),
        last_heartbeat_at=rfc3339(row.heartbeat_at),
    )
