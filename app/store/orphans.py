"""Which files of attempts are somebody's: published ones, and those of attempts that may still publish.

A path holds the study's id, the trial's number, and the attempt with the start of its lease token:
`st_…/000003/1-0a1b2c3d4e5f/model.keras`. A token that is not (or no longer) a trial's lease never publishes anything:
the pointer is written behind the fence.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.store.tables import Artifact, Checkpoint, StoredDataset, Study, Trial

TOKEN_CHARACTERS = 12


@dataclass(frozen=True, slots=True)
class Claims:
    """The folders of a study's files that are somebody's: `published` by path, `leased` by the start of tokens."""

    published: frozenset[str]
    leased: frozenset[str]

    def hold(self, folder: str) -> bool:
        """Whether a folder `study/number/attempt-token[-epoch-n]` is published, or its attempt may still publish."""
        if folder in self.published:
            return True
        _, _, rest = folder.rpartition("/")[2].partition("-")
        return rest[:TOKEN_CHARACTERS] in self.leased


def claims(session: Session, public_id: str) -> Claims | None:
    """What is somebody's of the files of a study; None where there is no such study."""
    study_id = session.scalar(select(Study.id).where(Study.public_id == public_id))
    if study_id is None:
        return None
    # Leases first: an attempt that publishes in between is then known by its pointer.
    held = select(Trial.lease_token).where(Trial.study_id == study_id, Trial.lease_token.is_not(None))
    leased = frozenset((token or "")[:TOKEN_CHARACTERS] for token in session.scalars(held))
    published = set(session.scalars(select(Artifact.path).where(Artifact.study_id == study_id)))
    of_trials = select(Checkpoint.path).join(Trial, Trial.id == Checkpoint.trial_id).where(Trial.study_id == study_id)
    published |= set(session.scalars(of_trials))
    return Claims(frozenset(path.rpartition("/")[0] for path in published), leased)


def wanted_datasets(session: Session) -> set[str]:
    """The hashes of the files that stored data sets have."""
    return set(session.scalars(select(StoredDataset.object_hash).where(StoredDataset.uri.is_(None))))
