"""The files that attempts published: which of them a study keeps.

A project's quota of stored bytes keeps no trial from its result: files that don't fit are let go, and its log says so.

With `keep_models: best` a study of one objective keeps the best trial's, one of several those of the Pareto front: a
trial that another one dominates loses its files in the transaction that records the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from sqlalchemy import bindparam, delete, insert, select

from app.domain.direction import losses
from app.domain.json import decode_number, dumps, loads
from app.domain.objective import pareto_front
from app.domain.trial import ArtifactPointer, Outcome, TrialState
from app.store.locking import LockedStudy
from app.store.quotas import lock_byte_quota, stored_bytes
from app.store.settling import write_logs
from app.store.tables import Artifact, Trial, table_of

_artifacts, _trials = table_of(Artifact), table_of(Trial)
_PUBLISH = insert(_artifacts)
_SUPERSEDE = (
    delete(_artifacts)
    .where(_artifacts.c.study_id == bindparam("kept_study"), _artifacts.c.trial_id != bindparam("kept_trial"))
    .returning(_artifacts.c.path)
)
_REMOVE = (
    delete(_artifacts)
    .where(_artifacts.c.trial_id.in_(bindparam("removed", expanding=True)))
    .returning(_artifacts.c.path)
)
_KEPT_VALUES = (
    select(_trials.c.id, _trials.c.objective_values)
    .where(_trials.c.id.in_(select(_artifacts.c.trial_id).where(_artifacts.c.study_id == bindparam("kept_study"))))
)  # fmt: skip

Files = list[tuple[int, int, ArtifactPointer]]
"""Files with the ids of their trials and the attempts that wrote them."""


class Published:
    """The files that attempts of a locked study published in one transaction."""

    def __init__(self, study: LockedStudy, directions: Sequence[str]) -> None:
        self._study = study
        self._directions = directions
        self._only_best = study.keep_models == "best"
        self._kept: Files = []
        self._superseded: list[str] = []
        self._losses: dict[int, tuple[float, ...]] = {}
        """By the ids of trials with files, where they compete for the front: smaller is better."""

    def add(self, outcome: Outcome, attempt: int, *, better: bool) -> None:
        """Take up the files of an attempt. `better` says that it is the best one now, with a single objective."""
        files = [(outcome.trial_id, attempt, artifact) for artifact in outcome.artifacts]
        if not (self._only_best and files):
            self._kept += files
        elif len(self._directions) > 1:
            if self._may_stay(outcome):
                self._losses[outcome.trial_id] = self._losses_of(outcome.values or ())
                self._kept += files
            else:
                self._superseded += [a.path for _, _, a in files]
        else:
            # Not better: another trial was recorded as the best meanwhile.
            self._superseded += [a.path for _, _, a in (self._kept if better else files)]
            self._kept = files if better else self._kept

    def write(self) -> list[str]:
        """Point to the files that are kept; the paths of those that nothing points to any more."""
        if not self._kept:
            return self._superseded
        quota = lock_byte_quota(self._study.connection, self._study.id)
        if quota is None:
            return self._point()
        return self._point_within(*quota)

    def _point(self) -> list[str]:
        superseded = list(self._superseded)
        connection = self._study.connection
        if self._losses:
            superseded += self._leave_the_front()
        elif self._only_best:
            kept = {"kept_study": self._study.id, "kept_trial": self._kept[0][0]}
            superseded += connection.execute(_SUPERSEDE, kept).scalars()
        if self._kept:
            connection.execute(_PUBLISH, [self._row(*file) for file in self._kept])
        return superseded

    def _point_within(self, project: str, limit: int) -> list[str]:
        """The same, undone where the project stores more than it may then; files that were there before stay."""
        connection, files = self._study.connection, list(self._kept)
        before = stored_bytes(connection, project)
        with connection.begin_nested() as attempt:
            superseded = self._point()
            used = stored_bytes(connection, project)
            if used <= limit or used <= before:
                return superseded
            attempt.rollback()
        words = (
            f"QUOTA_EXCEEDED: Expected the trial's files to fit into what the project {project!r} may store, "
            f"{limit:,} bytes. They would make it {used:,}: the result stands, the files were not kept.\n"
        )
        attempts = {trial_id: attempt_number for trial_id, attempt_number, _ in files}
        at = self._study.at
        write_logs(
            self._study, [{"trial_id": key, "attempt": n, "text": words, "at": at} for key, n in attempts.items()]
        )
        return [*self._superseded, *(artifact.path for _, _, artifact in files)]

    def _may_stay(self, outcome: Outcome) -> bool:
        """Whether the attempt can be on the front at all."""
        complete = outcome.state is TrialState.COMPLETE and outcome.feasible
        return bool(complete and outcome.values and not any(map(math.isnan, outcome.values)))

    def _losses_of(self, values: Iterable[float]) -> tuple[float, ...]:
        return losses(values, self._directions)

    def _leave_the_front(self) -> list[str]:
        """Drop the files of trials that are dominated now; their paths. Only trials with files are compared."""
        connection = self._study.connection
        standing = {
            row.id: self._losses_of(map(decode_number, loads(row.objective_values)))
            for row in connection.execute(_KEPT_VALUES, {"kept_study": self._study.id})
        }
        front = set(pareto_front([*standing.values(), *self._losses.values()]))
        gone = [key for key, losses in standing.items() if losses not in front]
        paths = list(connection.execute(_REMOVE, {"removed": gone}).scalars()) if gone else []
        dominated = {key for key, losses in self._losses.items() if losses not in front}
        paths += [artifact.path for key, _, artifact in self._kept if key in dominated]
        self._kept = [file for file in self._kept if file[0] not in dominated]
        return paths

    def _row(self, trial_id: int, attempt: int, artifact: ArtifactPointer) -> dict[str, object]:
        return {
            "study_id": self._study.id,
            "trial_id": trial_id,
            "attempt": attempt,
            "details": dumps(artifact.details),
            "created_at": self._study.at,
            **{name: getattr(artifact, name) for name in ("name", "path", "media_type", "size_bytes")},
        }
