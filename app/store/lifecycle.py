"""The life of a study: created, paused, resumed, stopped, cancelled, changed, deleted; trials enqueued and cancelled.

Each function locks the study's row, changes it, and appends the events in the same transaction. Repeating an action
that already holds changes nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from app.domain.families import Scalar
from app.domain.json import dumps
from app.domain.population import population_of
from app.domain.study import StudyDefinition, StudyState
from app.domain.trial import FailureReason, TrialState
from app.errors import NameTaken, NotFound, StateConflict
from app.store import datasets, idempotency
from app.store.locking import LockedStudy, lock_study, tell
from app.store.log import NewEvent, append, clock
from app.store.query import add_named
from app.store.quotas import admit_study
from app.store.settling import cancel_live, end_study, fail_trials, live_trials, settle, study_event
from app.store.tables import EventCounter, Study, StudyLabel, Trial


def create_study(
    session: Session,
    definition: StudyDefinition,
    *,
    project: str,
    created_by: str | None,
    sample_limit: int | None,
    text: str | None = None,
) -> Study:
    """A new study, RUNNING: workers may claim its trials once the transaction is committed.

    `text` is the definition as JSON, where it was written out before the transaction.

    Raises:
        NameTaken: another study of the project has the name.
        NotFound: the upload that it trains on was deleted.
        QuotaExceeded: the project has as many studies as it may.
    """
    admit_study(session, project)
    upload = definition.dataset.id if definition.dataset is not None else None
    held = datasets.hold(session, project, upload) if upload is not None else None
    at = clock(session)
    population = population_of(definition)
    study = Study(
        public_id=f"st_{secrets.token_hex(10)}",
        project=project,
        name=definition.name,
        managed=True,
        directions=dumps([o.direction for o in definition.objectives]),
        objective_metrics=dumps([o.metric for o in definition.objectives]),
        state=StudyState.RUNNING,
        family=definition.model.family,
        family_version=definition.model.version,
        device=definition.execution.device,
        worker_labels=dumps(definition.execution.worker_labels),
        keep_models=definition.execution.keep_models,
        max_attempts=definition.execution.max_attempts,
        sample_limit=sample_limit,
        generation_size=population.size if population is not None else None,
        created_by=created_by,
        created_at=at,
    )
    _apply(study, definition, text)
    add_named(
        session,
        study,
        NameTaken(f"Expected a name that no study of the project {project!r} has. Received: {definition.name!r}"),
    )
    session.execute(insert(EventCounter).values(study_id=study.id, last_seq=0))
    if held is not None:
        datasets.use(session, study.id, held)
    _write_labels(session, study, definition)
    append(session, study.id, study.public_id, [study_event("study.created", study)], at=at)
    return study


def _apply(study: Study, definition: StudyDefinition, text: str | None) -> None:
    """Write the changeable parts of `definition` to the study's columns."""
    budget, objective = definition.budget, definition.objectives[0]
    study.definition = text or definition.model_dump_json()
    study.description = definition.description
    study.priority = definition.execution.priority
    study.max_parallel = definition.max_parallel
    study.generation = definition.generation
    study.trial_limit = budget.trials
    study.seconds_limit = budget.seconds
    study.device_seconds_limit = budget.device_seconds
    study.no_improvement_limit = budget.no_improvement_trials
    study.target_value = objective.target if len(definition.objectives) == 1 else None
    study.deadline_at = None
    if study.started_at is not None and budget.seconds is not None:
        study.deadline_at = study.started_at + budget.seconds


def _write_labels(session: Session, study: Study, definition: StudyDefinition) -> None:
    session.execute(delete(StudyLabel).where(StudyLabel.study_id == study.id))
    rows = [{"study_id": study.id, "key": key, "value": value} for key, value in definition.labels.items()]
    if rows:
        session.execute(insert(StudyLabel), rows)


def update_study(session: Session, study_id: int, definition: StudyDefinition, text: str | None = None) -> Study:
    """Write the changeable parts of `definition`; a COMPLETED study whose budget now has room runs again.

    `text` is the definition as JSON, where it was written out before the transaction.

    Raises:
        StateConflict: the study is over in a way that no budget reopens, and more than words were changed.
    """
    before = lock_study(session, study_id)
    row = _fresh(session, before)
    _apply(row, definition, text)
    row.revision += 1
    session.flush()
    _write_labels(session, row, definition)
    study = lock_study(session, study_id)
    rebudgeted = _limits(before) != _limits(study)
    if rebudgeted and StudyState(study.state).is_over and study.state != StudyState.COMPLETED:
        raise StateConflict(f"Expected a study that is not {study.state} to change its budget.")
    if rebudgeted and study.state == StudyState.COMPLETED:
        study.state, study.halt_reason = StudyState.RUNNING, None
        closing = settle(study)
        if StudyState(study.state).is_over:
            events = [study_event("study.updated", study), *closing]
        else:
            study.state_reason = study.finished_at = None
            events = [study_event("study.updated", study), study_event("study.resumed", study)]
    else:
        study.halt_reason = None if rebudgeted else study.halt_reason
        events = [study_event("study.updated", study), *settle(study)]
    return _told(session, study, events)


def _limits(study: LockedStudy) -> tuple[float | None, ...]:
    return (study.trial_limit, study.seconds_limit, study.device_seconds_limit, study.no_improvement_limit)


def _told(session: Session, study: LockedStudy, events: Sequence[NewEvent]) -> Study:
    """End a change; the study as it is now."""
    tell(study, events)
    return _fresh(session, study)


