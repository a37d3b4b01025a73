"""SQL of the Optuna storage and of the workers' views: plain Optuna studies, attributes, incremental reads.

Studies that plain Optuna makes have `managed` false, no definition and no leases; nothing reaps them. Here too the row
of the study is locked before its trials, which gives numbers without gaps and `finish_seq` in commit order: a reader
that has seen all up to N never misses one below it. Functions take a Session and never commit.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from sqlalchemy import Row, Table, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.domain.json import dumps, loads
from app.domain.trial import LIVE_STATES, TrialState
from app.store.engine import now
from app.store.log import clock
from app.store.tables import Metric, Study, StudyAttribute, Trial

PROJECT = "default"
"""The project of the studies that plain Optuna sees by name."""
PLAIN_ATTEMPT = 0
"""The attempt under which plain Optuna's intermediate values are kept."""
PLAIN_METRIC = "value"

STUDY_COLUMNS = (Study.id, Study.public_id, Study.name, Study.managed, Study.directions, Study.definition)
TRIAL_COLUMNS = (
    Trial.id,
    Trial.study_id,
    Trial.number,
    Trial.state,
    Trial.reason,
    Trial.attempt,
    Trial.sampled,
    Trial.objective_values,
    Trial.curve,
    Trial.violations,
    Trial.user_attributes,
    Trial.system_attributes,
    Trial.optuna_params,
    Trial.finish_seq,
    Trial.started_at,
    Trial.finished_at,
)


# Attributes: Python's JSON, in which NaN and Infinity are words of their own, since a user's "NaN" must stay a string.


def write_attributes(values: Mapping[str, Any]) -> str:
    """The JSON text of Optuna's attributes."""
    return json.dumps(dict(values), separators=(",", ":"))


def read_attribute(text: str) -> Any:
    """The value that one attribute's JSON text stands for."""
    return json.loads(text)


# Studies


def insert_study(session: Session, name: str, directions: Sequence[str]) -> int:
    """Add a plain study; its id.

    Raises:
        sqlalchemy.exc.IntegrityError: the name is taken.
    """
    row = {
        "public_id": f"st_{secrets.token_hex(10)}",
        "project": PROJECT,
        "name": name,
        "managed": False,
        "directions": dumps(list(directions)),
        "created_at": now(),
    }
    return session.execute(insert(Study).values(**row).returning(Study.id)).scalar_one()


def find_study(session: Session, study_id: int) -> Row[*tuple[Any, ...]] | None:
    """The STUDY_COLUMNS of a study, or None."""
    return session.execute(select(*STUDY_COLUMNS).where(Study.id == study_id)).one_or_none()


def find_study_id(session: Session, name: str) -> int | None:
    """The id of the study that Optuna knows by `name`, or None."""
    return session.scalar(select(Study.id).where(Study.project == PROJECT, Study.name == name))


def all_studies(session: Session) -> list[Row[Any]]:
    """The STUDY_COLUMNS of all studies that Optuna sees, by id."""
    return list(session.execute(select(*STUDY_COLUMNS).where(Study.project == PROJECT).order_by(Study.id)))


def delete_study(session: Session, study_id: int) -> None:
    """Delete a study with all that hangs on it."""
    session.execute(delete(Study).where(Study.id == study_id))


def lock_study(session: Session, study_id: int) -> Study | None:
    """The study, locked until the transaction ends (not against foreign keys), or None."""
    query = select(Study).where(Study.id == study_id).with_for_update(key_share=True)
    return session.scalars(query, execution_options={"populate_existing": True}).one_or_none()


def study_attributes(session: Session, study_ids: Sequence[int], scope: str) -> dict[int, dict[str, Any]]:
    """The attributes of each study; `scope` is "user", "system" or "param"."""
    rows = session.execute(
        select(StudyAttribute.study_id, StudyAttribute.key, StudyAttribute.value)
        .where(StudyAttribute.study_id.in_(study_ids), StudyAttribute.scope == scope)
        .order_by(StudyAttribute.key)
    )
    found: dict[int, dict[str, Any]] = {study_id: {} for study_id in study_ids}
    for row in rows:
        found[row.study_id][row.key] = read_attribute(row.value)
    return found


