"""An SQLite database: its file, its journal, its locks, and the disk that it is on."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from app.doctor.examination import Examination
from app.doctor.findings import Finding, Status, failed, ok, warning

NETWORK_DISKS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs", "fuse.s3fs", "vboxsf"}
)
CHECK_S = 30.0
"""How long the integrity check may take: it reads the whole file."""
LOCK_S = 3.0
"""How long a write lock is waited for: transactions of the service take milliseconds."""
LARGE_WAL_BYTES = 512 * 2**20


def sqlite_file(examination: Examination) -> Iterator[Finding]:
    """Look at the file without changing it."""
    file = examination.file
    if not (examination.is_sqlite and file.is_file()):
        return
    yield _disk(file)
    integrity = _integrity(file)
    yield integrity
    if integrity.status is not Status.FAILED:
        yield _journal(file)
        yield _lock(file)


def _disk(file: Path) -> Finding:
    expected = "a database on a local disk"
    kind = file_system(file)
    if kind in NETWORK_DISKS:
        advice = "Its locks don't work reliably there: move it to a local disk, or take PostgreSQL."
        return failed("sqlite disk", expected, f"{kind}, a network file system", advice)
    return ok("sqlite disk", expected, kind or "a file system of unknown kind")


def file_system(path: Path) -> str:
    """The kind of file system that holds a path, such as `ext4`; empty where that can't be told."""
    import psutil

    place = path.resolve()
    mounts = [p for p in psutil.disk_partitions(all=True) if place.is_relative_to(p.mountpoint)]
    return str(max(mounts, key=lambda p: len(p.mountpoint)).fstype) if mounts else ""


def _journal(file: Path) -> Finding:
    with closing(_connect(file)) as connection:
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    expected = "journal mode wal"
    if mode != "wal":
        advice = "Readers and writers lock each other out: stop what else opens the file, and restart the service."
        return failed("sqlite journal", expected, f"journal mode {mode}", advice)
    wal = Path(f"{file}-wal")
    size = wal.stat().st_size if wal.exists() else 0
    if size > LARGE_WAL_BYTES:
        advice = "Something keeps a read transaction open: a tool, a backup. It shrinks once that ends."
        return warning(
            "sqlite journal", f"a WAL below {LARGE_WAL_BYTES / 1e6:,.0f} MB", f"{size / 1e6:,.0f} MB", advice
        )
    return ok("sqlite journal", expected, f"wal, {size / 1e6:,.1f} MB of it not yet in the file")


def _integrity(file: Path) -> Finding:
    expected = "a file without damage (PRAGMA quick_check)"
    end = time.monotonic() + CHECK_S
    with closing(_connect(file)) as connection:
        connection.set_progress_handler(lambda: time.monotonic() > end, 100_000)
        try:
            problems = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
        except sqlite3.OperationalError as error:
            if "interrupted" not in str(error):
                problems = [str(error)]
            else:
                advice = "Run `PRAGMA quick_check` with the sqlite3 program when there is time."
                return warning("sqlite integrity", expected, f"not done within {CHECK_S:g} s", advice)
        except sqlite3.DatabaseError as error:
            problems = [str(error)]
    if problems != ["ok"]:
        advice = "Stop the service, keep the file, and restore a backup: `fettle restore`."
        return failed("sqlite integrity", expected, "; ".join(problems)[:500], advice)
    return ok("sqlite integrity", expected, f"ok, {file.stat().st_size / 1e6:,.1f} MB")


def _lock(file: Path) -> Finding:
    expected = "a database that can be written"
    if not os.access(file, os.W_OK) or not os.access(file.parent, os.W_OK):
        advice = "Give this user the right to write the file and its folder (SQLite writes beside it)."
        return failed("sqlite lock", expected, "this user may not write it", advice)
    with closing(_connect(file, timeout_s=LOCK_S)) as connection:
        began = time.perf_counter()
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            advice = "A process keeps a transaction open: close tools that have the file open."
            return failed("sqlite lock", expected, f"{error} for {LOCK_S:g} s", advice)
        connection.execute("ROLLBACK")
    return ok("sqlite lock", expected, f"the write lock came after {1e3 * (time.perf_counter() - began):.1f} ms")


def _connect(file: Path, timeout_s: float = LOCK_S) -> sqlite3.Connection:
    """A plain connection: one of `app.store.engine` would switch the file to WAL."""
    return sqlite3.connect(file, timeout=timeout_s, isolation_level=None)
