"""Commands that serve: `up`, `api`, `worker`, `migrate`, `check`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app import start

if TYPE_CHECKING:
    from app.settings import Settings
    from app.store.engine import Database

DataDir = Annotated[
    Path | None, typer.Option(help="Holds the SQLite database, artifacts, data sets and logs. [./fettle-data]")
]
DatabaseUrl = Annotated[
    str | None, typer.Option(help="sqlite:///… or postgresql+psycopg://…; SQLite in the data directory if left out.")
]
Device = Annotated[str | None, typer.Option(help="What the workers train on: auto, cpu, gpu or gpu:<index>. [auto]")]
Host = Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one. [8000]")]
Migrate = Annotated[bool, typer.Option(help="Bring the database to this version's schema first.")]


SECRETS = frozenset({"FETTLE_KEY_SECRET", "FETTLE_API_KEY"})
"""Variables that workers are not given."""
PRIVATE = frozenset({"database_url", "key_secret"})
"""Settings that are or may hold secrets: they are not repeated where they are wrong."""


def up(
    host: Host = None,
    port: Port = None,
    workers: Annotated[int, typer.Option(min=0, help="Worker processes; 0 runs the API alone.")] = 1,
    device: Device = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Run the API and workers on this machine until interrupted. Every option is also a variable FETTLE_<NAME>."""
    _serve(
        settings_of(host=host, port=port, device=device, data_dir=data_dir, database_url=database_url), workers, True
    )


def api(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    migrate: Migrate = True,
) -> None:
    """Run the API alone; workers join through the same database."""
    _serve(settings_of(host=host, port=port, data_dir=data_dir, database_url=database_url), 0, migrate)


def worker(
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    device: Device = None,
    families: Annotated[str | None, typer.Option(help="Comma-separated families to train; all if left out.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="Comma-separated key=value pairs that studies may ask for.")
    ] = None,
) -> None:
    """Run one worker: join the service that has this data directory or database, and train its trials."""
    settings = settings_of(
        device=device, data_dir=data_dir, database_url=database_url, families=families, worker_labels=labels
    )
    # The worker's code is another package, with TensorFlow: this process becomes it, and never imports it.
    os.execve(sys.executable, worker_command(), environment(settings))  # noqa: S606 - our own interpreter


def migrate(
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    to: Annotated[
        str | None, typer.Option(help="A revision, such as 0009, up or back; this version's if left out.")
    ] = None,
    allow_loss: Annotated[
        bool, typer.Option("--allow-loss", help="Go back, and delete what later revisions keep.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Go back although processes use the database.")] = False,
) -> None:
    """Create the database's schema, or upgrade it to this version's. With --to also back to an earlier one."""
    settings = settings_of(data_dir=data_dir, database_url=database_url)
    if to is None:
        typer.echo(f"The database is at schema revision {_migrate(settings)}.")
        return
    from app.store.migrate import migrate_to

    with database_of(settings) as database:
        before = migrate_to(database, to, allow_loss=allow_loss, force=force)
    typer.echo(f"The database is at schema revision {to}. It was at {before}.")


def check(data_dir: DataDir = None, database_url: DatabaseUrl = None) -> None:
    """Say whether the database is reached and has this version's schema; exit code 2 where not. For health checks."""
    from app.store.migrate import check_schema

    settings = settings_of(data_dir=data_dir, database_url=database_url)
    if not settings.database_url and not (settings.data_dir / "fettle.db").exists():
        typer.echo(
            f"fettle: Expected a database in {settings.data_dir}. Received none: run `fettle migrate`.", err=True
        )
        raise typer.Exit(2)
    with database_of(settings) as database:
        found = check_schema(database)
    typer.echo(f"The database is at schema revision {found}.")


def worker_command() -> list[str]:
    """What starts a worker; its settings come from the environment."""
    return start.command("worker")


def environment(settings: Settings) -> dict[str, str]:
    """This process's environment with all settings that are not defaults, as a worker is to find them.

    Without the secret of keys: a worker checks none.
    """
    given = {
        f"FETTLE_{name.upper()}": str(getattr(settings, name)).lower()
        if isinstance(getattr(settings, name), bool)
        else str(getattr(settings, name))
        for name in settings.model_fields_set
    }
    known = {**os.environ, **given, "FETTLE_DATA_DIR": str(settings.data_dir.absolute())}
    return {name: value for name, value in known.items() if name not in SECRETS}


def settings_of(**options: Any) -> Settings:
    """The environment's settings with the options given on top; leaves with 2 where they are wrong."""
    from pydantic import ValidationError

    from app.settings import Settings

    given = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        for problem in error.errors():
            name = "_".join(map(str, problem["loc"]))
            received = "" if name in PRIVATE else f" Received: {problem['input']!r}"
            typer.echo(
                f"fettle: --{name.replace('_', '-')} or FETTLE_{name.upper()}: {problem['msg']}.{received}", err=True
            )
        raise typer.Exit(2) from None


def _migrate(settings: Settings) -> str:
    """The revision that the database is at after creating or upgrading its schema."""
    from app import logs
    from app.store.arrival import await_database
    from app.store.migrate import migrate

    logs.configure(settings)
    if not settings.database_url:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    with database_of(settings) as database:
        return await_database(database, lambda: migrate(database), settings.database_wait_s)


@contextmanager
def database_of(settings: Settings) -> Iterator[Database]:
    """The database for a short use; `Unready` where it can't be reached."""
    from sqlalchemy.exc import OperationalError

    from app.errors import Unready
    from app.store.engine import Database

    database = Database(settings.resolved_database_url)
    try:
        yield database
    except OperationalError as error:
        where = database.url.render_as_string(hide_password=True)
        raise Unready(f"Expected a database at {where}. Received: {str(error.orig).strip()}") from None
    finally:
        database.dispose()


def _serve(settings: Settings, workers: int, migrate: bool) -> None:
    from app import logs
    from app.api.exposure import OpenToStrangers
    from app.cli.listen import listen, run
    from app.main import create_app

    logs.configure(settings)
    try:
        service = create_app(settings, migrates=migrate)
    except OpenToStrangers as error:
        typer.echo(f"fettle: {error}", err=True)
        raise typer.Exit(2) from None
    if migrate and not settings.database_url:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    with listen(settings.host, settings.port) as socket:
        raise typer.Exit(run(service, settings, socket, workers))
