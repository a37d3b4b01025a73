"""Rows as the resources of the contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from app.api import schemas
from app.domain.json import loads
from app.domain.study import StudyDefinition
from app.store import artifacts, tables, trials, workers
from app.store.fleet import Offer
from app.store.log import rfc3339
from app.store.settling import best_of, progress_of


def definition_of(study: tables.Study) -> StudyDefinition:
    """The study's definition."""
    return StudyDefinition.model_validate_json(study.definition or "{}")


def _time(at: float | None) -> str | None:
    return None if at is None else rfc3339(at)


def study_view(study: tables.Study, offers: Sequence[Offer]) -> schemas.Study:
    """A study; `offers` are what live workers offer."""
    return schemas.Study.model_validate(
        {
            "id": study.public_id,
            "project": study.project,
            "name": study.name,
            "state": study.state,
            "state_reason": study.state_reason,
            "pending_reason": workers.pending_reason(study, offers),
            "revision": study.revision,
            "definition": loads(study.definition or "{}"),
            "progress": progress_of(study),
            "best": best_of(study),
            "created_by": study.created_by,
            "created_at": rfc3339(study.created_at),
            "started_at": _time(study.started_at),
            "finished_at": _time(study.finished_at),
        }
    )


def study_now(session: Session, study: tables.Study) -> schemas.Study:
    """A study as it is in this transaction."""
    return study_view(study, workers.live_offers(session))


def trial_views(session: Session, study: tables.Study, rows: Sequence[tables.Trial]) -> list[schemas.Trial]:
    """Trials of a study, with their files and the last metrics of those that have no result."""
    files = artifacts.artifacts_of(session, [t.id for t in rows])
    metrics = trials.last_metrics(session, [t for t in rows if t.metrics is None])
    waiting = any(t.hyperparameters is None for t in rows)
    fixed = definition_of(study).fixed if waiting else {}
    return [_trial_view(study, t, files.get(t.id, []), t.metrics or metrics.get(t.id), fixed) for t in rows]


def trial_view(session: Session, study: tables.Study, row: tables.Trial) -> schemas.Trial:
    """One trial of a study."""
    return trial_views(session, study, [row])[0]


def _trial_view(
    study: tables.Study,
    trial: tables.Trial,
    files: Sequence[tables.Artifact],
    metrics: str | None,
    fixed: Mapping[str, Any],
) -> schemas.Trial:
    values = None
    if trial.objective_values is not None:
        values = dict(zip(loads(study.objective_metrics), loads(trial.objective_values), strict=True))
    known = {**fixed, **loads(trial.requested or "{}")}
    seconds = None
    if trial.finished_at is not None and trial.started_at is not None:
        seconds = round(max(0.0, trial.finished_at - trial.started_at), 6)
    error = None
    if trial.error_code is not None or trial.error_message is not None:
        error = {"code": trial.error_code or "UNKNOWN", "message": trial.error_message or ""}
    return schemas.Trial.model_validate(
        {
            "study_id": study.public_id,
            "number": trial.number,
            "state": trial.state,
            "reason": trial.reason,
            "feasible": trial.feasible,
            "attempt": trial.attempt,
            "hyperparameters": loads(trial.hyperparameters) if trial.hyperparameters else known,
            "sampled": loads(trial.sampled or "{}"),
            "values": values,
            "metrics": loads(metrics) if metrics else None,
            "selected_epoch": trial.selected_epoch,
            "epochs": trial.epochs,
            "worker_id": trial.worker_id,
            "device": trial.device,
            "created_at": rfc3339(trial.created_at),
            "started_at": _time(trial.started_at),
            "finished_at": _time(trial.finished_at),
            "duration_seconds": seconds,
            "error": error,
            "artifacts": [artifact_view(file) for file in files],
        }
    )


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


def metrics_view(row: tables.Metric) -> schemas.EpochMetrics:
    """What an attempt reported for one epoch."""
    return schemas.EpochMetrics(epoch=row.epoch, attempt=row.attempt, metrics=loads(row.metrics), at=rfc3339(row.at))


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
        trials=[schemas.RunningTrial(study_id=study_id, number=number) for study_id, number in held],
        started_at=rfc3339(row.started_at),
        last_heartbeat_at=rfc3339(row.heartbeat_at),
    )
