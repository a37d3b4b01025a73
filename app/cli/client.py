"""Commands that use a service: `submit`, `watch`, lists and actions. STUDY is an id or a name."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.printing import print_items, print_json, print_table, say

if TYPE_CHECKING:
    from app.client import FettleClient, Study

Url = Annotated[str, typer.Option(envvar="FETTLE_URL", help="Where the service is.")]
ApiKey = Annotated[str | None, typer.Option(envvar="FETTLE_API_KEY", help="Needed where the service has keys.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
StudyRef = Annotated[str, typer.Argument(metavar="STUDY", help="The study's id or name.")]
File = Annotated[Path, typer.Argument(help="A study definition as JSON; - reads standard input.")]
Limit = Annotated[int, typer.Option(min=1, help="How many to print at most.")]
LOCAL = "http://127.0.0.1:8000"
BAD_ENDS = frozenset({"FAILED", "CANCELLED"})


def validate(file: File, url: Url = LOCAL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Check a study definition without storing anything."""
    definition = _definition(file)
    with connect(url, api_key) as client:
        answer = client.validate(definition)
    if as_json:
        print_json(answer)
        return
    say("The definition is fine.")
    say(f"Each value of these needs a compiled program of its own: {', '.join(answer.structural) or 'none'}.")
    for warning in answer.warnings:
        say(f"Warning: {warning}")


def submit(
    file: File,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the study until it is over.")] = False,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Submit a study definition; print its id."""
    definition = _definition(file)
    with connect(url, api_key) as client:
        study = client.create_study(definition)
        if as_json:
            print_json(study)
        else:
            say(f"Study {study.name} has the id {study.id}.")
            if study.pending_reason:
                say(f"Nothing runs yet: {study.pending_reason}")
        if watch:
            _follow(client, study, as_json)


def watch(study: StudyRef, url: Url = LOCAL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Follow a study until it is over. With --json: one event a line."""
    with connect(url, api_key) as client:
        _follow(client, client.find_study(study), as_json)


def studies(
    state: Annotated[str | None, typer.Option(help="Only those in this state, such as RUNNING.")] = None,
    limit: Limit = 50,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List studies, the newest first."""
    with connect(url, api_key) as client:
        found = list(islice(client.studies(state=state, sort="-created_at"), limit))
    if as_json:
        print_items(found)
        return
    print_table(
        ("NAME", "STATE", "TRIALS", "BEST", "CREATED", "ID"),
        [
            (
                s.name,
                s.state,
                f"{s.progress.finished}/{s.progress.total_budget or '-'}",
                values_text(s.best.values) if s.best else "-",
                time_text(s.created_at),
                s.id,
            )
            for s in found
        ],
    )


def trials(
    study: StudyRef,
    state: Annotated[str | None, typer.Option(help="Only those in this state, such as COMPLETE.")] = None,
    sort: Annotated[str, typer.Option(help="number, -number, value or -value.")] = "number",
    limit: Limit = 1000,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List a study's trials."""
    with connect(url, api_key) as client:
        found = list(islice(client.trials(client.find_study(study).id, state=state, sort=sort), limit))
    if as_json:
        print_items(found)
        return
    print_table(
        ("TRIAL", "STATE", "VALUES", "SECONDS", "HYPERPARAMETERS"),
        [
            (
                str(t.number),
                t.state + (f" ({t.reason})" if t.reason else ""),
                values_text(t.values) if t.values else "-",
                f"{t.duration_seconds:.2f}" if t.duration_seconds is not None else "-",
                values_text(t.sampled or t.hyperparameters),
            )
            for t in found
        ],
    )


def best(study: StudyRef, url: Url = LOCAL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Print a study's best trial, or its Pareto front. Exit code 1 where there is none yet."""
    with connect(url, api_key) as client:
        found = client.best(client.find_study(study).id)
    if as_json:
        print_items(found)
    for trial in found if not as_json else ():
        say(f"Trial {trial.number}: {values_text(trial.values or {})}")
        for name, value in trial.hyperparameters.items():
            say(f"  {name} = {value}")
    if not found:
        say("No feasible trial has finished yet.", err=True)
        raise typer.Exit(1)


def pause(study: StudyRef, url: Url = LOCAL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Start no further trials of a study until it is resumed."""
    _act(study, url, api_key, as_json, lambda client, id_: client.pause(id_))


def resume(study: StudyRef, url: Url = LOCAL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Let a paused study run again."""
    _act(study, url, api_key, as_json, lambda client, id_: client.resume(id_))


def stop(study: StudyRef, url: Url = LOCAL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """End a study once its running trials have finished."""
    _act(study, url, api_key, as_json, lambda client, id_: client.stop(id_))


def cancel(study: StudyRef, url: Url = LOCAL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """End a study at once, with its running trials."""
    _act(study, url, api_key, as_json, lambda client, id_: client.cancel(id_))


def connect(url: str, api_key: str | None) -> FettleClient:
    """A client of the service at `url`; leaves with exit code 2 where that is no address."""
    from app.client import FettleClient

    if not url.startswith(("http://", "https://")):
        raise typer.BadParameter(f"Expected an http:// or https:// address. Received: {url!r}", param_hint="--url")
    return FettleClient(url, api_key)


def _definition(file: Path) -> dict[str, Any]:
    """The JSON object in a file; leaves with exit code 2 where there is none."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        definition = json.loads(text)
    except OSError as error:
        raise typer.BadParameter(f"Expected a readable file. Received: {file}: {error.strerror}") from None
    except ValueError as error:
        raise typer.BadParameter(f"Expected a study definition as JSON in {file}. Received: {error}") from None
    if not isinstance(definition, dict):
        raise typer.BadParameter(f"Expected a JSON object in {file}. Received: {type(definition).__name__}")
    return definition


def _follow(client: FettleClient, study: Study, as_json: bool) -> None:
    """Show a study to its end; exit code 1 where that is a bad one."""
    events = client.events(study.id)
    if as_json:
        state = study.state
        for event in events:
            print_json(event)
            state = getattr(event, "state", state) if event.type.startswith("study.") else state
    else:
        from app.cli.live import show

        state = show(study, events).state
    if state in BAD_ENDS:
        raise typer.Exit(1)


def _act(
    reference: str, url: str, api_key: str | None, as_json: bool, action: Callable[[FettleClient, str], Study]
) -> None:
    with connect(url, api_key) as client:
        study = action(client, client.find_study(reference).id)
    if as_json:
        print_json(study)
    else:
        say(f"Study {study.name} is {study.state}.")


def values_text(values: Mapping[str, Any]) -> str:
    """Values by name, in a few words."""
    from app.cli.scoreboard import values_words

    return values_words(dict(values))


def time_text(time: datetime | None) -> str:
    """A time of this machine's zone, to the minute."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M") if time else "-"
