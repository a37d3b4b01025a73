"""What the records say: tables for the terminal, and `docs/benchmarks.md`. Both depend on the records alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Template

from rich.console import Console

from bench.claims import COMPARED, compared
from bench.record import FETTLE, ROOT, Record, Records
from bench.table import ROW_COLUMNS, WIDTH, Row, cells, table
from bench.tasks import Part

PAGE = ROOT / "docs" / "benchmarks.md"
TEMPLATE = Path(__file__).with_name("benchmarks.template.md")
COMPARISON_COLUMNS = ("side", "trials", *COMPARED)


def rows(records: Records, parts: Sequence[Part]) -> list[Row]:
    """The rows of all parts of which something is recorded."""
    return [row for part in parts for row in part.rows(records)]


def show(records: Records, parts: Sequence[Part], verdicts: bool) -> list[Row]:
    """Print the tables; gives the rows. Without `verdicts` goals are shown but not judged."""
    console = Console(width=WIDTH)
    lines: list[tuple[str, ...]] = []
    for part in parts:
        if part.comparison is not None:
            found = compared(records, part.comparison)
            lines += [(f"{part.comparison.title}: {name}", *rest) for name, *rest in found]
    if lines:
        title = "The same study on every side: median (least-greatest); how many times better Fettle's first line is"
        console.print(table(title, COMPARISON_COLUMNS, lines))
    found_rows = rows(records, parts)
    if not verdicts:
        for row in found_rows:
            row.met = None
    if found_rows:
        console.print(table("Goals", ROW_COLUMNS, [cells(row) for row in found_rows]))
    return found_rows


def page(records: Records, parts: Sequence[Part]) -> str:
    """The docs page. The same records give the same page.

    Raises:
        ValueError: nothing is recorded.
    """
    shown = [record for record in records.everything() if record.side == FETTLE]
    if not shown:
        raise ValueError("Expected measurements of Fettle to write a page of. Received none.")
    comparisons = [
        f"## {part.comparison.title}\n\n{markdown(COMPARISON_COLUMNS, lines)}"
        for part in parts
        if part.comparison is not None and (lines := compared(records, part.comparison))
    ]
    return Template(TEMPLATE.read_text("utf-8")).substitute(
        circumstances=circumstances(records.everything()),
        comparisons="\n".join(comparisons),
        goals=markdown(ROW_COLUMNS, [cells(row) for row in rows(records, parts)]),
    )


def circumstances(records: Sequence[Record]) -> str:
    """Machine, versions, dates and commits of the newest records."""
    newest = records[-1]
    versions: dict[str, str] = {}
    for record in records:
        if record.machine == newest.machine:
            versions |= record.versions
    ours = [record for record in records if record.machine == newest.machine]
    dates = sorted({record.at[:10] for record in ours})
    span = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    commits = list(dict.fromkeys(record.describe for record in ours if record.side == FETTLE))
    machine = newest.machine
    return (
        f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}, "
        f"no GPU used. Measured {span}. Fettle at {', '.join(commits)}.\n"
        f"Versions: {', '.join(f'{name} {versions[name]}' for name in sorted(versions))}.\n"
    )


def markdown(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    head = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n"
    return head + "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def write(records: Records, parts: Sequence[Part], path: Path = PAGE) -> None:
    """Write the docs page."""
    path.write_text(page(records, parts), encoding="utf-8")
