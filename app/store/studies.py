"""Reading studies: one by its public id, and lists in a stable order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, exists, func, or_, select, tuple_
from sqlalchemy.orm import Session

from app.domain.study import StudyState
from app.errors import NotFound
from app.store.portions import PAGE_BYTES, next_count, octets
from app.store.tables import Study, StudyLabel, Worker

MAX_ID = 40
"""Characters of the longest public id."""


@dataclass(frozen=True, slots=True)
class StudyFilter:
    """What a list of studies is narrowed to; `text` is looked for in names and descriptions."""

    states: Sequence[StudyState] = ()
    labels: Sequence[tuple[str, str]] = ()
    text: str | None = None


def find_study(session: Session, project: str, public_id: str) -> Study:
    """The study with this id.

    Raises:
        NotFound: the project has none.
    """
    study = None
    if len(public_id) <= MAX_ID:
        query = select(Study).where(Study.public_id == public_id, Study.project == project, Study.managed)
        study = session.scalars(query).one_or_none()
    if study is None:
        raise NotFound(f"Expected the id of a study. Received: {public_id[:100]!r}", code="STUDY_NOT_FOUND")
    return study


def locked(session: Session, study_id: int) -> Study:
    """The row of a study as it is now, locked until the transaction ends, but not against rows that refer to it."""
    query = select(Study).where(Study.id == study_id).with_for_update(key_share=True)
    return session.scalars(query.execution_options(populate_existing=True)).one()


def state_of(session: Session, study_id: int) -> StudyState:
    """The state of a study."""
    return StudyState(session.execute(select(Study.state).where(Study.id == study_id)).scalar_one())


def idle_studies(session: Session, limit: int) -> Sequence[Study]:
    """The oldest studies that run without any trial under way."""
    idle = Study.managed, Study.state == StudyState.RUNNING, Study.leased == 0
    return session.scalars(select(Study).where(*idle).order_by(Study.id).limit(limit)).all()


def running_studies(session: Session) -> int:
    """How many studies run."""
    return session.scalar(select(func.count()).where(Study.managed, Study.state == StudyState.RUNNING)) or 0


def list_studies(
    session: Session, project: str, narrowed: StudyFilter, *, sort: str, after: tuple[Any, ...] | None, limit: int
) -> list[Study]:
    """Up to `limit` studies of the project after a sort key, by `name`, `created_at` or `-created_at`."""
    query = _narrow(select(Study).where(Study.project == project, Study.managed), narrowed)
    # Names are unique in a project: they alone are an order, and the order of an index.
    columns: list[Any] = [Study.name] if sort == "name" else [Study.created_at, Study.id]
    descending = sort.startswith("-")
    if after is not None:
        place, key = tuple_(*columns), tuple_(*after[: len(columns)])
        query = query.where(place < key if descending else place > key)
    query = query.order_by(*(column.desc() if descending else column for column in columns))
    return list(session.scalars(query.limit(limit)))


def studies_page(
    session: Session, project: str, narrowed: StudyFilter, *, sort: str, after: tuple[Any, ...] | None, limit: int
) -> tuple[list[Study], bool]:
    """The same as `list_studies`, at least one and as many as fit a page's bytes; and whether there are more."""
    found: list[Study] = []
    size = largest = 0
    while len(found) <= limit:
        count = min(next_count(len(found), size, largest, PAGE_BYTES), limit + 1 - len(found))
        part = list_studies(session, project, narrowed, sort=sort, after=after, limit=count)
        for study in part:
            taken = octets(study.definition) + octets(study.description)
            size, largest = size + taken, max(largest, taken)
            if found and size > PAGE_BYTES:
                return found, True
            found.append(study)
        if len(part) < count:
            return found[:limit], len(found) > limit
        after = sort_key(part[-1], sort)
    return found[:limit], True


def sort_key(study: Study, sort: str) -> tuple[Any, ...]:
    """Where the study stands in a list."""
    return (study.name if sort == "name" else study.created_at, study.id)


def _narrow(query: Select[Study], narrowed: StudyFilter) -> Select[Study]:
    if narrowed.states:
        query = query.where(Study.state.in_(narrowed.states))
    for key, value in narrowed.labels:
        label = exists().where(StudyLabel.study_id == Study.id, StudyLabel.key == key, StudyLabel.value == value)
        query = query.where(label)
    if narrowed.text:
        text = narrowed.text.lower()
        query = query.where(
            or_(
                func.lower(Study.name).contains(text, autoescape=True),
                func.lower(Study.description).contains(text, autoescape=True),
            )
        )
    return query


def counts(session: Session) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """How many studies, trials and workers there are in each state, from the studies' counters."""
    studies = session.execute(select(Study.state, func.count()).where(Study.managed).group_by(Study.state))
    columns = {
        "WAITING": Study.waiting,
        "RUNNING": Study.running,
        "COMPLETE": Study.complete,
        "PRUNED": Study.pruned,
        "FAIL": Study.fail,
    }
    sums = session.execute(
        select(*(func.coalesce(func.sum(c), 0) for c in columns.values())).where(Study.managed)
    ).one()
    workers = session.execute(select(Worker.state, func.count()).group_by(Worker.state))
    return (
        {state: int(n) for state, n in studies},
        {state: int(n) for state, n in zip(columns, sums, strict=True)},
        {state: int(n) for state, n in workers},
    )
