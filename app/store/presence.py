"""Whether the file of an SQLite database is still the one that this process opened.

A file that is deleted or replaced under open connections goes on taking their writes, and nobody will ever read them:
the name leads elsewhere. So a transaction begins only while the file has its name, and a commit counts only where it
still has it afterwards. The same holds for the write-ahead log and its index, which lie beside the file.

SQLite looks for this itself in other journal modes than ours; the error is the one that it has for it.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from sqlalchemy import Connection

BESIDE = ("-wal", "-shm")
"""Endings of the files beside the database's."""
LOOKS = 3
"""How often the head of a file is read where it can't be: another process may just write it."""

Identity = tuple[int, int]
"""Device and inode of a file."""


def is_moved(error: BaseException | None) -> bool:
    """Whether an error of the driver says that the database's file was deleted, moved or replaced."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY_DBMOVED


class FilePresence:
    """Looks after the file at `path` for all connections of one process that a `Database` opens. Thread-safe.

    A file that was written over in place keeps its inode. It is known by its mark, a random number that migrating
    leaves in the head of a database (`PRAGMA user_version`), and by its size: ours never shrinks while it is open. Both
    are looked at only where the file was written since the last look, which is once a checkpoint.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path).absolute()
        self._lock = threading.RLock()
        self._open = 0
        self.forget()

    def forget(self) -> None:
        """Take whatever is at the path from now on: no connection is left, and nothing was kept in memory."""
        self._file: Identity | None = None
        self._beside: dict[Path, Identity] = {}
        self._written: tuple[int, int] = (0, 0)
        self._mark = 0
        self._overwritten: str | None = None

    @property
    def is_absent(self) -> bool:
        """Whether nobody has made the file yet, in a folder that is there."""
        return self._file is None and not self.path.exists() and self.path.parent.is_dir()

    @property
    def is_known(self) -> bool:
        """Whether a connection has opened the file."""
        return self._file is not None

    @property
    def may_come_back(self) -> bool:
        """Whether the file is away, but no other has taken its place."""
        return self._overwritten is None and not self.path.exists()

    def opened(self, connection: WatchedConnection) -> None:
        """Look whether a new connection has the same file as the others; the first says which one that is."""
        (mark,) = connection.execute("PRAGMA user_version").fetchone()
        with self._lock:
            if self._file is None:
                about = self._stat()
                self._file, self._written = (about.st_dev, about.st_ino), (about.st_mtime_ns, about.st_size)
            self.check_file()
            self._compare_mark(mark)
            self._open += 1
            connection.presence = self

    def closed(self) -> None:
        """Note that a connection is closed: with the last one the files beside the database's go."""
        with self._lock:
            self._open -= 1
            if self._open == 0:
                self._beside = {}

    def begun(self) -> None:
        """Note which files lie beside the database's, now that a write transaction has opened them."""
        if not self._beside:
            real = self.path.resolve()  # SQLite follows links, too
            paths = [real.with_name(real.name + ending) for ending in BESIDE]
            self._beside = {path: found for path in paths if (found := _identity(path)) is not None}

    def check(self) -> None:
        """Return while the file and those beside it are the ones that the connections have.

        Raises:
            sqlite3.OperationalError: they are not.
        """
        self.check_file()
        for path, known in self._beside.items():
            if _identity(path) != known:
                raise _moved(f"{path} was deleted or replaced while it is in use")

    def check_file(self) -> None:
        """As `check`, of the database's own file alone.

        Raises:
            sqlite3.OperationalError: it is another, or there is none.
        """
        if self._file is None:
            return
        if self._overwritten is not None:
            raise _moved(self._overwritten)
        about = self._stat()
        if (about.st_dev, about.st_ino) != self._file:
            raise _moved(f"{self.path} was replaced by another file while it is in use")
        if (about.st_mtime_ns, about.st_size) != self._written:
            self._look_inside()

    def mark(self, connection: Connection, *, anew: bool = False) -> None:
        """Give a database its mark where it has none, or another `anew`, in a transaction of its own engine's."""
        if anew:
            self._mark = 0
        if anew or connection.exec_driver_sql("PRAGMA user_version").scalar() == 0:
            connection.exec_driver_sql(f"PRAGMA user_version = {secrets.randbelow(2**31 - 1) + 1}")

    def _stat(self) -> os.stat_result:
        try:
            return self.path.stat()
        except OSError as error:
            raise _moved(f"{self.path} was deleted or moved while it is in use ({error.strerror})") from None

    def _look_inside(self) -> None:
        with self._lock:
            about = self._stat()  # anew: another thread may have seen a later state, and a larger file
            if about.st_size < self._written[1]:
                self._overwritten = f"{self.path} was written over with another file while it is in use"
                raise _moved(self._overwritten)
            self._compare_mark(self._mark_of_file())
            self._written = (about.st_mtime_ns, about.st_size)

    def _compare_mark(self, mark: int) -> None:
        # A new mark is in the log beside the file at first: the head has none until the next checkpoint.
        if mark and self._mark and mark != self._mark:
            self._overwritten = f"{self.path} was written over with another database while it is in use"
            raise _moved(self._overwritten)
        self._mark = mark or self._mark

    def _mark_of_file(self) -> int:
        """The mark in the file's own head, past the log beside it; 0 where it can't be told.

        Not by a plain `open`: closing that would end the locks of all of this process's connections.
        """
        for _ in range(LOOKS):
            try:
                with closing(sqlite3.connect(f"file:{quote(str(self.path))}?mode=ro&immutable=1", uri=True)) as raw:
                    return int(raw.execute("PRAGMA user_version").fetchone()[0])
            except sqlite3.Error:
                continue
        return 0


class WatchedConnection(sqlite3.Connection):
    """A connection whose commits are told as done only while the file that took them has its name."""

    presence: FilePresence | None = None

    def commit(self) -> None:
        """Commit, and look whether anybody will find it."""
        super().commit()
        if self.presence is not None:
            self.presence.check()

    def close(self) -> None:
        """Close it."""
        super().close()
        presence, self.presence = self.presence, None
        if presence is not None:
            presence.closed()


def _identity(path: Path) -> Identity | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino


def _moved(what: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(
        f"{what}: put back the file that was there, or restart the service on the one that is there now"
    )
    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_READONLY_DBMOVED, "SQLITE_READONLY_DBMOVED"
    return error
