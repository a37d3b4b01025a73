"""Pages of a study's trials, in any order and narrowed in any way, at a cost that doesn't grow with the study.

A list is made of *classes*, one for each state and feasibility that it shows. A class lies in order in an index, so its
next trials are a range of that index; the ranges of all classes are asked for at once and merged here. Two indexes
serve all lists: (study, state, feasible, number) and (study, state, feasible, value, number). Rows come last, by id.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Select,
    bindparam,
    literal_column,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.orm import Session

from app.domain.trial import TrialState
from app.store.portions import PAGE_BYTES, next_count, octets
from app.store.query import among_ids
from app.store.tables import Trial, table_of

Class = tuple[TrialState, bool | None]
"""A state, and whether its trials are feasible."""
ALL_CLASSES: tuple[Class, ...] = tuple(
    (state, feasible)
    for state in TrialState
    for feasible in ((None, True, False) if state is TrialState.COMPLETE else (None,))
)
"""Only a COMPLETE trial is judged (see `app.domain.trial.Outcome.feasible`)."""

_t = table_of(Trial)
LEAST_BYTES = 600
"""What a trial is shown with beside its texts: names, times, numbers."""
FIRST = -1
"""Before the first trial's number."""


class ShownTrial(NamedTuple):
    """The columns that a trial is shown by; the others are for samplers, pruners and workers."""

    id: int
    number: int
    state: str
    reason: str | None
    feasible: bool | None
    attempt: int
    requested: str | None
    hyperparameters: str | None
    varied: str | None
    sampled: str | None
    objective_values: str | None
    value: float | None
    metrics: str | None
    selected_epoch: int | None
    epochs: int
    parent: int | None
    first_epoch: int
    worker_id: str | None
    device: str | None
    error_code: str | None
    error_message: str | None
    reused_from: int | None
    created_at: float
    started_at: float | None
    finished_at: float | None


class _Range(NamedTuple):
    """A range of an index below (study, state, feasible): where it lies, and the way through it."""

    condition: ColumnElement[bool]
    order: tuple[ColumnElement[Any], ...]
    descending: bool = False


_number: BindParameter[int] = bindparam("number")
_value: BindParameter[float] = bindparam("value")
_upward = (_t.c.value, _t.c.number)
_has_value = _t.c.value <= math.inf  # not NULL, and on PostgreSQL not NaN, which it puts above all numbers
_RANGES = {
    "number": _Range(_t.c.number > _number, (_t.c.number,)),
    "-number": _Range(_t.c.number < _number, (_t.c.number,), descending=True),
    "above": _Range((tuple_(_t.c.value, _t.c.number) > tuple_(_value, _number)) & _has_value, _upward),
    "below": _Range(_t.c.value < _value, _upward, descending=True),
    "highest": _Range(_has_value, _upward, descending=True),
    "tied": _Range((_t.c.value == _value) & (_t.c.number > _number), _upward),
    "null": _Range(_t.c.value.is_(None) & (_t.c.number > _number), _upward),
    "nan": _Range((_t.c.value > math.inf) & (_t.c.number > _number), _upward),
}
BY_VALUE = ("above", "below", "highest")
"""The ranges in which trials lie by value first; in the others all have the same, or it doesn't matter."""
_WITHOUT_VALUE = {"sqlite": ("null",), "postgresql": ("null", "nan")}
"""The ranges of trials without a value. SQLite stores NaN as NULL, PostgreSQL above infinity."""
SHOWN = tuple(_t.c[name] for name in ShownTrial._fields)
_BY_ID = {dialect: select(*SHOWN).where(among) for dialect, among in among_ids(_t.c.id).items()}


class _Place(NamedTuple):
    """A trial's place in a list; `value` is given where it decides, `among` says which of the classes it is of."""

    id: int
    number: int
    value: float | None
    among: int


def at_one_moment(session: Session) -> None:
    """Let all statements of the session, which has executed none yet, see the same moment (SQLite's do anyway)."""
    if session.get_bind().dialect.name == "postgresql":
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})


