"""A backup of a service while it works: its database at one moment, and every file that the database points to.

Files are written before their pointers are committed, and deleted after: all that the database of that moment points to
existed at that moment. What it points to now is copied first, then the database, then what has come since. So only a
file that came and went in between may be missing; the restore forgets its pointer, as the service did.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session

from app import __version__
from app.errors import Unready
from app.settings import Settings
from app.store import pepper, restoring
from app.store.engine import SQLITE_BUSY_TIMEOUT_S, Database
from app.store.log import clock
from app.store.migrate import schema_revision
from app.store.orphans import wanted_datasets
from app.upkeep import copies
from app.upkeep.files import Location

TABLES = "fettle_*"
"""What is dumped of a PostgreSQL database: users keep other tools' tables beside ours."""


@dataclass(frozen=True, slots=True)
class Pointed:
    """The files that a database points to, below the locations of artifacts and of data sets."""

    artifacts: list[str]
    datasets: list[str]

    @staticmethod
    def by(session: Session) -> Pointed:
        """Those of a session's moment."""
        datasets = [copies.dataset_path(digest) for digest in sorted(wanted_datasets(session))]
        return Pointed(restoring.pointers(session), datasets)


def back_up(settings: Settings, folder: Path, *, with_secret: bool = False) -> copies.Manifest:
    """Write a backup into a new folder; what it holds. Nothing has the folder's name until the backup is whole.

    `with_secret`: also what API keys are hashed under, where it is a file of the data directory.

    Raises:
        BackupRefused: the folder has something in it, or pg_dump is missing or fails.
        Unready: the database has no schema.
        OSError: a location can't be read, or the folder can't be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise copies.BackupRefused(f"Expected a folder that is new or empty. Received: {folder}")
    database = Database(settings.resolved_database_url)
    if database.is_sqlite and not Path(database.url.database or "").is_file():
        raise Unready(f"Expected a database at {database.url.database}. Received none: there is nothing to back up.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    partial.mkdir()
    try:
        if with_secret:
            copies.keep_secret(settings.data_dir / pepper.FILE, partial / pepper.FILE)
        manifest = _write(settings, database, partial)
        (partial / copies.MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        copies.settle(partial, folder)
    except BaseException:
        copies.discard(partial)
        raise
    finally:
        database.dispose()
    return manifest


def _write(settings: Settings, database: Database, folder: Path) -> copies.Manifest:
    artifacts, datasets = Location(settings.resolved_artifact_url), Location(settings.resolved_dataset_url)

    def fetch(pointed: Pointed) -> list[str]:
        return [
            *copies.fetch(artifacts, pointed.artifacts, folder / copies.ARTIFACTS),
            *copies.fetch(datasets, pointed.datasets, folder / copies.DATASETS),
        ]

    with database.read() as session:
        revision = schema_revision(session.connection())
        if revision is None:
            raise Unready("Expected a database with a schema. Received one without: there is nothing to back up.")
        pointed = Pointed.by(session)
    fetch(pointed)
    with _taken(database, folder) as session:
        pointed, sums, taken_at = Pointed.by(session), restoring.sums(session), clock(session)
    missing = fetch(pointed)
    count = sum(copies.weight(folder / name)[0] for name in (copies.ARTIFACTS, copies.DATASETS))
    _, size_bytes = copies.weight(folder)
    return copies.Manifest(
        version=__version__,
        schema_revision=revision,
        backend=database.url.get_backend_name(),
        taken_at=taken_at,
        files=count,
        size_bytes=size_bytes,
        missing=missing,
        **sums,
    )


@contextmanager
def _taken(database: Database, folder: Path) -> Iterator[Session]:
    """Copy the database into the folder; a session that sees what was copied."""
    target = folder / copies.DATABASES[database.url.get_backend_name()]
    if database.is_sqlite:
        # One read transaction: writers go on meanwhile. The copy has no free pages.
        with closing(sqlite3.connect(database.url.database or "", timeout=SQLITE_BUSY_TIMEOUT_S)) as connection:
            connection.execute("VACUUM INTO ?", (str(target),))
        copy = Database(f"sqlite:///{target}")
        try:
            copy.set_apart()
            with copy.read() as session:
                yield session
        finally:
            copy.dispose()
        return
    with database.engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        snapshot = connection.execute(text("SELECT pg_export_snapshot()")).scalar()
        run_tool(
            "pg_dump",
            [f"--snapshot={snapshot}", "--format=custom", f"--table={TABLES}", f"--file={target}"],
            database.url,
        )
        with Session(connection) as session:
            yield session


def run_tool(name: str, arguments: list[str], url: URL) -> None:
    """Run a program of PostgreSQL's on the database at `url`.

    Raises:
        BackupRefused: it isn't installed, or fails.
    """
    program = shutil.which(name)
    if program is None:
        raise copies.BackupRefused(
            f"Expected PostgreSQL's program {name} on the path. Received none: install its client."
        )
    place, environment = _connection(url)
    done = subprocess.run(  # noqa: S603 - found on the path
        [program, "--no-password", *arguments, f"--dbname={place}"],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    if done.returncode != 0:
        raise copies.BackupRefused(
            f"Expected {name} to end well. Received status {done.returncode}: {done.stderr.strip()}"
        )


def _connection(url: URL) -> tuple[str, Mapping[str, str]]:
    """A database's place as libpq reads it, and its password apart: others see a command's arguments."""
    password = {} if url.password is None else {"PGPASSWORD": str(url.password)}
    place = url.set(drivername="postgresql", password=None)
    return place.render_as_string(hide_password=False), password
