"""Trials and their metrics as JSON text, in the shape of `app.api.schemas`.

What is stored as JSON goes into the answer as it is: a page of trials would otherwise be parsed, validated and written
again, which costs several times what reading it from the database does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Any

from sqlalchemy import Row
from sqlalchemy.orm import Session

from app.api.views import artifact_view, definition_of
from app.domain.families import Scalar
from app.domain.fixed import LARGE_BYTES
from app.domain.json import dumps, loads
from app.domain.study import StudyDefinition
from app.store import tables, trials
from app.store.listing import ShownTrial, shown
from app.store.log import rfc3339


@dataclass(frozen=True, slots=True)
class Fixed:
    """The hyperparameters that a study fixes, and their JSON text."""

    values: Mapping[str, Scalar]
    text: str

    @classmethod
    def of(cls, definition: StudyDefinition) -> Fixed:
        """Those of a definition."""
        values = definition.fixed
        return cls(values, dumps(values))

    def beside(self, requested: str) -> str:
        """The JSON text of these and of those that were asked for, which count where both are given."""
        asked = loads(requested)
        if not asked or not self.values:
            return requested if asked else self.text
        if asked.keys() & self.values.keys():
            return dumps({**self.values, **asked})
        return f"{self.text[:-1]},{requested[1:]}"


def trial_texts(
    session: Session, study: tables.Study, rows: Sequence[ShownTrial], fixed: Fixed | None = None
) -> list[str]:
    """Trials of a study as `schemas.Trial`, with their files and the last metrics of those that have no result.

    What the study has `fixed` is shown of trials that wait; where it isn't given, the definition is read for it.
    """
    files = trials.artifacts_of(session, [t.id for t in rows])
    metrics = trials.last_metrics(session, [t for t in rows if t.metrics is None])
    if fixed is None and any(t.hyperparameters is None for t in rows):
        fixed = Fixed.of(definition_of(study))
    names = loads(study.objective_metrics)
    public_id = _string(study.public_id)
    return [_trial_text(public_id, names, t, files.get(t.id, []), t.metrics or metrics.get(t.id), fixed) for t in rows]


def fixed_bytes(study: tables.Study) -> int:
    """What the study's fixed hyperparameters add to a trial that is kept without them."""
    if len(study.definition or "") <= LARGE_BYTES:
        return len(study.definition or "")
    return len(dumps(definition_of(study).fixed).encode())


def trial_text(session: Session, study: tables.Study, row: tables.Trial, fixed: Fixed | None = None) -> str:
    """One trial of a study as `schemas.Trial`; `fixed` as in `trial_texts`."""
    return trial_texts(session, study, [shown(row)], fixed)[0]


def metrics_text(row: Row[Any]) -> str:
    """What an attempt reported for one epoch, as `schemas.EpochMetrics`."""
    return f'{{"epoch":{row.epoch},"attempt":{row.attempt},"metrics":{row.metrics},"at":"{rfc3339(row.at)}"}}'


def _trial_text(
    public_id: str,
    names: Sequence[str],
    trial: ShownTrial,
    files: Sequence[tables.Artifact],
    metrics: str | None,
    fixed: Fixed | None,
) -> str:
    varied = trial.varied or trial.requested or "{}"
    hyperparameters = trial.hyperparameters or (varied if fixed is None else fixed.beside(varied))
    values = "null" if trial.objective_values is None else _values(names, trial.objective_values)
    seconds = "null"
    if trial.finished_at is not None and trial.started_at is not None:
        seconds = repr(round(max(0.0, trial.finished_at - trial.started_at), 6))
    error = "null"
    if trial.error_code is not None or trial.error_message is not None:
        error = dumps({"code": trial.error_code or "UNKNOWN", "message": trial.error_message or ""})
    return (
        f'{{"study_id":{public_id},"number":{trial.number},"state":"{trial.state}","reason":{_string(trial.reason)},'
        f'"feasible":{_boolean(trial.feasible)},"attempt":{trial.attempt},"hyperparameters":{hyperparameters},'
        f'"sampled":{trial.sampled or "{}"},"values":{values},"metrics":{metrics or "null"},'
        f'"selected_epoch":{_number(trial.selected_epoch)},"epochs":{trial.epochs},'
        f'"parent":{_number(trial.parent)},"first_epoch":{trial.first_epoch},'
        f'"reused_from":{_number(trial.reused_from)},'
        f'"worker_id":{_string(trial.worker_id)},"device":{_string(trial.device)},'
        f'"created_at":{_time(trial.created_at)},"started_at":{_time(trial.started_at)},'
        f'"finished_at":{_time(trial.finished_at)},"duration_seconds":{seconds},"error":{error},'
        f'"artifacts":[{",".join(artifact_view(file).model_dump_json() for file in files)}]}}'
    )


def _values(names: Sequence[str], values: str) -> str:
    """A trial's objective values, a JSON list, by the metrics' names."""
    if len(names) == 1:
        return f"{{{encode_basestring(names[0])}:{values[1:-1]}}}"
    return dumps(dict(zip(names, loads(values), strict=True)))


def _string(text: str | None) -> str:
    return "null" if text is None else encode_basestring(text)


def _boolean(value: bool | None) -> str:
    return "null" if value is None else ("true" if value else "false")


def _number(value: int | None) -> str:
    return "null" if value is None else str(value)


def _time(at: float | None) -> str:
    return "null" if at is None else f'"{rfc3339(at)}"'