def list_trials(
    session: Session,
    study_id: int,
    *,
    states: Collection[TrialState] = (),
    feasible: bool | None = None,
    sort: str = "number",
    after: tuple[Any, ...] | None = None,
    limit: int,
) -> list[ShownTrial]:
    """Up to `limit` trials after a sort key.

    `sort` is `number`, `-number`, `value` or `-value`: those without a value, and with NaN, come last; those with the
    same value, or without one, by number. For a list of one moment the session is one of `at_one_moment`.
    """
    places = _places(session, study_id, states, feasible, sort, after, limit)
    return trials_by_id(session, [place.id for place in places])


@dataclass(frozen=True, slots=True)
class TrialsPage:
    """A part of a list of trials; `has_more`: there are others after it."""

    trials: list[ShownTrial]
    has_more: bool


def trials_page(
    session: Session,
    study_id: int,
    *,
    states: Collection[TrialState] = (),
    feasible: bool | None = None,
    sort: str = "number",
    after: tuple[Any, ...] | None = None,
    limit: int,
    fixed_bytes: int,
    budget: int = PAGE_BYTES,
) -> TrialsPage:
    """The same as `list_trials`, at least one and as many as fit `budget` bytes as they are shown.

    `fixed_bytes` is what the study's fixed hyperparameters add to a trial whose row doesn't have them.
    """
    places = _places(session, study_id, states, feasible, sort, after, limit + 1)
    return part_of_trials(session, [place.id for place in places], limit, fixed_bytes, budget)


def part_of_trials(
    session: Session, ids: Sequence[int], limit: int, fixed_bytes: int, budget: int = PAGE_BYTES
) -> TrialsPage:
    """The first of the trials with these ids: at most `limit`, as many as fit `budget` bytes, and one at least.

    They are read a few at a time, so that little more is read than is shown.
    """
    found: list[ShownTrial] = []
    size = read = largest = 0
    while read < min(limit, len(ids)):
        count = next_count(read, size, largest, budget)
        for trial in trials_by_id(session, ids[read : min(limit, read + count)]):
            taken = _shown_bytes(trial, fixed_bytes)
            if found and size + taken > budget:
                return TrialsPage(found, has_more=True)
            found.append(trial)
            size, largest = size + taken, max(largest, taken)
        read += count
    # None is found where the study was deleted meanwhile.
    return TrialsPage(found, has_more=bool(found) and len(ids) > limit)


def _shown_bytes(trial: ShownTrial, fixed_bytes: int) -> int:
    texts = (trial.hyperparameters, trial.varied or trial.requested, trial.sampled, trial.objective_values)
    apart = fixed_bytes if trial.hyperparameters is None else 0
    return LEAST_BYTES + apart + sum(map(octets, (*texts, trial.metrics, trial.error_message)))


def _places(
    session: Session,
    study_id: int,
    states: Collection[TrialState],
    feasible: bool | None,
    sort: str,
    after: tuple[Any, ...] | None,
    limit: int,
) -> list[_Place]:
    """The first `limit` places of a list after a sort key."""
    lists = _Lists(session, study_id, _classes(states, feasible))
    if sort == "number":
        return lists.next("number", limit, number=FIRST if after is None else after[0])
    if sort == "-number":
        return lists.next("-number", limit, number=2**63 - 1 if after is None else after[0])
    return lists.falling(after, limit) if sort == "-value" else lists.rising(after, limit)


def trials_by_id(session: Session, ids: Sequence[int]) -> list[ShownTrial]:
    """The trials with these ids that exist, in the order given."""
    if not ids:
        return []
    rows = session.connection().execute(_BY_ID[session.get_bind().dialect.name], {"ids": ids})
    found = {trial.id: trial for trial in map(ShownTrial._make, rows)}
    return [found[key] for key in ids if key in found]


def shown(trial: Trial) -> ShownTrial:
    """A trial that was read whole."""
    return ShownTrial(*(getattr(trial, name) for name in ShownTrial._fields))


def sort_key(trial: ShownTrial, sort: str) -> tuple[Any, ...]:
    """Where the trial stands in a list."""
    if sort.endswith("number"):
        return (trial.number,)
    return (None if trial.value is None or math.isnan(trial.value) else trial.value, trial.number)


def _classes(states: Collection[TrialState], feasible: bool | None) -> tuple[Class, ...]:
    """The classes that a list shows."""
    shown = [one for one in ALL_CLASSES if one[0] in states or not states]
    return tuple(one for one in shown if feasible is None or one[1] is feasible)


