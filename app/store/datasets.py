"""Data sets of users: rows that name a file by its hash, and the studies that keep them from being deleted.

A study that is created locks its data set's row (FOR KEY SHARE), a deletion locks it for itself: whichever comes second
sees the other. The data set's row comes before the study's in the order of locks, and no transaction takes it after.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from app.domain.datasets import BUILT_IN, Dataset, described, of_description
from app.errors import DatasetInUse, NameTaken, NotFound
from app.store.log import clock
from app.store.query import add_named
from app.store.quotas import admit_bytes
from app.store.tables import StoredDataset, Study, StudyDataset

ID = re.compile(r"ds_[0-9a-f]{20}")
NAMED_STUDIES = 5
"""Studies that a refused deletion names."""


@dataclass(frozen=True, slots=True)
class NewDataset:
    """A data set to add: what is known of it, and the hashes and size of its file. See `StoredDataset`."""

    dataset: Dataset
    content_hash: str
    object_hash: str
    size_bytes: int
    reading: str
    uri: str | None = None


def add_dataset(
    session: Session, new: NewDataset, *, project: str, created_by: str | None
) -> tuple[StoredDataset, bool]:
    """The row of a data set, and whether it is new: not where one says the same under the same name.

    Raises:
        NameTaken: another data set of the project has the name.
        QuotaExceeded: the project may not store its file.
    """
    name = new.dataset.name
    known = _by_name(session, project, name)
    if known is not None and (known.content_hash, known.reading, known.uri) == (new.content_hash, new.reading, new.uri):
        return known, False
    taken = NameTaken(f"Expected a name that no data set of the project {project!r} has. Received: {name!r}")
    if known is not None or name in BUILT_IN or ID.fullmatch(name):
        raise taken
    if new.uri is None:
        admit_bytes(session, project, new.size_bytes)
    row = StoredDataset(
        public_id=f"ds_{secrets.token_hex(10)}",
        project=project,
        name=name,
        content_hash=new.content_hash,
        object_hash=new.object_hash,
        uri=new.uri,
        reading=new.reading,
        details=described(new.dataset),
        size_bytes=new.size_bytes,
        created_by=created_by,
        created_at=clock(session),
    )
    add_named(session, row, taken)
    return row, True


def dataset_of(row: StoredDataset) -> Dataset:
    """What is known of a stored data set."""
    return replace(of_description(row.details), id=row.public_id)


def find_dataset(session: Session, project: str, reference: str) -> StoredDataset | None:
    """The stored data set of an id or a name, where the project has one."""
    if ID.fullmatch(reference):
        query = select(StoredDataset).where(StoredDataset.public_id == reference, StoredDataset.project == project)
        return session.scalars(query).one_or_none()
    return _by_name(session, project, reference)


def find_by_id(session: Session, public_id: str) -> StoredDataset | None:
    """The stored data set of an id, whatever its project: for workers, whose studies were checked when created."""
    return session.scalars(select(StoredDataset).where(StoredDataset.public_id == public_id)).one_or_none()


def list_datasets(session: Session, project: str, *, after: int, limit: int) -> list[StoredDataset]:
    """Up to `limit` stored data sets of the project after a row's id, the oldest first."""
    query = select(StoredDataset).where(StoredDataset.project == project, StoredDataset.id > after)
    return list(session.scalars(query.order_by(StoredDataset.id).limit(limit)))


def hold(session: Session, project: str, public_id: str) -> int:
    """The row's id of a data set that a study is to train on; it can't be deleted before this transaction ends.

    Raises:
        NotFound: it was deleted.
    """
    query = select(StoredDataset.id).where(StoredDataset.public_id == public_id, StoredDataset.project == project)
    found = session.scalar(query.with_for_update(read=True, key_share=True))
    if found is None:
        raise _not_found(public_id)
    return found


def use(session: Session, study_id: int, dataset_id: int) -> None:
    """Note that a study trains on a data set that is on `hold`."""
    session.execute(insert(StudyDataset).values(study_id=study_id, dataset_id=dataset_id))


def delete_dataset(session: Session, project: str, reference: str) -> StoredDataset:
    """The row of a data set that is deleted now. Its file goes where no other has it (`is_wanted`).

    Raises:
        NotFound: the project has none of that id or name.
        DatasetInUse: studies train on it.
    """
    found = find_dataset(session, project, reference)
    if found is None:
        raise _not_found(reference)
    locked = session.scalars(
        select(StoredDataset).where(StoredDataset.id == found.id).with_for_update(of=StoredDataset)
    ).one_or_none()
    if locked is None:
        raise _not_found(reference)
    count, names = _users(session, locked.id)
    if count:
        more = f" and {count - len(names):,} more" if count > len(names) else ""
        raise DatasetInUse(
            f"Expected a data set that no study uses. Received one that is used by {', '.join(names)}{more}."
        )
    session.delete(locked)
    session.flush()
    return locked


def is_wanted(session: Session, object_hash: str) -> bool:
    """Whether a data set has the file of this hash."""
    query = select(StoredDataset.id).where(StoredDataset.object_hash == object_hash, StoredDataset.uri.is_(None))
    return session.scalar(query.limit(1)) is not None


def _users(session: Session, dataset_id: int) -> tuple[int, Sequence[str]]:
    """How many studies use a data set, and some of them by name and id."""
    of_dataset = StudyDataset.dataset_id == dataset_id
    count = session.scalar(select(func.count()).select_from(StudyDataset).where(of_dataset)) or 0
    query = select(Study.name, Study.public_id).join(StudyDataset, StudyDataset.study_id == Study.id)
    rows = session.execute(query.where(of_dataset).order_by(StudyDataset.study_id).limit(NAMED_STUDIES))
    return count, [f"{name!r} ({public_id})" for name, public_id in rows]


def _by_name(session: Session, project: str, name: str) -> StoredDataset | None:
    query = select(StoredDataset).where(StoredDataset.project == project, StoredDataset.name == name)
    return session.scalars(query).one_or_none()


def _not_found(reference: str) -> NotFound:
    return NotFound(f"Expected the id or name of a data set. Received: {reference[:100]!r}", code="DATASET_NOT_FOUND")
