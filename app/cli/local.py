"""Keys and projects managed on the database itself, where there is no key yet to do it over HTTP.

Whoever can write the database may do all of it. Each change is in the audit log, made by `local`.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from app.client.access import AuditEntry, Key, MadeKey, Project

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.settings import Settings
    from app.store.audit import Detail
    from app.store.engine import Database

MOST = 100_000
"""Rows that a list shows."""


class LocalAccess:
    """The methods of `app.client.access.AccessCalls` on a database."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    def api_keys(self, *, project: str | None = None) -> Iterator[Key]:
        """The keys of all projects, or of one."""
        from app.api.keys import key_view
        from app.store import keys

        with self._database.read() as session:
            rows = keys.list_keys(session, None, project=None if project == "*" else project, limit=MOST)
        yield from (Key.model_validate(key_view(row).model_dump()) for row in rows)

    def create_key(
        self,
        name: str,
        scopes: Sequence[str],
        *,
        expires_in_seconds: float | None = None,
        project: str | None = None,
        all_projects: bool = False,
    ) -> MadeKey:
        """A new key with its text."""
        from app.api.exposure import pepper_of
        from app.api.keys import made_view
        from app.domain.access import DEFAULT_PROJECT, Scope
        from app.store import keys

        new = keys.NewKey(
            name,
            project or DEFAULT_PROJECT,
            [Scope(scope) for scope in scopes],
            expires_in_s=expires_in_seconds,
            all_projects=all_projects,
            created_by=_user(),
        )
        pepper = pepper_of(self._settings).ensure()

        def work(session: Session) -> MadeKey:
            row, text = keys.create_key(session, new, pepper)
            _note(session, "key.create", row.public_id, row.project, scopes=row.scopes.split())
            return MadeKey.model_validate(made_view(row, text).model_dump())

        return self._database.run(work)

    def rotate_key(self, key_id: str, *, grace_seconds: float = 0.0) -> MadeKey:
        """The key with another secret."""
        from app.api.exposure import pepper_of
        from app.api.keys import made_view
        from app.store import keys

        pepper = pepper_of(self._settings).ensure()

        def work(session: Session) -> MadeKey:
            row, text = keys.rotate_key(session, None, key_id, grace_seconds, pepper)
            _note(session, "key.rotate", row.public_id, row.project, grace_seconds=grace_seconds)
            return MadeKey.model_validate(made_view(row, text).model_dump())

        return self._database.run(work)

    def revoke_key(self, key_id: str) -> None:
        """Revoke a key."""
        from app.store import keys

        def work(session: Session) -> None:
            row = keys.revoke_key(session, None, key_id)
            _note(session, "key.revoke", row.public_id, row.project)

        self._database.run(work)

    def projects(self) -> Iterator[Project]:
        """All projects."""
        from app.store import projects

        with self._database.read() as session:
            found = [_project(session, row) for row in projects.list_projects(session, None, after="", limit=MOST)]
        yield from found

    def create_project(self, name: str, description: str = "", **quotas: int | None) -> Project:
        """A new project."""
        from app.store import projects

        def work(session: Session) -> Project:
            row = projects.create_project(session, name, description, projects.Quotas(**quotas), created_by=_user())
            _note(session, "project.create", name, name)
            return _project(session, row)

        return self._database.run(work)

    def update_project(self, name: str, patch: Mapping[str, Any]) -> Project:
        """The project, changed."""
        from app.store import projects

        quotas = {field: value for field, value in patch.items() if field != "description"}

        def work(session: Session) -> Project:
            row = projects.change_project(session, name, patch.get("description"), quotas)
            _note(session, "project.change", name, name, **quotas)
            return _project(session, row)

        return self._database.run(work)

    def delete_project(self, name: str) -> None:
        """Delete a project that has nothing left."""
        from app.store import projects

        def work(session: Session) -> None:
            projects.delete_project(session, name)
            _note(session, "project.delete", name, name)

        self._database.run(work)

    def audit(
        self,
        *,
        action: str | None = None,
        subject: str | None = None,
        key: str | None = None,
        project: str | None = None,
    ) -> Iterator[AuditEntry]:
        """The changes of all projects, or of one, the newest first."""
        from app.api.audit import audit_view
        from app.store import audit

        narrowed, before = audit.AuditFilter(action, subject, key), None
        while True:
            with self._database.read() as session:
                rows = audit.list_entries(
                    session, None if project == "*" else project, narrowed, before=before, limit=500
                )
            yield from (AuditEntry.model_validate(audit_view(row).model_dump()) for row in rows)
            if len(rows) < 500:
                return
            before = rows[-1].id


@contextmanager
def local_access(settings: Settings) -> Iterator[LocalAccess]:
    """The keys and projects of a database, whose schema is made where there is none.

    Raises:
        Unready: it can't be reached, or has another schema.
    """
    from app.cli.serve import database_of
    from app.store.migrate import check_schema, migrate, schema_revision

    if not settings.database_url:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    with database_of(settings) as database:
        with database.engine.connect() as connection:
            is_new = schema_revision(connection) is None
        if is_new:
            migrate(database)
        check_schema(database)
        yield LocalAccess(database, settings)


def _project(session: Session, row: Any) -> Project:
    from app.api.projects import project_view
    from app.store.quotas import usage_of

    return Project.model_validate(project_view(row, usage_of(session, row.name)).model_dump())


def _note(session: Session, action: str, subject: str, project: str, **details: Detail) -> None:
    from app.store.audit import LOCAL, Actor, note

    note(session, Actor(project, name=LOCAL), action, subject, details)


def _user() -> str:
    try:
        return f"local:{getpass.getuser()}"[:128]
    except (KeyError, OSError):
        return "local"
