"""The data directory and the locations of artifacts and data sets: room, the right to write, what lies there."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from app.doctor.examination import Examination
from app.doctor.findings import Finding, failed, ok, warning
from app.store.restoring import newest_pointers
from app.upkeep.files import Location
from app.upkeep.orphans import orphans

LITTLE_BYTES = 2 * 10**9
NO_BYTES = 100 * 10**6
LITTLE_SHARE = 0.05
POINTERS_LOOKED_AT = 200
ORPHANS_COUNTED = 1_000
ORPHAN_AGE_S = 86_400.0


def places(examination: Examination) -> Iterator[Finding]:
    """Write and delete a file in each place, and look at what the database says is there."""
    settings = examination.settings
    yield from _folder(settings.data_dir)
    places = (("artifacts", settings.resolved_artifact_url), ("data sets", settings.resolved_dataset_url))
    usable = [_location(name, url) for name, url in places]
    yield from usable
    if not examination.has_schema or any(finding.status == "failed" for finding in usable):
        return
    yield _pointers(examination)
    yield _orphans(examination)


def _folder(folder: Path) -> Iterator[Finding]:
    expected = "a data directory that can be written"
    if not folder.is_dir():
        try:
            folder.mkdir(parents=True)
            folder.rmdir()
        except OSError as error:
            yield failed("data directory", expected, f"{folder}: {error.strerror}", "Create it, or name another one.")
        else:
            yield ok("data directory", expected, f"{folder} can be made")
        return
    probe = folder / f".fettle-doctor-{secrets.token_hex(6)}"
    try:
        probe.write_bytes(b"probe")
        probe.unlink()
    except OSError as error:
        probe.unlink(missing_ok=True)
        advice = "Free space, or give this user the right to write there."
        yield failed("data directory", expected, f"{folder}: {error.strerror or error}", advice)
        return
    yield ok("data directory", expected, str(folder))
    yield room(folder)


def room(folder: Path) -> Finding:
    """How much of its disk is free."""
    total, _, free = shutil.disk_usage(folder)
    expected = f"{LITTLE_BYTES / 1e9:g} GB free, or {LITTLE_SHARE:.0%} of the disk"
    found = f"{free / 1e9:,.1f} of {total / 1e9:,.1f} GB free"
    advice = "Free space: `fettle prune --dry-run` says what the retention would delete, and --orphans more."
    if free < NO_BYTES:
        return failed("disk", expected, found, advice)
    if free < LITTLE_BYTES and free < LITTLE_SHARE * total:
        return warning("disk", expected, found, advice)
    return ok("disk", expected, found)


def _location(name: str, url: str) -> Finding:
    check, expected = f"{name} location", "a location that files can be written to, read from and deleted in"
    path, content = f".fettle-doctor/{secrets.token_hex(6)}", secrets.token_bytes(64)
    try:
        location = Location(url)
        target = location.at(path)
        is_there = location.files.exists(location.root)
        location.files.makedirs(target.rpartition("/")[0], exist_ok=True)
        try:
            location.files.pipe_file(target, content)
            same = location.files.cat_file(target) == content
        finally:
            location.remove_folders([path], emptied=False)
            if not is_there:
                _forget(location)
    except ImportError as error:
        return failed(check, expected, f"{url}: {error}", "Install the library: `pip install 'fettle[s3]'` for S3.")
    except Exception as error:  # noqa: BLE001 - a store's driver may raise anything
        advice = "Free space, give this user the right to write there, or correct the location and its credentials."
        return failed(check, expected, f"{url}: {type(error).__name__}: {error}", advice)
    if not same:
        return failed(check, expected, f"{url}: other bytes than were written", "Don't use this location.")
    return ok(check, expected, url)


def _forget(location: Location) -> None:
    """Delete a location that was not there before and has nothing in it."""
    with suppress(OSError, NotImplementedError):
        location.files.rmdir(location.root)
        location.files.rmdir(location.root.rpartition("/")[0])  # the data directory, where that is new as well


def _pointers(examination: Examination) -> Finding:
    expected = "every file that a trial has"
    with examination.reading() as session:
        paths = newest_pointers(session, POINTERS_LOOKED_AT)
    location = Location(examination.settings.resolved_artifact_url)
    missing = [path for path in paths if not location.has(path)]
    if missing:
        found = f"{len(missing)} of the newest {len(paths)} are not there, such as {missing[0]}"
        advice = "Have the same FETTLE_ARTIFACT_URL in all processes, or bring the files back from a backup."
        return failed("artifacts", expected, found, advice)
    return ok("artifacts", expected, f"the newest {len(paths)} are there" if paths else "no trial has any")


def _orphans(examination: Examination) -> Finding:
    expected = "no files that nothing points to, older than a day"
    count = size = 0
    for orphan in orphans(examination.database, examination.settings, ORPHAN_AGE_S):
        count, size = count + 1, size + orphan.size_bytes
        if count == ORPHANS_COUNTED:
            break
    if count:
        found = f"{count:,}{' or more' if count == ORPHANS_COUNTED else ''}, {size / 1e6:,.1f} MB"
        advice = "`fettle prune --orphans --dry-run` lists them. Another service's files look like that too."
        return warning("orphaned files", expected, found, advice)
    return ok("orphaned files", expected, "none")
