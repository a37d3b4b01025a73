"""Which models are written, and where: the trainer writes to a scratch path, the supervisor publishes.

A model that can't be written is no reason to lose a result: the trial's log says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from app.domain.objective import violations
from app.domain.trial import ArtifactPointer, Reservation
from worker.artifacts import ArtifactWriter
from worker.claims import Claims
from worker.pool import StudyRef
from worker.trainer.protocol import KeepModel, KeptModel, MemberResult

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a member's model: its pointer, its scores on the test part, a line for the trial's log."""

    artifacts: tuple[ArtifactPointer, ...] = ()
    test_metrics: dict[str, float] = field(default_factory=dict)
    note: str = ""


class Keeping:
    """The models of one study's trials."""

    def __init__(self, study: StudyRef, claims: Claims, artifacts: ArtifactWriter) -> None:
        self._study = study
        self._claims = claims
        self._artifacts = artifacts

    def wanted(self, results: Sequence[MemberResult], tokens: Mapping[int, str]) -> list[KeepModel]:
        """The models that the trainer is to take, and where to write them: the best of those that ended, or all.

        `tokens` are the leases' by member. Where none are kept, the best are scored on the test part, if there is one.
        """
        kept, dataset = self._study.definition.execution.keep_models, self._study.definition.dataset
        if dataset is None or (kept == "none" and not dataset.test_fraction):
            return []
        chosen = [result for result in results if result.outcome == "complete"]
        if kept != "all":
            chosen = [result for result in chosen if self._may_be_best(result)]
            objectives = self._study.definition.objectives
            if chosen and len(objectives) == 1:
                (objective,) = objectives
                chosen = [min(chosen, key=lambda result: (objective.loss(result.values[0]), result.member))]
        extras: list[str] = [*self._study.definition.execution.artifacts]
        return [
            KeepModel(
                member=r.member,
                path=None if kept == "none" else self._artifacts.scratch(tokens[r.member]),
                extras=extras,
            )
            for r in chosen
        ]

    def _may_be_best(self, result: MemberResult) -> bool:
        """Whether it may turn out as the best when it is recorded: another worker may have a better one by then."""
        definition = self._study.definition
        if any(violation > 0 for violation in violations(definition.constraints, result.metrics)):
            return False
        best = self._claims.best_values.get(self._study.study_id)
        if not result.values or math.isnan(result.values[0]):
            return False
        if len(definition.objectives) > 1 or best is None:
            return True
        return definition.objectives[0].is_better(result.values[0], best)

    def published(self, reservation: Reservation, model: KeptModel | None) -> Published:
        """Copy a written model below the artifact location."""
        if model is None:
            return Published()
        if model.error is not None:
            return self._failed(reservation, model.error)
        if model.path is None:
            return Published((), model.test_metrics)
        try:
            pointers = self._artifacts.publish(
                self._study.public_id, reservation.number, reservation.attempt, reservation.token, model
            )
        except Exception as error:  # noqa: BLE001 - a store's driver may raise anything: the result counts without it
            return self._failed(reservation, f"{type(error).__name__}: {error}")
        return Published(pointers, model.test_metrics, "".join(f"{line}\n" for line in model.notes))

    def _failed(self, reservation: Reservation, message: str) -> Published:
        log.warning("artifact_not_written", study=self._study.public_id, trial=reservation.number, error=message)
        return Published(note=f"ARTIFACT_NOT_WRITTEN: {message}\n")