@dataclass(frozen=True, slots=True)
class _Lists:
    """A study's trials of some classes."""

    session: Session
    study_id: int
    classes: tuple[Class, ...]

    def next(self, name: str, limit: int, *, number: int = FIRST, value: float = 0.0) -> list[_Place]:
        """The first `limit` trials of a range; the bounds `number` and `value` are used where the range has them."""
        return self._all(name, limit, number, value, self.classes)[:limit]

    def rising(self, after: tuple[Any, ...] | None, limit: int) -> list[_Place]:
        """Trials by value after a value and a number, those without a value last."""
        value, number = (-math.inf, FIRST) if after is None else after
        if value is None:
            return self._without_value(limit, number)
        found = self.next("above", limit, number=number, value=value)
        return found + self._without_value(limit - len(found), FIRST)

    def falling(self, after: tuple[Any, ...] | None, limit: int) -> list[_Place]:
        """Trials by falling value after a value and a number, those without a value last."""
        if after is None:
            found = self._falling("highest", limit, math.inf)
        elif after[0] is None:
            return self._without_value(limit, after[1])
        else:
            value, number = after
            found = self.next("tied", limit, number=number, value=value)
            found += self._falling("below", limit - len(found), value)
        return found + self._without_value(limit - len(found), FIRST)

    def _falling(self, name: str, limit: int, value: float) -> list[_Place]:
        """Trials by falling value; those that share one by rising number, though the index has them the other way."""
        merged = self._all(name, limit, FIRST, value, self.classes)
        found = sorted(merged[:limit], key=lambda p: (-(p.value or 0.0), p.number))
        if len(found) < limit or not found:
            return found
        # More may share the last value: of those the lowest numbers, which were not read.
        last = found[-1].value or 0.0
        sharing = tuple(self.classes[i] for i in sorted({p.among for p in merged if p.value == last}))
        whole = [p for p in found if p.value != last]
        return whole + self._all("tied", limit - len(whole), FIRST, last, sharing)[: limit - len(whole)]

    def _without_value(self, limit: int, number: int) -> list[_Place]:
        names = _WITHOUT_VALUE[self.session.get_bind().dialect.name]
        found = [place for name in names for place in self.next(name, limit, number=number)]
        return sorted(found, key=lambda p: p.number)[:limit]

    def _all(self, name: str, limit: int, number: int, value: float, classes: tuple[Class, ...]) -> list[_Place]:
        """Up to `limit` trials of each class, merged."""
        if not (classes and limit):
            return []
        by_value, sign = name in BY_VALUE, -1 if _RANGES[name].descending else 1
        if name.endswith("number") and classes == ALL_CLASSES:
            classes = ()  # the whole study is one range
        bounds = {"study": self.study_id, "limit": limit, "number": number, "value": value}
        rows = self.session.connection().execute(_statement(name, classes), bounds)
        found = list(map(_Place._make, rows))
        if len(classes) > 1:
            found.sort(key=lambda p: (sign * (p.value or 0.0) if by_value else 0.0, sign * p.number))
        return found


@lru_cache(maxsize=512)
def _statement(name: str, classes: tuple[Class, ...]) -> Select[Any] | CompoundSelect[Any]:
    """The first trials of a range in each class; the whole study's without any. Built once: building costs more."""
    if not classes:
        return _part(name, 0, _t.c.study_id == bindparam("study"))
    parts = []
    for i, (state, feasible) in enumerate(classes):
        # PostgreSQL plans by how frequent a state is, so it is told which.
        is_state = _t.c.state == literal_column(f"'{state}'")
        part = _part(
            name, i, (_t.c.study_id == bindparam("study")) & is_state & _t.c.feasible.is_(feasible), _t.c.feasible
        )
        parts.append(select(part.subquery(f"class_{i}")))
    return union_all(*parts)


def _part(name: str, among: int, condition: ColumnElement[bool], *prefix: ColumnElement[Any]) -> Select[Any]:
    found = _RANGES[name]
    value = _t.c.value if name in BY_VALUE else literal_column("NULL").label("value")
    # The column before them too, though it has one value: PostgreSQL does not count IS NULL as one.
    order = (*prefix, *found.order)
    return (
        select(_t.c.id, _t.c.number, value, literal_column(str(among)).label("among"))
        .where(condition, found.condition)
        .order_by(*(c.desc() if found.descending else c.asc() for c in order))
        .limit(bindparam("limit"))
    )
