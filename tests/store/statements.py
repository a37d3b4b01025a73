"""What a piece of work says to its database: its statements, what their plans read, and their cost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import event

from app.store.engine import Database

GROWING = ("fettle_trials", "fettle_metrics", "fettle_events", "fettle_artifacts", "fettle_trial_logs")
"""Tables that get longer with every trial."""

Explain = Callable[[Any, str, Any], list[str]]
"""What is bad in the plan of a statement: given a DBAPI cursor, the text, and the parameters of one row."""


@dataclass
class Heard:
    """The statements of a piece of work, without BEGIN and COMMIT, and what is bad in the plans of some."""

    statements: list[str] = field(default_factory=list)
    bad: dict[str, list[str]] = field(default_factory=dict)


@contextmanager
def listening(database: Database, explain: Explain | None = None) -> Iterator[Heard]:
    """Hears all statements in the block, and explains each right before it is executed."""
    heard = Heard()

    def hear(connection: Any, _cursor: Any, sql: str, parameters: Any, _context: Any, many: bool) -> None:
        if sql.startswith("BEGIN"):
            return
        heard.statements.append(sql)
        if explain is not None:
            found = explain(connection.connection.cursor(), sql, parameters[0] if many else parameters)
            if found:
                heard.bad[sql] = found

    engines = {database.engine, database._reader}
    for engine in engines:
        event.listen(engine, "before_cursor_execute", hear)
    try:
        yield heard
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", hear)


def sqlite_scans(cursor: Any, sql: str, parameters: Any) -> list[str]:
    """The steps of SQLite's plan that read a growing table from end to end, or all the trials of a study."""
    plan = cursor.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
    return [step for *_, step in plan if _reads_much(step)]


def _reads_much(step: str) -> bool:
    found = re.match(r"(SCAN|SEARCH) (\w+)", step)
    if found is None or found.group(2) not in GROWING:
        return False
    # A study alone, or a lease token that is NULL, is true of any number of finished trials, except where the index has
    # the waiting ones alone.
    alone = found.group(2) == "fettle_trials" and step.endswith(("(study_id=?)", "(lease_token=?)"))
    return found.group(1) == "SCAN" or (alone and "ix_fettle_trials_queue" not in step)


def postgresql_scans(most: int) -> Explain:
    """Finds the nodes of PostgreSQL's plan that read a growing table in sequence, or more than `most` rows of one."""

    def explain(cursor: Any, sql: str, parameters: Any) -> list[str]:
        cursor.execute("SAVEPOINT explained")
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", parameters)
        ((plan,),) = cursor.fetchall()
        cursor.execute("ROLLBACK TO SAVEPOINT explained")
        return [
            f"{node['Node Type']} on {node['Relation Name']}: {_rows_read(node):g} rows"
            for node in _nodes(plan[0]["Plan"])
            if node.get("Relation Name") in GROWING and node["Node Type"].endswith("Scan")
            if node["Node Type"] == "Seq Scan" or _rows_read(node) > most
        ]

    return explain


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)


def _rows_read(node: dict[str, Any]) -> float:
    removed = sum(node.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Index Recheck"))
    return float(node["Actual Loops"] * (node["Actual Rows"] + removed))


@contextmanager
def counting_steps(database: Database) -> Iterator[list[int]]:
    """How many instructions SQLite's virtual machine executes in the block, as the only item of a list."""
    steps = [0]

    def count() -> int:
        steps[0] += 1
        return 0

    def watch(connection: Any, _record: Any, _proxy: Any) -> None:
        connection.set_progress_handler(count, 1)

    def leave(connection: Any, _record: Any) -> None:
        connection.set_progress_handler(None, 1)

    engines = {database.engine, database._reader}
    for engine in engines:
        event.listen(engine, "checkout", watch)
        event.listen(engine, "checkin", leave)
    try:
        yield steps
    finally:
        for engine in engines:
            event.remove(engine, "checkout", watch)
            event.remove(engine, "checkin", leave)