def _fresh(session: Session, study: LockedStudy) -> Study:
    return session.get_one(Study, study.id, populate_existing=True)


def _conflict(study: LockedStudy, action: str) -> StateConflict:
    return StateConflict(f"Expected a study that can be {action}. Received one that is {study.state}.")


def pause(session: Session, study_id: int) -> Study:
    """Let running trials finish, start no others until `resume`. Reservations go back to the queue."""
    study = lock_study(session, study_id)
    if study.state == StudyState.PAUSED:
        return _fresh(session, study)
    if study.state != StudyState.RUNNING or study.halt_reason is not None:
        raise _conflict(study, "paused")
    study.state = StudyState.PAUSED
    released = session.execute(
        update(Trial)
        .where(Trial.study_id == study.id, Trial.state == TrialState.WAITING, Trial.lease_token.is_not(None))
        .values(lease_token=None, lease_expires_at=None, queue=0)
        .returning(Trial.id)
    ).all()
    study.leased -= len(released)
    return _told(session, study, [study_event("study.paused", study)])


def resume(session: Session, study_id: int) -> Study:
    """Offer the trials of a paused study to workers again."""
    study = lock_study(session, study_id)
    if study.state == StudyState.RUNNING:
        return _fresh(session, study)
    if study.state != StudyState.PAUSED:
        raise _conflict(study, "resumed")
    study.state = StudyState.RUNNING
    return _told(session, study, [study_event("study.resumed", study), *settle(study)])


def stop(session: Session, study_id: int) -> Study:
    """Finish what runs, start nothing more; waiting trials are cancelled."""
    study = lock_study(session, study_id)
    if study.state in {StudyState.STOPPING, StudyState.STOPPED}:
        return _fresh(session, study)
    if StudyState(study.state).is_over:
        raise _conflict(study, "stopped")
    study.state = StudyState.STOPPING
    events = [study_event("study.stopping", study), *settle(study)]
    return _told(session, study, events)


def cancel(session: Session, study_id: int) -> Study:
    """End the study now: running trials are recorded as cancelled, and their workers stop them."""
    study = lock_study(session, study_id)
    if study.state == StudyState.CANCELLED:
        return _fresh(session, study)
    if StudyState(study.state).is_over:
        raise _conflict(study, "cancelled")
    events = cancel_live(study, "The study was cancelled.", TrialState.WAITING, TrialState.RUNNING)
    events += end_study(study, StudyState.CANCELLED, "Cancelled by request.")
    return _told(session, study, events)


def delete_study(session: Session, study_id: int) -> None:
    """Forget a study that is over, with its trials and events. The caller removes its files.

    Raises:
        StateConflict: it is not over.
    """
    study = lock_study(session, study_id)
    if not StudyState(study.state).is_over:
        raise StateConflict(f"Expected a study that is over. Received one that is {study.state}: cancel it first.")
    session.execute(delete(Study).where(Study.id == study.id))
    idempotency.forget_study(session, study.id)


def enqueue(
    session: Session, study_id: int, hyperparameters: dict[str, Scalar], most_waiting: int | None = None
) -> Trial:
    """A new WAITING trial with these hyperparameters, numbered within the budget; the sampler draws those left out.

    Raises:
        StateConflict: the study is over or ending, its budget of trials is used up, or `most_waiting` wait already.
    """
    study = lock_study(session, study_id)
    if study.state not in {StudyState.RUNNING, StudyState.PAUSED} or study.halt_reason is not None:
        raise _conflict(study, "given trials")
    if study.generation_size is not None:
        raise StateConflict(
            "Expected a study whose trials can be enqueued. Received one that trains a population: its sampler decides "
            "how every member goes on."
        )
    if study.trial_limit is not None and study.next_number >= study.trial_limit:
        raise StateConflict(
            f"Expected room in the budget. Received a study whose {study.trial_limit} trials are taken."
        )
    if most_waiting is not None and study.waiting >= most_waiting:
        raise StateConflict(
            f"Expected at most {most_waiting:,} trials that wait, this service's limit. Received one more: try again "
            "when some have been taken."
        )
    trial = Trial(
        study_id=study.id,
        number=study.next_number,
        state=TrialState.WAITING,
        requested=dumps(hyperparameters),
        queue=1,
        created_at=study.at,
    )
    study.next_number += 1
    study.waiting += 1
    session.add(trial)
    session.flush()
    fields: dict[str, Any] = {"hyperparameters": hyperparameters, "attempt": 0}
    tell(study, [NewEvent("trial.enqueued", fields, trial=trial.number)])
    return trial


def cancel_trial(session: Session, study_id: int, number: int) -> Trial:
    """End a waiting or running trial as cancelled; its worker stops it.

    Raises:
        NotFound: the study has no such trial.
        StateConflict: it ended in another way.
    """
    study = lock_study(session, study_id)
    trial = session.scalars(
        select(Trial).where(Trial.study_id == study.id, Trial.number == number).with_for_update()
    ).one_or_none()
    if trial is None:
        raise NotFound(f"Expected a trial of the study. Received number {number}.", code="TRIAL_NOT_FOUND")
    if TrialState(trial.state).is_finished:
        if trial.reason == FailureReason.CANCELLED:
            return trial
        raise StateConflict(f"Expected a trial that waits or runs. Received one that is {trial.state}.")
    rows = [row for row in live_trials(study, TrialState(trial.state)) if row.id == trial.id]
    message = "The trial was cancelled by request."
    events = fail_trials(study, rows, reason=FailureReason.CANCELLED, code="CANCELLED", message=message)
    events += settle(study)
    tell(study, events)
    session.refresh(trial)
    return trial
