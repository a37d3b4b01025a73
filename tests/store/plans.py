"""What the database does for a read: the statements, and whether they are ranges of indexes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session

from app.store.engine import Database


@contextmanager
def statements(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """The SELECTs that are executed for reads, with their parameters, as they come."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            seen.append((statement, parameters))

    event.listen(database._reader, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(database._reader, "before_cursor_execute", note)


def check_plans(session: Session, seen: list[tuple[str, Any]], most_rows: int, about: object) -> None:
    """Fail where a statement reads what it doesn't show: SQLite scans or sorts, PostgreSQL touches over `most_rows`.

    The statements are forgotten then.
    """
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    assert seen, about
    for statement, parameters in list(seen):
        if is_sqlite:
            _check_sqlite(session, statement, parameters, about)
        else:
            _check_postgresql(session, statement, parameters, most_rows, about)
    seen.clear()


def _check_sqlite(session: Session, statement: str, parameters: Any, about: object) -> None:
    plan = session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
    steps = [row[3] for row in plan]
    assert any("USING" in step for step in steps), (about, statement, steps)
    for step in steps:
        # An index that is read in its order up to a limit is called a scan too.
        bad = re.match(r"SCAN fettle_\w+$|USE TEMP B-TREE", step)
        assert not bad or "LIMIT" not in statement, (about, statement, steps)
        assert not re.match(r"SCAN fettle_\w+", step) or "LIMIT" in statement, (about, statement, steps)


def _check_postgresql(session: Session, statement: str, parameters: Any, most_rows: int, about: object) -> None:
    explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"
    answer = session.connection().exec_driver_sql(explain, parameters).scalar_one()
    (plan,) = answer if isinstance(answer, list) else json.loads(answer)
    for node in _nodes(plan["Plan"]):
        # Sorting is fine, of so few rows: a sort of a whole study or table has touched them all.
        touched = node.get("Actual Rows", 0) * node.get("Actual Loops", 1) + node.get("Rows Removed by Filter", 0)
        assert touched <= most_rows, (about, statement, node)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from _nodes(part)
