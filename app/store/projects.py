"""Projects: the namespaces that studies, data sets and keys belong to, with their quotas."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.domain.access import DEFAULT_PROJECT
from app.errors import NameTaken, NotFound, StateConflict
from app.store.log import clock
from app.store.query import add_named
from app.store.tables import ApiKey, Project, StoredDataset, Study


@dataclass(frozen=True, slots=True)
class Quotas:
    """What a project may have at most; None: as much as there is."""

    max_studies: int | None = None
    max_running_trials: int | None = None
    max_stored_bytes: int | None = None


def create_project(session: Session, name: str, description: str, quotas: Quotas, *, created_by: str | None) -> Project:
    """A new project.

    Raises:
        NameTaken: there is one of the name.
    """
    row = Project(
        name=name,
        description=description,
        max_studies=quotas.max_studies,
        max_running_trials=quotas.max_running_trials,
        max_stored_bytes=quotas.max_stored_bytes,
        created_by=created_by,
        created_at=clock(session),
    )
    add_named(session, row, NameTaken(f"Expected a name that no project has. Received: {name!r}"))
    return row


def list_projects(session: Session, only: str | None, *, after: str, limit: int) -> list[Project]:
    """Up to `limit` projects after a name, in the order of names; with `only` that one alone."""
    query = select(Project).where(Project.name > after).order_by(Project.name).limit(limit)
    if only is not None:
        query = query.where(Project.name == only)
    return list(session.scalars(query))


def find_project(session: Session, name: str) -> Project:
    """The project of a name.

    Raises:
        NotFound: there is none.
    """
    return _found(session.get(Project, name[:129]), name)


def lock_project(session: Session, name: str) -> Project:
    """The project of a name, its row locked (FOR NO KEY UPDATE) until the transaction ends.

    Raises:
        NotFound: there is none.
    """
    query = select(Project).where(Project.name == name[:129]).with_for_update(key_share=True)
    return _found(session.scalars(query.execution_options(populate_existing=True)).one_or_none(), name)


def hold_project(session: Session, name: str) -> None:
    """Return where the project exists; it can't be deleted before this transaction ends.

    Raises:
        NotFound: there is none.
    """
    query = select(Project.name).where(Project.name == name[:129]).with_for_update(read=True, key_share=True)
    if session.scalar(query) is None:
        raise not_found(name)


def change_project(session: Session, name: str, description: str | None, quotas: dict[str, int | None]) -> Project:
    """The project with other words, or other quotas by name. What exceeds a lower one stays, and takes no more.

    Raises:
        NotFound: there is none.
    """
    row = lock_project(session, name)
    if description is not None:
        row.description = description
    for quota, limit in quotas.items():
        setattr(row, quota, limit)
    session.flush()
    return row


def delete_project(session: Session, name: str) -> None:
    """Forget a project that has nothing left.

    Raises:
        NotFound: there is none.
        StateConflict: it is the default one, or has studies, data sets or keys that are not revoked.
    """
    if name == DEFAULT_PROJECT:
        raise StateConflict(f"Expected a project that can be deleted. Received: {DEFAULT_PROJECT!r}")
    row = _found(
        session.scalars(select(Project).where(Project.name == name[:129]).with_for_update()).one_or_none(), name
    )
    left = {
        "studies": session.scalar(select(func.count()).where(Study.project == row.name)) or 0,
        "data sets": session.scalar(select(func.count()).where(StoredDataset.project == row.name)) or 0,
        "keys": session.scalar(select(func.count()).where(ApiKey.project == row.name, ApiKey.revoked_at.is_(None)))
        or 0,
    }
    if any(left.values()):
        words = ", ".join(f"{count:,} {kind}" for kind, count in left.items() if count)
        raise StateConflict(f"Expected a project with nothing left. Received one with {words}: delete or revoke them.")
    session.delete(row)
    session.flush()


def _found(row: Project | None, name: str) -> Project:
    if row is None:
        raise not_found(name)
    return row


def not_found(name: str) -> NotFound:
    """The refusal of a name that no project has."""
    return NotFound(f"Expected the name of a project. Received: {name[:100]!r}", code="PROJECT_NOT_FOUND")
