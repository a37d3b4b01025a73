"""The command `lineage`: how a trial of a population came about."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.client import LOCAL, ApiKey, AsJson, StudyRef, Url, connect, values_text
from app.cli.printing import print_items, print_table


def lineage(
    study: StudyRef,
    number: Annotated[int | None, typer.Argument(help="The trial; by default the best one.")] = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Show the trials whose weights a trial went on from: its schedule of hyperparameters."""
    with connect(url, api_key) as client:
        found = client.find_study(study)
        if number is None:
            best = client.best(found.id)
            number = best[0].number if best else None
        line = [] if number is None else client.lineage(found.id, number)
    if as_json:
        print_items(line)
        return
    print_table(
        ("TRIAL", "EPOCHS", "VALUES", "HYPERPARAMETERS"),
        [
            (
                str(t.number),
                f"{t.first_epoch}-{t.first_epoch + max(1, t.epochs or 1) - 1}",
                values_text(t.values) if t.values else t.state,
                values_text(t.sampled),
            )
            for t in line
        ],
    )
