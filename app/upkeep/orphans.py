"""Files that nothing points to: found, and deleted once they are old.

They are left by workers that died between writing a file and recording it, by deletions that failed, and by a database
that was restored to an earlier state. A location is listed first, then the database is asked: a file that an attempt is
just writing belongs to a lease, and one that was published meanwhile has its pointer. Another service's files look like
orphans: locations must not be shared.
"""

from __future__ import annotations

import logging
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from app.settings import Settings
from app.store import orphans as store
from app.store.datasets import is_wanted
from app.store.engine import Database
from app.store.retention import DAY_S
from app.upkeep.files import Found, Location

STUDY = re.compile(r"st_[0-9a-f]{20}")
ATTEMPT = re.compile(r"(st_[0-9a-f]{20}/\d+/\d+-[0-9a-f]{12}[^/]*)/.+")
DATASET = re.compile(r"[0-9a-f]{2}/([0-9a-f]{64})\.npz(\.[0-9a-f]{12}\.(part|removed))?")
LEAST_AGE_S = 3600.0
"""However it is asked for, nothing younger than this is deleted: clocks of file systems differ."""

log = logging.getLogger("fettle.upkeep")


@dataclass(frozen=True, slots=True)
class Orphan:
    """Files that nothing points to: an attempt's folder, or one file of a data set. `why` says it in words."""

    url: str
    path: str
    size_bytes: int
    written_at: float
    why: str
    has_study: bool = False
    """The study exists: its other attempts may write beside it."""


def orphans(database: Database, settings: Settings, age_s: float) -> Iterator[Orphan]:
    """What nothing points to and was not written for `age_s` seconds.

    Raises:
        OSError: a location can't be read.
    """
    before = time.time() - age_s
    for orphan in (*_of_attempts(database, settings), *_of_datasets(database, settings)):
        if orphan.written_at <= before:
            yield orphan


def _of_attempts(database: Database, settings: Settings) -> Iterator[Orphan]:
    location = Location(settings.resolved_artifact_url)
    for study in filter(STUDY.fullmatch, location.folders()):
        attempts: dict[str, list[Found]] = defaultdict(list)
        for file in location.below(study):
            named = ATTEMPT.fullmatch(file.path)
            if named is not None:
                attempts[named[1]].append(file)
        with database.read() as session:
            claims = store.claims(session, study)
        for folder, files in attempts.items():
            if claims is not None and claims.hold(folder):
                continue
            why = "its study does not exist" if claims is None else "no trial has it, and its attempt is over"
            newest = max(file.written_at for file in files)
            yield Orphan(location.url, folder, sum(file.size_bytes for file in files), newest, why, claims is not None)


def _of_datasets(database: Database, settings: Settings) -> Iterator[Orphan]:
    location = Location(settings.resolved_dataset_url)
    files = {file.path: file for file in location.below("")}
    with database.read() as session:
        wanted = store.wanted_datasets(session)
    for path, file in files.items():
        named = DATASET.fullmatch(path)
        if named is None:
            continue
        if named[3] is not None:
            why = "an upload ended halfway" if named[3] == "part" else "it was to be deleted"
            yield Orphan(location.url, path, file.size_bytes, file.written_at, why)
        elif named[1] not in wanted:
            yield Orphan(location.url, path, file.size_bytes, file.written_at, "no data set has it")


def collect(database: Database, settings: Settings, age_s: float) -> list[Orphan]:
    """Delete what nothing points to and was not written for `age_s` seconds, an hour at least; what was deleted.

    Raises:
        OSError: a location can't be read.
    """
    gone = []
    artifacts, datasets = Location(settings.resolved_artifact_url), Location(settings.resolved_dataset_url)
    for orphan in orphans(database, settings, max(age_s, LEAST_AGE_S)):
        if ATTEMPT.fullmatch(f"{orphan.path}/x"):
            if artifacts.remove_folders([f"{orphan.path}/x"], emptied=not orphan.has_study):
                gone.append(orphan)
        elif _remove_dataset_file(database, settings, datasets, orphan.path):
            gone.append(orphan)
    return gone


def _remove_dataset_file(database: Database, settings: Settings, location: Location, path: str) -> bool:
    """Delete a file below the data sets' location, unless a data set has come to want it; whether it is gone."""
    from app.data.files import SUFFIX, DatasetFiles  # numpy, which the API's process need not load for this

    named = DATASET.fullmatch(path)
    if named is None:
        return False

    def wanted() -> bool:
        with database.read() as session:
            return is_wanted(session, named[1])

    whole = path.partition(SUFFIX)[0] + SUFFIX
    try:
        if named[3] is None:
            DatasetFiles(settings.resolved_dataset_url).remove(named[1], wanted)
            return not location.has(path)
        if named[3] == "removed" and wanted() and not location.has(whole):
            # A process died between moving the file aside and looking whether it is wanted again.
            location.files.mv(location.at(path), location.at(whole))
            return False
        location.files.rm_file(location.at(path))
    except OSError as error:
        log.warning("a file can't be deleted: %s: %s", path, error)
        return False
    return True


def collect_old(database: Database, settings: Settings) -> int:
    """Delete orphans as old as the settings say; how many there were. None where they keep them for ever."""
    days = settings.orphan_retention_days
    return 0 if days is None else len(collect(database, settings, days * DAY_S))
