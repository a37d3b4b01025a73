"""From what a trainer says of a member to what is recorded of its trial."""

from __future__ import annotations

from typing import Any

from app.domain.objective import violations
from app.domain.study import StudyDefinition
from app.domain.trial import ArtifactPointer, Curve, FailureReason, Outcome, TrialState
from worker.trainer.protocol import MemberResult

STOPPED_WORDS = {
    "TIMEOUT": (FailureReason.TIMEOUT, "TRIAL_TIMEOUT", "The trial ran past its time limit."),
    "CANCELLED": (FailureReason.CANCELLED, "STUDY_ENDED", "A limit or the target of the study was met."),
}


def outcome_of(
    result: MemberResult,
    definition: StudyDefinition,
    trial_id: int,
    token: str,
    *,
    curve: Curve,
    attributes: dict[str, Any],
    artifacts: tuple[ArtifactPointer, ...] = (),
    note: str = "",
    test_metrics: dict[str, float] | None = None,
) -> Outcome:
    """The outcome of an attempt. `curve` has the objectives by epoch, `note` goes to the trial's log."""
    state, reason, code, message = TrialState.COMPLETE, None, None, None
    if result.outcome == "failed":
        state, reason = TrialState.FAIL, result.reason or FailureReason.EXCEPTION
        code, message = result.error_code or reason.value, result.message
    elif result.outcome == "stopped" and result.stop_reason == "PRUNED":
        state = TrialState.PRUNED
    elif result.outcome == "stopped":
        state = TrialState.FAIL
        reason, code, message = STOPPED_WORDS[result.stop_reason or "CANCELLED"]
    log = "".join(part for part in (f"{code}: {message}\n" if code else "", result.traceback or "", note) if part)
    return Outcome(
        trial_id=trial_id,
        token=token,
        state=state,
        values=tuple(result.values) if result.values and state is not TrialState.FAIL else None,
        metrics=result.metrics or None,
        selected_epoch=result.selected_epoch,
        epochs=result.epochs,
        curve=curve,
        violations=violations(definition.constraints, result.metrics) if state is TrialState.COMPLETE else (),
        reason=reason,
        error_code=code,
        error_message=message,
        log=log or None,
        device_seconds=result.device_seconds,
        system_attributes=attributes,
        artifacts=artifacts,
        test_metrics=test_metrics or {},
    )
