"""A backup brought back: files first, then the database, which begins another life (`app.store.restoring`).

All processes of the service are stopped meanwhile. What is interrupted can be done again: an SQLite database has its
name only once everything is done.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from app.settings import Settings
from app.store import pepper, restoring
from app.store.engine import Database
from app.store.migrate import migrate, schema_revision
from app.store.orphans import wanted_datasets
from app.store.workers import live_offers
from app.upkeep import copies
from app.upkeep.backup import run_tool
from app.upkeep.copies import BackupRefused
from app.upkeep.files import Location

IN_PLACE = "`fettle restore --in-place` finishes a restore that was interrupted, or done by other programs"


@dataclass(frozen=True, slots=True)
class Restored:
    """What came back: `files` were copied, `forgotten` pointers had none, `datasets` are without their file."""

    renewed: restoring.Renewed
    files: int
    forgotten: list[str]
    datasets: list[str]


def restore(settings: Settings, folder: Path, *, pauses_webhooks: bool = False) -> Restored:
    """Bring back the backup in a folder, into a database that has nothing of Fettle's yet.

    `pauses_webhooks`: the restored service sends nothing to anybody until they are resumed.

    Raises:
        BackupRefused: it is no backup, of another kind of database, or the database has tables of ours.
        Unready: a newer Fettle made it.
        OSError: a location can't be written.
    """
    manifest = copies.read_manifest(folder)
    database = Database(settings.resolved_database_url)
    try:
        _check_target(database, manifest)
        artifacts, datasets = Location(settings.resolved_artifact_url), Location(settings.resolved_dataset_url)
        there = copies.put(folder / copies.ARTIFACTS, artifacts)
        kept = copies.put(folder / copies.DATASETS, datasets)
        copies.keep_secret(folder / pepper.FILE, settings.data_dir / pepper.FILE)
        source = folder / copies.DATABASES[manifest.backend]

        def finish(database: Database) -> Restored:
            migrate(database)
            with database.write() as session:
                if pauses_webhooks:
                    restoring.pause_webhooks(session)
                return _finish(session, manifest.taken_at, there, kept)

        if database.is_sqlite:
            return _restore_sqlite(source, Path(database.url.database or ""), finish)
        options = ["--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error"]
        run_tool("pg_restore", [*options, str(source)], database.url)
        return finish(database)
    finally:
        database.dispose()


def renew_in_place(settings: Settings) -> restoring.Renewed:
    """Begin another life of the present database, which other programs have brought back to an earlier state.

    Raises:
        BackupRefused: a worker lives in it.
        Unready: it has no schema, or a newer Fettle made it.
    """
    database = Database(settings.resolved_database_url)
    try:
        with database.read() as session:
            if schema_revision(session.connection()) is None:
                raise BackupRefused("Expected a database that was restored. Received one without a schema.")
        migrate(database)
        with database.write() as session:
            if live_offers(session):
                raise BackupRefused("Expected a database that nobody works with. Received one with live workers.")
            return restoring.renew(session, None)
    finally:
        database.dispose()


def _check_target(database: Database, manifest: copies.Manifest) -> None:
    kind = database.url.get_backend_name()
    if kind != manifest.backend:
        raise BackupRefused(f"Expected a {manifest.backend} database, as in the backup. Received: {kind}")
    if database.is_sqlite:
        place = Path(database.url.database or "")
        if place.exists():
            raise BackupRefused(f"Expected no database at {place}: move it away first.")
        for left in (f"{place}-wal", f"{place}-shm"):
            if Path(left).exists():
                raise BackupRefused(f"Expected nothing of an earlier database. Received {left}: move it away first.")
        place.parent.mkdir(parents=True, exist_ok=True)
        return
    with database.read() as session:
        if schema_revision(session.connection()) is not None:
            raise BackupRefused(f"Expected a database without Fettle's tables. Received one with them. {IN_PLACE}.")


def _restore_sqlite(source: Path, place: Path, finish: Callable[[Database], Restored]) -> Restored:
    part = place.with_name(f".{place.name}.{secrets.token_hex(4)}.restoring")
    try:
        shutil.copyfile(source, part)
        database = Database(f"sqlite:///{part}")
        try:
            restored = finish(database)
        finally:
            database.dispose()  # the last connection that is closed moves everything from the WAL to the file
        part.replace(place)
    finally:
        for left in (part, part.with_name(f"{part.name}-wal"), part.with_name(f"{part.name}-shm")):
            left.unlink(missing_ok=True)
    return restored


def _finish(session: Session, taken_at: float, artifacts: set[str], datasets: set[str]) -> Restored:
    forgotten = [path for path in restoring.pointers(session) if path not in artifacts]
    restoring.forget_files(session, forgotten)
    lost = [digest for digest in sorted(wanted_datasets(session)) if copies.dataset_path(digest) not in datasets]
    return Restored(restoring.renew(session, taken_at), len(artifacts) + len(datasets), forgotten, lost)
