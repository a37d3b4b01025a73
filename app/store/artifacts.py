"""Reading the pointers to trials' files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.errors import NotFound
from app.store.ids import among_ids
from app.store.tables import Artifact, table_of

_OF_TRIALS = {
    dialect: select(Artifact).where(among).order_by(Artifact.trial_id, Artifact.name)
    for dialect, among in among_ids(table_of(Artifact).c.trial_id).items()
}


def artifacts_of(session: Session, trial_ids: Sequence[int]) -> dict[int, list[Artifact]]:
    """The files of each trial, by name."""
    found: dict[int, list[Artifact]] = defaultdict(list)
    query = _OF_TRIALS[session.get_bind().dialect.name]
    for artifact in session.scalars(query, {"ids": trial_ids}):
        found[artifact.trial_id].append(artifact)
    return found


def find_artifact(session: Session, trial_id: int, name: str, *, pruned_at: str | None = None) -> Artifact:
    """The file of this name. `pruned_at` says when the retention deleted the trial's files.

    Raises:
        NotFound: the trial has none.
    """
    artifact = session.get(Artifact, (trial_id, name)) if len(name) <= 255 else None
    if artifact is None and pruned_at is not None:
        text = (
            f"Expected a file that is kept. The trial's files were deleted at {pruned_at} by this service's retention."
        )
        raise NotFound(text, code="ARTIFACT_NOT_FOUND")
    if artifact is None:
        raise NotFound(f"Expected the name of an artifact. Received: {name[:100]!r}", code="ARTIFACT_NOT_FOUND")
    return artifact
