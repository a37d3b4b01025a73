"""Parts of lists that are bounded by bytes as well: the first rows of a query, as long as their texts fit a budget.

A limit on items says nothing of what they cost: an event may be 300 bytes or half a megabyte. Rows beyond the budget
are not read on SQLite, which gives them one by one, and not sent by PostgreSQL, which counts the bytes itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session

PAGE_BYTES = 4_000_000
"""What a page of a list holds at most; a single item may be longer."""

FEW = 16
"""Items that are read first of a list whose items' sizes are not known."""
MANY = 64
"""Items of such a list that are read at once: each may take half a megabyte."""


@dataclass(frozen=True, slots=True)
class Portion:
    """The first rows of a query. `is_cut`: there are more within its limit, which didn't fit the budget."""

    rows: list[Row[Any]]
    is_cut: bool


def portion(session: Session, query: Select[*tuple[Any, ...]], text: str, order: Sequence[str], budget: int) -> Portion:
    """The first rows of `query`, at least one, as long as the texts in the column `text` fit `budget` bytes together.

    `query` is sorted by the columns `order` and has a limit.
    """
    if session.get_bind().dialect.name == "postgresql":
        return _counted(session, query, text, order, budget)
    rows: list[Row[Any]] = []
    size = 0
    with session.execute(query) as found:
        for row in found:
            size += octets(getattr(row, text))
            if rows and size > budget:
                return Portion(rows, is_cut=True)
            rows.append(row)
    return Portion(rows, is_cut=False)


def _counted(
    session: Session, query: Select[*tuple[Any, ...]], text: str, order: Sequence[str], budget: int
) -> Portion:
    found = query.subquery("found")
    size = func.coalesce(func.octet_length(found.c[text]), 0)
    by = [found.c[name] for name in order]
    sized = select(
        found,
        size.label("size"),
        func.sum(size).over(order_by=by, rows=(None, 0)).label("up_to"),
        func.count().over().label("of"),
    ).subquery("sized")
    kept = select(*(sized.c[column.key] for column in found.c), sized.c["of"])
    kept = kept.where((sized.c.up_to <= budget) | (sized.c.up_to == sized.c.size))
    rows: list[Row[Any]] = [*session.execute(kept.order_by(*(sized.c[name] for name in order)))]
    return Portion(rows, is_cut=bool(rows) and len(rows) < rows[0].of)


def octets(text: str | None) -> int:
    """How many bytes a text takes as UTF-8."""
    if text is None:
        return 0
    return len(text) if text.isascii() else len(text.encode())


def next_count(read: int, size: int, largest: int, budget: int) -> int:
    """How many items to read next, where `read` took `size` bytes, the largest of them `largest`."""
    return FEW if not read else max(1, min(MANY, (budget - size) // max(1, largest)))


def first_that_fit(sizes: Sequence[int], budget: int) -> int:
    """How many of the first items, of these sizes, fit `budget` together; one at least where there is any."""
    total = 0
    for i, size in enumerate(sizes):
        total += size
        if i and total > budget:
            return i
    return len(sizes)
