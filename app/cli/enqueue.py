"""The command `enqueue`: ask a study for one trial."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from app.cli.client import LOCAL, ApiKey, AsJson, StudyRef, Url, connect
from app.cli.printing import print_json, say

Assignments = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME=VALUE]...", help="Values of this trial, as JSON or plain text. The rest is sampled."),
]


def enqueue(
    study: StudyRef,
    values: Assignments = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Ask a study for a trial with these hyperparameters; the sampler draws those left out."""
    hyperparameters = assigned(values or [])
    with connect(url, api_key) as client:
        trial = client.enqueue(client.find_study(study).id, hyperparameters)
    if as_json:
        print_json(trial)
    else:
        say(f"Trial {trial.number} waits.")


def assigned(assignments: list[str]) -> dict[str, Any]:
    """The hyperparameters in `NAME=VALUE` texts; a value that is no JSON number, boolean or string is text.

    Raises:
        typer.BadParameter: a text without `=`, or a name twice.
    """
    found: dict[str, Any] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"Expected NAME=VALUE. Received: {text!r}")
        if name in found:
            raise typer.BadParameter(f"Expected each name once. Received {name!r} twice")
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=str)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float | str) else text
