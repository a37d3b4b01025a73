"""`fettle keys`, `fettle projects`, `fettle audit`: on the database itself, or with an API key over HTTP.

`--data-dir` or `--database-url` name a database. Without them an API key (`--api-key`, FETTLE_API_KEY) means the
service at `--url`; without that too it is the database of this machine's settings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.client import LOCAL, ApiKey, AsJson, Limit, Url, connect, time_text
from app.cli.printing import print_items, print_json, print_table, say
from app.cli.serve import DatabaseUrl, settings_of

if TYPE_CHECKING:
    from app.cli.local import LocalAccess
    from app.client import FettleClient
    from app.client.access import MadeKey

keys = typer.Typer(help="Make, list, rotate and revoke API keys.", no_args_is_help=True, rich_markup_mode=None)
projects = typer.Typer(help="Make projects and set their quotas.", no_args_is_help=True, rich_markup_mode=None)

DataDir = Annotated[Path | None, typer.Option(help="Manage the database in this data directory, without HTTP.")]
KeyRef = Annotated[str, typer.Argument(metavar="KEY", help="The key's id, such as key_3fA9….")]
ProjectRef = Annotated[str, typer.Argument(metavar="PROJECT", help="The project's name.")]
OfProject = Annotated[str | None, typer.Option("--project", help="The project; the key's own if left out.")]
QUOTAS = ("max_studies", "max_running_trials", "max_stored_bytes")
UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"


@contextmanager
def _access(
    url: str, api_key: str | None, data_dir: Path | None, database_url: str | None
) -> Iterator[FettleClient | LocalAccess]:
    if api_key and data_dir is None and database_url is None:
        with connect(url, api_key) as client:
            yield client
        return
    from app.cli.local import local_access

    with local_access(settings_of(data_dir=data_dir, database_url=database_url)) as local:
        yield local


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is called in the audit log.")],
    scope: Annotated[list[str] | None, typer.Option(help="read, submit, work or admin. [read and submit]")] = None,
    expires: Annotated[str | None, typer.Option(help="How long it is good: 90d, 12h, 30m. [for ever]")] = None,
    project: OfProject = None,
    all_projects: Annotated[bool, typer.Option(help="An admin of all projects. On the database alone.")] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key and print it: the only time that it is told."""
    from app.client import FettleClient
    from app.domain.access import Scope

    scopes = scope or ["read", "submit"]
    if not set(scopes) <= set(Scope):
        raise typer.BadParameter(f"Expected read, submit, work or admin. Received: {scopes}", param_hint="--scope")
    if not re.fullmatch(NAME, name):
        raise typer.BadParameter(f"Expected letters, digits, '.', '_' and '-'. Received: {name!r}", param_hint="NAME")
    if all_projects and "admin" not in scopes:
        raise typer.BadParameter("Expected the scope admin with it. Received none", param_hint="--all-projects")
    wanted: dict[str, Any] = {"expires_in_seconds": _seconds(expires, "--expires"), "project": project}
    with _access(url, api_key, data_dir, database_url) as access:
        if all_projects:
            if isinstance(access, FettleClient):
                raise typer.BadParameter(
                    "Expected --data-dir or --database-url with it: such keys are made on the database alone.",
                    param_hint="--all-projects",
                )
            wanted["all_projects"] = True
        made = access.create_key(name, scopes, **wanted)
    _tell(made, as_json)


