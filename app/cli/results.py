"""Commands about what came out of a study: `export`, `importances`, `plot`, `report`, `recipe`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from app.cli.client import LOCAL, ApiKey, AsJson, StudyRef, Url, connect
from app.cli.printing import print_json, print_table, say

OUTPUT_HELP = "A file to write; standard output if left out."
Output = Annotated[Path | None, typer.Option("--output", "-o", help=OUTPUT_HELP)]
MethodOption = Annotated[str | None, typer.Option(help="fanova (the default) or ped_anova.")]
MetricOption = Annotated[str | None, typer.Option(help="An objective; the first if left out.")]
Metrics = Annotated[list[str] | None, typer.Option("--metric", help="An objective; two or three for pareto.")]
Axes = Annotated[list[str] | None, typer.Option("--hyperparameter", help="An axis; may be given several times.")]


def export(
    study: StudyRef,
    form: Annotated[str, typer.Option("--format", help="csv, json or parquet.")] = "csv",
    output: Output = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
) -> None:
    """Write all trials of a study as CSV, JSON or Parquet."""
    if form == "parquet" and output is None and sys.stdout.isatty():
        raise typer.BadParameter("Expected --output FILE: Parquet is no text. Received: a terminal")
    with connect(url, api_key) as client:
        found = client.find_study(study).id
        if output is not None:
            _check_folder(output)
            client.download_export(found, output, form)
        elif form == "parquet":
            for piece in client.stream_export(found, form):
                sys.stdout.buffer.write(piece)
        else:
            text = client.export(found, form)
            typer.echo(text, nl=not text.endswith("\n"))


def importances(
    study: StudyRef,
    method: MethodOption = None,
    metric: MetricOption = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Print how much each searched hyperparameter explains of an objective."""
    with connect(url, api_key) as client:
        found = client.importances(client.find_study(study).id, method=method, metric=metric)
    if as_json:
        print_json(found)
    elif found.reason:
        say(found.reason, err=True)
    else:
        rows = [(item.hyperparameter, f"{item.importance:.3f}") for item in found.items]
        print_table(("HYPERPARAMETER", f"IMPORTANCE FOR {found.metric}"), rows)


def plot(
    study: StudyRef,
    kind: Annotated[
        str,
        typer.Argument(help="history, intermediate, parallel, slice, contour, edf, timeline, importances or pareto."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="An .html page to write, or a .json file with the figure.")
    ],
    metric: Metrics = None,
    hyperparameter: Axes = None,
    method: MethodOption = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
) -> None:
    """Write a plot of a study as a page that works offline."""
    if output.suffix not in {".html", ".json"}:
        raise typer.BadParameter(f"Expected a file named .html or .json. Received: {output}", param_hint="--output")
    with connect(url, api_key) as client:
        found = client.find_study(study)
        figure = client.plot(found.id, kind, metrics=metric or (), hyperparameters=hyperparameter or (), method=method)
    if output.suffix == ".json":
        import json

        _write(output, json.dumps(figure))
        return
    from plotly import io

    _write(output, io.to_html(figure, include_plotlyjs=True, full_html=True, validate=False))


def report(study: StudyRef, output: Output = None, url: Url = LOCAL, api_key: ApiKey = None) -> None:
    """Write a page about a study that works offline: what was asked, what came out, plots, the best trials."""
    with connect(url, api_key) as client:
        _write(output, client.report(client.find_study(study).id))


def recipe(
    study: StudyRef,
    trial: Annotated[int | None, typer.Option(min=0, help="Another trial that has one, by number.")] = None,
    output: Output = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
) -> None:
    """Write a plain Keras script that trains the best trial again without Fettle."""
    with connect(url, api_key) as client:
        _write(output, client.recipe(client.find_study(study).id, trial=trial))


def _write(output: Path | None, text: str) -> None:
    if output is None:
        typer.echo(text, nl=not text.endswith("\n"))
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _unwritable(output, error.strerror) from None


def _check_folder(output: Path) -> None:
    if not output.parent.is_dir():
        raise _unwritable(output, "no such folder")
    if output.is_dir():
        raise _unwritable(output, "it is a folder")


def _unwritable(output: Path, why: str | None) -> typer.BadParameter:
    return typer.BadParameter(f"Expected a file that can be written. Received: {output}: {why}")
