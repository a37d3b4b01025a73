"""Trials by ancestry: which trials a trial went on from."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.store.listing import SHOWN, ShownTrial
from app.store.tables import Trial, table_of


def lineage(session: Session, study_id: int, number: int) -> list[ShownTrial]:
    """Trial `number` of a study and all that it went on from, the first one first."""
    _t = table_of(Trial)
    line = select(_t.c.number, _t.c.parent).where(_t.c.study_id == study_id, _t.c.number == number).cte(recursive=True)
    before = select(_t.c.number, _t.c.parent).join(line, line.c.parent == _t.c.number).where(_t.c.study_id == study_id)
    line = line.union_all(before)
    query = select(*SHOWN).join(line, line.c.number == _t.c.number).where(_t.c.study_id == study_id)
    return [ShownTrial._make(row) for row in session.execute(query.order_by(_t.c.number))]
