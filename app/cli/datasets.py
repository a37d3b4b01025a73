"""`fettle datasets`: list data sets, upload a file, register one by its URI, show what was understood, delete."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.client import LOCAL, ApiKey, AsJson, Url, connect
from app.cli.printing import print_items, print_json, print_table, say

if TYPE_CHECKING:
    from app.client import Dataset

app = typer.Typer(help="List, upload and delete data sets.", add_completion=False, rich_markup_mode=None)

DatasetRef = Annotated[str, typer.Argument(metavar="DATASET", help="The data set's id or name.")]
SHOWN_VALUES = 6
"""Values of a category that are printed."""


@app.callback(invoke_without_command=True)
def datasets(context: typer.Context, url: Url = LOCAL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """List the data sets that a study may name."""
    if context.invoked_subcommand is not None:
        return
    with connect(url, api_key) as client:
        found = list(client.datasets())
    if as_json:
        print_items(found)
        return
    print_table(
        ("NAME", "ORIGIN", "TASK", "SAMPLES", "SHAPE", "ROWS", "CLASSES", "ID"),
        [
            (d.name, d.origin, d.task, d.input_kind, "×".join(map(str, d.shape)) or "-", str(d.rows),
             str(d.classes or "-"), d.id)
            for d in found
        ],
    )  # fmt: skip


@app.command()
def upload(
    file: Annotated[str, typer.Argument(help="A .csv, .parquet or .npz; or the URI of one below the service's roots.")],
    name: Annotated[
        str, typer.Option(help="What studies call it. The file's name without its ending if left out.")
    ] = "",
    target: Annotated[str | None, typer.Option(help="The column to predict.")] = None,
    task: Annotated[str, typer.Option(help="auto, classification or regression.")] = "auto",
    column: Annotated[
        list[str] | None, typer.Option(help="NAME=TYPE: number, boolean, category, text, time or id. May be repeated.")
    ] = None,
    drop: Annotated[list[str] | None, typer.Option(help="A column to leave out. May be repeated.")] = None,
    description: Annotated[str, typer.Option(help="A few words.")] = "",
    delimiter: Annotated[str | None, typer.Option(help="Of a CSV; guessed from its header if left out.")] = None,
    x: Annotated[str | None, typer.Option(help="The array of samples in a .npz.")] = None,
    y: Annotated[str | None, typer.Option(help="The array of targets in a .npz.")] = None,
    input_kind: Annotated[str, typer.Option(help="auto, vector, image, audio or text.")] = "auto",
    sample_rate: Annotated[int | None, typer.Option(help="Samples a second of recordings.")] = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Upload a file, or register one by its URI, and print what was understood of it."""
    said: dict[str, Any] = {
        "target": target, "task": task, "description": description, "delimiter": delimiter, "x": x, "y": y,
        "input_kind": input_kind, "sample_rate": sample_rate,
    }  # fmt: skip
    types = dict(_pair(text) for text in column or ())
    given = name or Path(file).name.partition(".")[0]
    with connect(url, api_key) as client:
        if "://" in file:
            answer = client.register_dataset(file, name=given, columns=types or None, drop=drop or None, **said)
        else:
            path = Path(file)
            if not path.is_file():
                raise typer.BadParameter(f"Expected a readable file. Received: {file}")
            answer = client.upload_dataset(path, name=given, columns=types, drop=drop or (), **said)
    _show(answer, as_json)


@app.command()
def show(dataset: DatasetRef, url: Url = LOCAL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Print what is known of a data set."""
    with connect(url, api_key) as client:
        answer = client.dataset(dataset)
    _show(answer, as_json)


@app.command()
def delete(dataset: DatasetRef, url: Url = LOCAL, api_key: ApiKey = None) -> None:
    """Delete a data set of your own that no study uses."""
    with connect(url, api_key) as client:
        client.delete_dataset(dataset)
    say(f"Data set {dataset} is deleted.")


def _pair(text: str) -> tuple[str, str]:
    name, separator, kind = text.rpartition("=")
    if not separator or not name:
        raise typer.BadParameter(f"Expected NAME=TYPE. Received: {text!r}", param_hint="--column")
    return name, kind


def _show(dataset: Dataset, as_json: bool) -> None:
    if as_json:
        print_json(dataset)
        return
    say(f"Data set {dataset.name} has the id {dataset.id}.")
    classes = f", {dataset.classes} classes" if dataset.classes else ""
    say(f"{dataset.rows} samples of kind {dataset.input_kind} for {dataset.task}{classes}.")
    if dataset.columns:
        rows: list[tuple[str, ...]] = []
        for column in dataset.columns:
            more = ", …" if (column.distinct or 0) > SHOWN_VALUES else ""
            values = ", ".join(column.values[:SHOWN_VALUES]) + more
            rows.append((column.name, column.type, column.role, str(column.missing), values))
        print_table(("COLUMN", "TYPE", "ROLE", "MISSING", "VALUES"), rows)
    for warning in dataset.warnings:
        say(f"Warning: {warning}")