@keys.command("list")
def list_keys(
    project: OfProject = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List API keys, revoked and expired ones too; their secrets are not known."""
    with _access(url, api_key, data_dir, database_url) as access:
        found = list(access.api_keys(project=project))
    if as_json:
        print_items(found)
        return
    rows = [
        (
            k.id,
            k.name,
            k.project + (" (all)" if k.all_projects else ""),
            ",".join(k.scopes),
            *map(time_text, (k.created_at, k.expires_at, k.revoked_at, k.last_used_at)),
        )
        for k in found
    ]
    print_table(("ID", "NAME", "PROJECT", "SCOPES", "CREATED", "EXPIRES", "REVOKED", "USED"), rows)


@keys.command("rotate")
def rotate_key(
    key: KeyRef,
    grace: Annotated[str, typer.Option(help="How long the present secret stays good: 1h, 7d.")] = "0s",
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Give a key another secret and print it."""
    grace_s = _seconds(grace, "--grace") or 0.0
    with _access(url, api_key, data_dir, database_url) as access:
        made = access.rotate_key(key, grace_seconds=grace_s)
    _tell(made, as_json)


@keys.command("revoke")
def revoke_key(
    key: KeyRef,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
) -> None:
    """Revoke a key: refused within five seconds everywhere."""
    with _access(url, api_key, data_dir, database_url) as access:
        access.revoke_key(key)
    say(f"Key {key} is revoked.")


@projects.command("list")
def list_projects(
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List projects with their quotas, and what they have of them."""
    with _access(url, api_key, data_dir, database_url) as access:
        found = list(access.projects())
    if as_json:
        print_items(found)
        return

    def of(used: int, limit: int | None) -> str:
        return f"{used:,}" if limit is None else f"{used:,}/{limit:,}"

    rows = [
        (
            p.name,
            of(p.usage.studies, p.max_studies),
            of(p.usage.running_trials, p.max_running_trials),
            of(p.usage.stored_bytes, p.max_stored_bytes),
            p.description,
        )
        for p in found
    ]
    print_table(("NAME", "STUDIES", "RUNNING", "BYTES", "DESCRIPTION"), rows)


Quota = Annotated[str | None, typer.Option(help="A number, or none.")]


@projects.command("create")
def create_project(
    name: ProjectRef,
    description: Annotated[str, typer.Option(help="A few words.")] = "",
    max_studies: Quota = None,
    max_running_trials: Quota = None,
    max_stored_bytes: Quota = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Make a project."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", name):
        raise typer.BadParameter(f"Expected small letters, digits, '.', '_', '-'. Received: {name!r}")
    quotas = _quotas(max_studies, max_running_trials, max_stored_bytes)
    with _access(url, api_key, data_dir, database_url) as access:
        made = access.create_project(name, description, **quotas)
    print_json(made) if as_json else say(f"Project {made.name} is made.")


@projects.command("change")
def change_project(
    name: ProjectRef,
    description: Annotated[str | None, typer.Option(help="A few words.")] = None,
    max_studies: Quota = None,
    max_running_trials: Quota = None,
    max_stored_bytes: Quota = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Change a project's words or quotas; what exceeds a lower quota stays."""
    patch: dict[str, Any] = dict(_quotas(max_studies, max_running_trials, max_stored_bytes))
    if description is not None:
        patch["description"] = description
    with _access(url, api_key, data_dir, database_url) as access:
        changed = access.update_project(name, patch)
    print_json(changed) if as_json else say(f"Project {changed.name} is changed.")


@projects.command("delete")
def delete_project(
    name: ProjectRef,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
) -> None:
    """Delete a project without studies, data sets and keys."""
    with _access(url, api_key, data_dir, database_url) as access:
        access.delete_project(name)
    say(f"Project {name} is deleted.")


def audit(
    action: Annotated[str | None, typer.Option(help="Only these, such as study.create or key.revoke.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only changes of this id or name.")] = None,
    key: Annotated[str | None, typer.Option(help="Only changes made with the key of this id.")] = None,
    project: OfProject = None,
    limit: Limit = 50,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Print who changed what, the newest first."""
    with _access(url, api_key, data_dir, database_url) as access:
        found = list(islice(access.audit(action=action, subject=subject, key=key, project=project), limit))
    if as_json:
        print_items(found)
        return
    rows = [
        (
            time_text(e.at),
            e.project,
            e.actor or "anybody",
            e.action,
            e.subject,
            e.address or "-",
            json.dumps(e.details) if e.details else "",
        )
        for e in found
    ]
    print_table(("AT", "PROJECT", "WHO", "ACTION", "SUBJECT", "FROM", "DETAILS"), rows)


def _tell(made: MadeKey, as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    say(f"Key {made.name} ({made.id}) of the project {made.project} may: {', '.join(made.scopes)}.", err=True)
    say("Keep it: it is not stored, and not shown again. Programs take it from FETTLE_API_KEY.", err=True)
    say(made.key)


def _seconds(text: str | None, option: str) -> float | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if found is None:
        raise typer.BadParameter(f"Expected a time such as 30m, 12h or 90d. Received: {text!r}", param_hint=option)
    return int(found[1]) * UNITS_S[found[2]]


def _quotas(*given: str | None) -> dict[str, int | None]:
    quotas: dict[str, int | None] = {}
    for name, text in zip(QUOTAS, given, strict=True):
        if text is not None:
            if text != "none" and not text.isdigit():
                raise typer.BadParameter(f"Expected a number or none. Received: {text!r}")
            quotas[name] = None if text == "none" else int(text)
    return quotas
