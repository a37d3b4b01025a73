"""A backup on disk: the database, the files that it points to, and what is said of them in `backup.json`.

backup.json   fettle.db | fettle.dump   artifacts/st_…/000003/1-…/model.keras   datasets/ab/ab….npz
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ValidationError

from app.data.files import SUFFIX
from app.errors import FettleError
from app.upkeep.files import Location

FORMAT = 1
MANIFEST = "backup.json"
ARTIFACTS, DATASETS = "artifacts", "datasets"
DATABASES = {"sqlite": "fettle.db", "postgresql": "fettle.dump"}
"""The database's file in a backup, by its kind: an SQLite database, or an archive of pg_dump."""


class BackupRefused(FettleError):
    """A backup can't be written, or brought back there."""

    code, title = "BACKUP_REFUSED", "Backup refused"


class Manifest(BaseModel):
    """What a backup holds. `taken_at` is the database's time, in Unix seconds.

    `missing` are files that were deleted while the backup was made: superseded by then, and no longer anybody's.
    """

    format: int = FORMAT
    version: str
    schema_revision: str
    backend: str
    taken_at: float
    studies: int
    trials: int
    events: int
    files: int
    size_bytes: int
    missing: list[str]


def read_manifest(folder: Path) -> Manifest:
    """What the backup in a folder holds.

    Raises:
        BackupRefused: there is none, it is not whole, or a newer Fettle made it.
    """
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        why = "no such file" if isinstance(error, OSError) else "something else in it"
        raise BackupRefused(f"Expected a backup with {MANIFEST} in {folder}. Received: {why}") from None
    database = DATABASES.get(manifest.backend)
    if manifest.format != FORMAT or database is None:
        raise BackupRefused(
            f"Expected a backup of format {FORMAT}. Received format {manifest.format}, made by {manifest.version}"
        )
    if not (folder / database).is_file():
        raise BackupRefused(f"Expected {database} beside {MANIFEST} in {folder}. Received none")
    return manifest


def dataset_path(digest: str) -> str:
    """The path of a data set's file below its location."""
    return f"{digest[:2]}/{digest}{SUFFIX}"


def fetch(location: Location, paths: Iterable[str], folder: Path) -> list[str]:
    """Copy files of a location into a folder, unless they are there; the paths of those that do not exist.

    Raises:
        OSError: the location can't be read, or the folder can't be written.
    """
    missing = []
    for path in paths:
        target = folder / path
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        try:
            location.files.get_file(location.at(path), str(part))
        except FileNotFoundError:
            missing.append(path)
            part.unlink(missing_ok=True)
        else:
            part.replace(target)
    return missing


def put(folder: Path, location: Location) -> set[str]:
    """Copy all files of a folder below a location, unless one of the same size is there; their paths.

    Raises:
        OSError: the location can't be written.
    """
    there = {file.path: file.size_bytes for file in location.below("")}
    found = set[str]()
    for source in sorted(folder.rglob("*")):
        if not source.is_file():
            continue
        path = source.relative_to(folder).as_posix()
        if there.get(path) != source.stat().st_size:
            target = location.at(path)
            location.files.makedirs(target.rpartition("/")[0], exist_ok=True)
            location.files.put_file(str(source), target)
        found.add(path)
    return found


def keep_secret(source: Path, target: Path) -> None:
    """Copy the secret that keys are hashed under, for its owner's eyes alone, unless there is none or one is there."""
    if target.exists() or not source.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        suppress(FileExistsError),
        os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
    ):
        file.write(source.read_bytes())


def weight(folder: Path) -> tuple[int, int]:
    """How many files there are below a folder, and their bytes."""
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    return len(sizes), sum(sizes)


def settle(partial: Path, folder: Path) -> None:
    """Give a whole backup its name, once the disk has it."""
    if hasattr(os, "sync"):
        os.sync()
    with suppress(FileNotFoundError):
        folder.rmdir()  # it was empty
    partial.rename(folder)


def discard(partial: Path) -> None:
    """Delete what there is of a backup that did not come to its end."""
    shutil.rmtree(partial, ignore_errors=True)
