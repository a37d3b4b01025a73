"""What the checks are given: the settings, and the database where it is reached and has this code's schema."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from app.settings import Settings
from app.store.engine import Database

CONNECT_TIMEOUT_S = 5
"""PostgreSQL's driver waits for minutes where nobody answers at all."""


class Examination:
    """One run of the checks. `close` it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.is_reached = False
        self.has_schema = False
        url = make_url(settings.resolved_database_url)
        if url.get_backend_name() == "postgresql" and "connect_timeout" not in url.query:
            url = url.update_query_dict({"connect_timeout": str(CONNECT_TIMEOUT_S)})
        self.database = Database(url.render_as_string(hide_password=False))

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a file."""
        return self.database.is_sqlite

    @property
    def place(self) -> str:
        """Where the database is, without its password."""
        url = self.database.url
        return str(url.database) if self.is_sqlite else url.set(query={}).render_as_string(hide_password=True)

    @property
    def file(self) -> Path:
        """The file of an SQLite database."""
        return Path(self.database.url.database or "")

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that only reads."""
        with self.database.read() as session:
            yield session

    def close(self) -> None:
        """Close its connections."""
        self.database.dispose()
