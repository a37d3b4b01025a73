"""What importances and figures read of trials: little of each of many, and more of the few that are shown.

Functions take a Session and never commit. Rows come in blocks: no text of many trials is held at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from app.domain.trial import TrialState
from app.store.query import among_ids
from app.store.tables import Metric, Trial, table_of

BLOCK = 200
"""Trials of a block: the texts of one may have a few hundred kilobytes."""
OUTLINE_BLOCK = 2_000

_t, _m = table_of(Trial), table_of(Metric)
_OUTLINE = (
    _t.c.id,
    _t.c.number,
    _t.c.state,
    _t.c.attempt,
    _t.c.feasible,
    _t.c.epochs,
    _t.c.objective_values,
    # Whether there is a curve, not the curve.
    (func.coalesce(_t.c.curve, "[]") != "[]").label("has_curve"),
    _t.c.finish_seq,
)
_SAMPLED = {d: select(_t.c.id, _t.c.sampled).where(among) for d, among in among_ids(_t.c.id).items()}
_CURVES = {d: select(_t.c.id, _t.c.curve).where(among) for d, among in among_ids(_t.c.id).items()}


def outlines_after(session: Session, study_id: int, seq: int) -> Iterator[Row[Any]]:
    """The trials that finished after the one with this `finish_seq`, in that order: `id, number, state, attempt,
    feasible, epochs, objective_values, has_curve, finish_seq`.
    """
    query = select(*_OUTLINE).where(_t.c.study_id == study_id, _t.c.finish_seq > seq).order_by(_t.c.finish_seq)
    yield from session.connection().execute(query, execution_options={"yield_per": OUTLINE_BLOCK})


def outlines_running(session: Session, study_id: int) -> list[Row[Any]]:
    """The same of the RUNNING trials."""
    query = select(*_OUTLINE).where(_t.c.study_id == study_id, _t.c.state == TrialState.RUNNING)
    return list(session.connection().execute(query))


def sampled_texts(session: Session, ids: Sequence[int]) -> Iterator[tuple[int, str]]:
    """Id and searched hyperparameters, as JSON, of the trials among `ids` that have some."""
    return _texts(session, _SAMPLED, ids)


def curve_texts(session: Session, ids: Sequence[int]) -> Iterator[tuple[int, str]]:
    """Id and curve, as JSON lists [epoch, value, …], of the finished trials among `ids` that have one."""
    return _texts(session, _CURVES, ids)


def _texts(session: Session, statements: dict[str, Any], ids: Sequence[int]) -> Iterator[tuple[int, str]]:
    statement = statements[session.get_bind().dialect.name]
    for i in range(0, len(ids), BLOCK):
        for row in session.connection().execute(statement, {"ids": list(ids[i : i + BLOCK])}):
            if row[1] is not None:
                yield row[0], row[1]


def reports(session: Session, trial_id: int, attempt: int, most: int) -> list[tuple[int, str]]:
    """What an attempt reported, as (epoch, metrics as JSON) by epoch: about `most` of its epochs, evenly."""
    mine = (_m.c.trial_id == trial_id, _m.c.attempt == attempt)
    last = session.connection().execute(select(func.max(_m.c.epoch)).where(*mine)).scalar()
    if last is None:
        return []
    stride = last // most + 1
    query = select(_m.c.epoch, _m.c.metrics).where(*mine, _m.c.epoch % stride == last % stride).order_by(_m.c.epoch)
    return [(row[0], row[1]) for row in session.connection().execute(query)]


@dataclass(frozen=True, slots=True)
class Span:
    """When a trial ran, in Unix seconds by the database's clock; `finished_at` is None while it does."""

    number: int
    state: str
    feasible: bool | None
    value: float | None
    started_at: float
    finished_at: float | None


def spans(session: Session, study_id: int, most: int) -> list[Span]:
    """The last `most` trials that were started, by number."""
    query = (
        select(_t.c.number, _t.c.state, _t.c.feasible, _t.c.value, _t.c.started_at, _t.c.finished_at)
        .where(_t.c.study_id == study_id, _t.c.started_at.is_not(None))
        .order_by(_t.c.number.desc())
        .limit(most)
    )
    return [Span(*row) for row in session.connection().execute(query)][::-1]