def set_study_attribute(session: Session, study_id: int, scope: str, key: str, value: Any) -> None:
    """Set an attribute, over any that is there."""
    row = {"study_id": study_id, "scope": scope, "key": key, "value": json.dumps(value)}
    _upsert(session, StudyAttribute.__table__, row, ("study_id", "scope", "key"), ("value",))


def claim_study_attribute(session: Session, study_id: int, scope: str, key: str, value: Any) -> Any:
    """Set an attribute where there is none; the value that stands."""
    row = {"study_id": study_id, "scope": scope, "key": key, "value": json.dumps(value)}
    _upsert(session, StudyAttribute.__table__, row, ("study_id", "scope", "key"), ())
    place = (StudyAttribute.study_id == study_id, StudyAttribute.scope == scope, StudyAttribute.key == key)
    return read_attribute(session.execute(select(StudyAttribute.value).where(*place)).scalar_one())


def claim_study_attributes(session: Session, study_id: int, scope: str, keys: Sequence[str]) -> None:
    """Set attributes without a value, where there are none."""
    for key in keys:
        row = {"study_id": study_id, "scope": scope, "key": key, "value": "null"}
        _upsert(session, StudyAttribute.__table__, row, ("study_id", "scope", "key"), ())


def _upsert(session: Session, table: Any, row: dict[str, Any], key: Sequence[str], updated: Sequence[str]) -> None:
    """Insert a row; where its key is there, update the columns `updated`, or leave it alone where there are none."""
    assert isinstance(table, Table)  # noqa: S101 - for the type checker
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table).values(**row)
    if updated:
        changes = {name: statement.excluded[name] for name in updated}
        session.execute(statement.on_conflict_do_update(index_elements=list(key), set_=changes))
    else:
        session.execute(statement.on_conflict_do_nothing(index_elements=list(key)))


# Trials


def insert_trial(session: Session, study: Study, values: Mapping[str, Any]) -> int:
    """Add a plain trial to a locked study; its id. `values` has its state and may have other columns of Trial."""
    state = TrialState(values["state"])
    row = {"number": study.next_number, "attempt": PLAIN_ATTEMPT, "created_at": clock(session), **values}
    study.next_number += 1
    setattr(study, state.lower(), getattr(study, state.lower()) + 1)
    if state.is_finished:
        study.finished_count += 1
        row["finish_seq"] = study.finished_count
    session.flush()
    return session.execute(insert(Trial).values(study_id=study.id, **row).returning(Trial.id)).scalar_one()


def lock_trial(session: Session, trial_id: int) -> Row[*tuple[Any, ...]] | None:
    """The TRIAL_COLUMNS of a trial, locked until the transaction ends, or None."""
    query = select(*TRIAL_COLUMNS).where(Trial.id == trial_id).with_for_update(key_share=True)
    return session.execute(query).one_or_none()


def update_trial(session: Session, trial_id: int, **values: Any) -> None:
    """Write columns of a locked trial."""
    session.execute(
        update(Trial).where(Trial.id == trial_id).values(**values).execution_options(synchronize_session=False)
    )


def move_trial(session: Session, study: Study, trial: Row[Any], state: TrialState, **values: Any) -> None:
    """Bring a locked, unfinished trial of a locked plain study to another state, with the study's counters."""
    counted = {"from": trial.state.lower(), "to": state.lower()}
    setattr(study, counted["from"], getattr(study, counted["from"]) - 1)
    setattr(study, counted["to"], getattr(study, counted["to"]) + 1)
    changes = {"state": state, **values}
    if state.is_finished:
        study.finished_count += 1
        reported = intermediate_values(session, [(trial.id, PLAIN_ATTEMPT)], PLAIN_METRIC).get(trial.id, {})
        changes |= {
            "finish_seq": study.finished_count,
            "finished_at": clock(session),
            "curve": dumps(list(reported.items())),
        }
    elif state is TrialState.RUNNING:
        changes["started_at"] = clock(session)
    session.flush()
    update_trial(session, trial.id, **changes)


