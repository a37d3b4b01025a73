"""The command `doctor`: looks at a service from this machine, and says what is wrong and what to do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from app.cli.client import AsJson
from app.cli.printing import print_value, printable
from app.cli.serve import DatabaseUrl, DataDir, Device, Host, settings_of

if TYPE_CHECKING:
    from app.doctor import Finding

COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}


def doctor(
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    device: Device = None,
    host: Host = None,
    as_json: AsJson = False,
) -> None:
    """Look for what is wrong with the service whose database this is. Exit code 1 where something failed."""
    from app.doctor import Examination, Status, examine

    examination = Examination(settings_of(data_dir=data_dir, database_url=database_url, device=device, host=host))
    findings = []
    try:
        for finding in examine(examination):
            findings.append(finding)
            if not as_json:
                _show(finding)
    finally:
        examination.close()
    counts = {status: sum(f.status is status for f in findings) for status in Status}
    if as_json:
        print_value({"ok": not counts[Status.FAILED], "checks": [f.as_json() for f in findings]})
    else:
        typer.echo(f"\n{counts[Status.OK]} ok, {counts[Status.WARNING]} warnings, {counts[Status.FAILED]} failed.")
    raise typer.Exit(1 if counts[Status.FAILED] else 0)


def _show(finding: Finding) -> None:
    """Print a finding as it comes: a line, and where it is not well what was expected and what to do."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stdout, soft_wrap=True, highlight=False)
    line = Text()
    line.append(f"{finding.status:<8}", style=COLOURS[finding.status])
    line.append(f"{finding.check:<24}", style="bold")
    line.append(printable(finding.found))
    console.print(line)
    if finding.advice:
        console.print(Text(f"{'':<32}expected {printable(finding.expected)}", style="dim"))
        console.print(Text(f"{'':<32}{printable(finding.advice)}"))
