"""Commands for programs that train trials of the family `external` themselves, such as shell scripts."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli.client import LOCAL, ApiKey, AsJson, StudyRef, Url, connect
from app.cli.printing import print_json, say

Number = Annotated[int, typer.Argument(metavar="TRIAL", help="The trial's number.")]
Token = Annotated[str, typer.Option("--token", envvar="FETTLE_LEASE_TOKEN", help="The lease token that `ask` printed.")]
Pairs = Annotated[list[str] | None, typer.Argument(metavar="[NAME=NUMBER]...", help="Metrics, such as loss=0.25.")]


def ask(
    study: StudyRef,
    count: Annotated[int, typer.Option(min=1, max=100, help="How many trials at most.")] = 1,
    lease_seconds: Annotated[float, typer.Option(help="How long each is held without a sign of life.")] = 60.0,
    worker: Annotated[str, typer.Option(help="Who asks.")] = "external",
    url: Url = LOCAL,
    api_key: ApiKey = None,
) -> None:
    """Take trials of an external study, to train them yourself; prints JSON."""
    with connect(url, api_key) as client:
        print_json(client.ask(client.find_study(study).id, count=count, lease_seconds=lease_seconds, worker=worker))


def heartbeat(study: StudyRef, trial: Number, token: Token, url: Url = LOCAL, api_key: ApiKey = None) -> None:
    """Renew the lease of a trial that you hold; prints JSON."""
    with connect(url, api_key) as client:
        print_json(client.heartbeat(client.find_study(study).id, trial, token))


def report_metrics(
    study: StudyRef,
    trial: Number,
    token: Token,
    epoch: Annotated[int, typer.Option(min=0, help="Counted from 0.")],
    metrics: Pairs = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
) -> None:
    """Report an epoch's metrics of a trial that you hold; prints JSON."""
    with connect(url, api_key) as client:
        print_json(client.report_metrics(client.find_study(study).id, trial, token, epoch, _numbers(metrics)))


def tell(
    study: StudyRef,
    trial: Number,
    token: Token,
    state: Annotated[str, typer.Option(help="COMPLETE, PRUNED or FAIL.")] = "COMPLETE",
    error: Annotated[str | None, typer.Option(help="What went wrong, with --state FAIL.")] = None,
    code: Annotated[str, typer.Option(help="The failure's code, such as OUT_OF_MEMORY.")] = "EXCEPTION",
    values: Pairs = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Tell how a trial that you hold ended, with the values of its objectives."""
    words: dict[str, str] | None = None if error is None else {"code": code, "message": error}
    with connect(url, api_key) as client:
        told = client.tell(client.find_study(study).id, trial, token, state, _numbers(values), words)
    if as_json:
        print_json(told)
    else:
        say(f"Trial {told.number} is {told.state}.")


def _numbers(pairs: list[str] | None) -> dict[str, Any]:
    found = {}
    for pair in pairs or []:
        name, _, number = pair.partition("=")
        try:
            found[name] = float(number)
        except ValueError:
            raise typer.BadParameter(f"Expected NAME=NUMBER. Received: {pair!r}") from None
    return found