def set_intermediate_value(session: Session, trial_id: int, step: int, value: Any) -> None:
    """Write what a plain trial reported at a step, over any earlier report of that step."""
    row = {"trial_id": trial_id, "attempt": PLAIN_ATTEMPT, "epoch": step, "metrics": dumps({PLAIN_METRIC: value})}
    key = ("trial_id", "attempt", "epoch")
    _upsert(session, Metric.__table__, {**row, "at": clock(session)}, key, ("metrics", "at"))


def intermediate_values(
    session: Session, attempts: Sequence[tuple[int, int]], metric: str
) -> dict[int, dict[int, Any]]:
    """What each (trial id, attempt) reported of `metric`, by trial id and epoch, as JSON values."""
    wanted = dict(attempts)
    found: dict[int, dict[int, Any]] = {trial_id: {} for trial_id in wanted}
    if not wanted:
        return found
    rows = session.execute(
        select(Metric.trial_id, Metric.attempt, Metric.epoch, Metric.metrics)
        .where(Metric.trial_id.in_(list(wanted)))
        .order_by(Metric.trial_id, Metric.epoch)
    )
    for row in rows:
        metrics = loads(row.metrics)
        if row.attempt == wanted[row.trial_id] and metric in metrics:
            found[row.trial_id][row.epoch] = metrics[metric]
    return found


def find_trial(session: Session, trial_id: int) -> Row[*tuple[Any, ...]] | None:
    """The TRIAL_COLUMNS of a trial, or None."""
    return session.execute(select(*TRIAL_COLUMNS).where(Trial.id == trial_id)).one_or_none()


def find_trial_id(session: Session, study_id: int, number: int) -> int | None:
    """The id of a study's trial by number, or None."""
    return session.scalar(select(Trial.id).where(Trial.study_id == study_id, Trial.number == number))


# Built once: a worker's view runs both before every ask.
_FINISHED_AFTER = (
    select(*TRIAL_COLUMNS)
    .where(Trial.study_id == bindparam("study"), Trial.finish_seq > bindparam("seq"))
    .order_by(Trial.finish_seq)
)
_RUNNING = select(Trial.id, Trial.number, Trial.sampled).where(
    Trial.study_id == bindparam("study"), Trial.state == TrialState.RUNNING
)


def finished_after(session: Session, study_id: int, seq: int) -> list[Row[Any]]:
    """The TRIAL_COLUMNS of the trials that finished after the one with this `finish_seq`, in that order."""
    return list(session.execute(_FINISHED_AFTER, {"study": study_id, "seq": seq}))


def unfinished(session: Session, study_id: int) -> list[Row[Any]]:
    """The TRIAL_COLUMNS of the WAITING and RUNNING trials, by number."""
    query = select(*TRIAL_COLUMNS).where(Trial.study_id == study_id, Trial.state.in_(LIVE_STATES))
    return list(session.execute(query.order_by(Trial.number)))


def running(session: Session, study_id: int) -> list[Row[Any]]:
    """Id, number and searched hyperparameters of the RUNNING trials, by number."""
    # Sorted here: told to sort, SQLite reads all trials of the study in the order of their numbers.
    return sorted(session.execute(_RUNNING, {"study": study_id}), key=attrgetter("number"))


def stored_system_attributes(session: Session, trial_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """The system attributes of trials, by id."""
    query = select(Trial.id, Trial.system_attributes).where(Trial.id.in_(trial_ids))
    return {row.id: loads(row.system_attributes) for row in session.execute(query)}


def count_trials(session: Session, study_id: int, states: Sequence[str] | None) -> int:
    """How many trials the study has, in the given states or in all."""
    query = select(func.count()).select_from(Trial).where(Trial.study_id == study_id)
    return session.scalar(query if states is None else query.where(Trial.state.in_(states))) or 0
