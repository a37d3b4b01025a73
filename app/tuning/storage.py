"""Optuna's storage over the service's tables: plain Optuna studies, and a read-only view of the service's own."""

from __future__ import annotations

import copy
import json
import threading
import uuid
import weakref
from collections.abc import Callable, Container, Sequence
from typing import Any, TypeVar

from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
    json_to_distribution,
)
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.storages._base import DEFAULT_STUDY_NAME_PREFIX
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Row
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.domain import trial as domain
from app.domain.json import dumps, encode_number, loads
from app.errors import StateConflict
from app.store import optuna as store
from app.store.engine import Database
from app.store.log import clock
from app.store.migrate import migrate
from app.store.tables import Study
from app.tuning.finished import FinishedTrials, read_unfinished
from app.tuning.trials import unix_time, write_params

T = TypeVar("T")


class StudyStorage(BaseStorage):
    """`optuna.load_study(study_name=…, storage=StudyStorage(url))` on a database of Fettle.

    Studies that plain Optuna makes live in the project `default`, without a definition; their trials need no lease and
    are never reaped. The service's own studies of that project are read-only: their trials are shown with parameters,
    values by epoch of the current attempt, and constraints; writing raises `app.errors.StateConflict`.

    Finished trials are read once and kept. Safe to share among threads; a pickled copy opens its own connections.

    Args:
        url: `sqlite:///file` or `postgresql+psycopg://…`; a missing schema is created.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._open()
        migrate(self._database)

    def _open(self) -> None:
        self._database = Database(self._url)
        # Drivers warn of connections that are collected while open.
        weakref.finalize(self, self._database.dispose)
        self._finished: dict[int, FinishedTrials] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self._url}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._url = state["url"]
        self._open()

    def close(self) -> None:
        """Close all database connections; the next call opens new ones. No other thread may be using the storage.

        (Optuna's `remove_session` does nothing here: each of its threads calls it, and none owns the connections.)
        """
        self._database.dispose()

    # Studies

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        name = f"{DEFAULT_STUDY_NAME_PREFIX}{uuid.uuid4()}" if study_name is None else study_name
        try:
            with self._database.write() as session:
                return store.insert_study(session, name, [direction.name.lower() for direction in directions])
        except IntegrityError:
            raise DuplicatedStudyError(f"Expected a new study name. Received that of another study: {name!r}") from None

    def delete_study(self, study_id: int) -> None:
        self._write_study(study_id, lambda session, _study: store.delete_study(session, study_id))
        with self._lock:
            self._finished.pop(study_id, None)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._set_study_attribute(study_id, "user", key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._set_study_attribute(study_id, "system", key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        with self._database.read() as session:
            found = store.find_study_id(session, study_name)
        if found is None:
            raise KeyError(f"Expected the name of a study. Received: {study_name!r}")
        return found

    def get_study_name_from_id(self, study_id: int) -> str:
        return str(self._study(study_id).name)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return _directions(self._study(study_id))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._study_attributes(study_id, "user")

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._study_attributes(study_id, "system")

    def get_all_studies(self) -> list[FrozenStudy]:
        with self._database.read() as session:
            rows = store.all_studies(session)
            ids = [row.id for row in rows]
            user = store.study_attributes(session, ids, "user")
            system = store.study_attributes(session, ids, "system")
        return [FrozenStudy(r.name, None, user[r.id], system[r.id], r.id, directions=_directions(r)) for r in rows]

    # Writing trials

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        def create(session: Session, study: Study) -> int:
            if template_trial is None:
                values: dict[str, Any] = {"state": "RUNNING", "started_at": clock(session)}
                return store.insert_trial(session, study, values)
            for name, space in template_trial.distributions.items():
                store.claim_study_attribute(session, study.id, "param", name, distribution_to_json(space))
            trial_id = store.insert_trial(session, study, _columns(template_trial))
            if not template_trial.state.is_finished():
                for step, value in template_trial.intermediate_values.items():
                    store.set_intermediate_value(session, trial_id, step, encode_number(value))
            return trial_id

        return self._write_study(study_id, create, once=True)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        def write(session: Session, trial: Row[Any]) -> None:
            text = distribution_to_json(distribution)
            first = store.claim_study_attribute(session, trial.study_id, "param", param_name, text)
            check_distribution_compatibility(json_to_distribution(first), distribution)
            params = json.loads(trial.optuna_params or "{}")
            params[param_name] = [param_value_internal, text]
            store.update_trial(session, trial_id, optuna_params=json.dumps(params))

        self._write_trial(trial_id, write)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        study_id = self._trial(trial_id).study_id

        def write(session: Session, study: Study) -> bool:
            trial = self._locked(session, trial_id)
            if state == TrialState.RUNNING and trial.state != domain.TrialState.WAITING:
                return False
            changes = {} if values is None else _value_columns(values)
            store.move_trial(session, study, trial, domain.TrialState[state.name], **changes)
            return True

        return self._write_study(study_id, write)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        value = encode_number(intermediate_value)
        self._write_trial(trial_id, lambda session, _: store.set_intermediate_value(session, trial_id, step, value))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._set_trial_attribute(trial_id, "user_attributes", key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._set_trial_attribute(trial_id, "system_attributes", key, value)

    # Reading trials

    def get_trial(self, trial_id: int) -> FrozenTrial:
        with self._database.read() as session:
            row = store.find_trial(session, trial_id)
            if row is None:
                raise _no_trial(trial_id)
            study = store.find_study(session, row.study_id)
            if study is None:
                raise _no_trial(trial_id)
            trials = FinishedTrials(study)
            return trials.read(row) if row.finish_seq is not None else read_unfinished(session, trials, [row])[0]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        with self._database.read() as session:
            study = store.find_study(session, study_id)
            if study is None:
                raise _no_study(study_id)
            finished = self._finished_of(study)
            # Before the finished ones, so that a trial that finishes in between is seen twice instead of never.
            live = read_unfinished(session, finished, store.unfinished(session, study_id))
            by_number = {trial.number: trial for trial in live} | finished.refresh(session)
        trials = [by_number[number] for number in sorted(by_number)]
        if states is not None:
            trials = [trial for trial in trials if trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def get_n_trials(self, study_id: int, state: tuple[TrialState, ...] | TrialState | None = None) -> int:
        states = (state,) if isinstance(state, TrialState) else state
        names = None if states is None else [one.name for one in states]
        with self._database.read() as session:
            if store.find_study(session, study_id) is None:
                raise _no_study(study_id)
            return store.count_trials(session, study_id, names)

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        with self._database.read() as session:
            found = store.find_trial_id(session, study_id, trial_number)
        if found is None:
            raise KeyError(f"Expected a trial of study id {study_id}. Received its number: {trial_number}")
        return found

    def get_trial_number_from_id(self, trial_id: int) -> int:
        return int(self._trial(trial_id).number)

    # Below

    def _finished_of(self, study: Row[Any]) -> FinishedTrials:
        with self._lock:
            found = self._finished.get(study.id)
            if found is None or found.public_id != study.public_id:
                # SQLite gives a deleted study's id to the next one.
                found = self._finished[study.id] = FinishedTrials(study)
            return found

    def _study(self, study_id: int) -> Row[Any]:
        with self._database.read() as session:
            row = store.find_study(session, study_id)
        if row is None:
            raise _no_study(study_id)
        return row

    def _trial(self, trial_id: int) -> Row[Any]:
        with self._database.read() as session:
            row = store.find_trial(session, trial_id)
        if row is None:
            raise _no_trial(trial_id)
        return row

    def _study_attributes(self, study_id: int, scope: str) -> dict[str, Any]:
        self._study(study_id)
        with self._database.read() as session:
            return store.study_attributes(session, [study_id], scope)[study_id]

    def _set_study_attribute(self, study_id: int, scope: str, key: str, value: Any) -> None:
        self._write_study(study_id, lambda session, _: store.set_study_attribute(session, study_id, scope, key, value))

    def _set_trial_attribute(self, trial_id: int, column: str, key: str, value: Any) -> None:
        def write(session: Session, trial: Row[Any]) -> None:
            attributes = json.loads(getattr(trial, column))
            attributes[key] = value
            store.update_trial(session, trial_id, **{column: store.write_attributes(attributes)})

        self._write_trial(trial_id, write)

    def _write_study(self, study_id: int, work: Callable[[Session, Study], T], *, once: bool = False) -> T:
        """Do `work` on a locked plain study; `once` where it must not be repeated after a lost connection."""

        def locked(session: Session) -> T:
            study = store.lock_study(session, study_id)
            if study is None:
                raise _no_study(study_id)
            if study.managed:
                raise _read_only(study.name)
            return work(session, study)

        if once:
            with self._database.write() as session:
                return locked(session)
        return self._database.run(locked)

    def _write_trial(self, trial_id: int, work: Callable[[Session, Row[Any]], None]) -> None:
        """Do `work` on a locked, unfinished trial of a plain study."""
        self._database.run(lambda session: work(session, self._locked(session, trial_id)))

    def _locked(self, session: Session, trial_id: int) -> Row[Any]:
        trial = store.lock_trial(session, trial_id)
        study = None if trial is None else store.find_study(session, trial.study_id)
        if trial is None or study is None:
            raise _no_trial(trial_id)
        if study.managed:
            raise _read_only(study.name)
        if trial.finish_seq is not None:
            raise UpdateFinishedTrialError(f"Expected a trial that hasn't finished. Received trial {trial.number}")
        return trial


def _columns(trial: FrozenTrial) -> dict[str, Any]:
    """The columns of a plain trial made from a template."""
    finished = trial.state.is_finished()
    curve = [[step, encode_number(value)] for step, value in trial.intermediate_values.items()]
    return {
        "state": trial.state.name,
        **({} if trial.values is None else _value_columns(trial.values)),
        "started_at": unix_time(trial.datetime_start),
        "finished_at": unix_time(trial.datetime_complete),
        "optuna_params": write_params(trial.params, trial.distributions),
        "user_attributes": store.write_attributes(trial.user_attrs),
        "system_attributes": store.write_attributes(trial.system_attrs),
        "curve": dumps(curve) if finished else None,
    }


def _value_columns(values: Sequence[float]) -> dict[str, Any]:
    floats = [float(value) for value in values]
    return {"objective_values": dumps(floats), "value": floats[0] if floats else None}


def _directions(study: Row[Any]) -> list[StudyDirection]:
    return [StudyDirection[name.upper()] for name in loads(study.directions)]


def _no_study(study_id: int) -> KeyError:
    return KeyError(f"Expected the id of a study. Received: {study_id}")


def _no_trial(trial_id: int) -> KeyError:
    return KeyError(f"Expected the id of a trial. Received: {trial_id}")


def _read_only(name: str) -> StateConflict:
    return StateConflict(
        "Expected a study made by Optuna: those of the service are read-only through StudyStorage, and change through "
        f"its HTTP API. Received: {name!r}"
    )
