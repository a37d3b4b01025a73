"""What may be asked of a study's trials: told from its definition alone, without Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from app.domain.study import StudyDefinition
from app.errors import FieldError, Invalid

Method = Literal["fanova", "ped_anova"]
Kind = Literal["history", "intermediate", "parallel", "slice", "contour", "edf", "timeline", "importances", "pareto"]
KINDS: tuple[Kind, ...] = get_args(Kind)

MOST_AXES: Mapping[Kind, int] = {"parallel": 24, "slice": 24, "contour": 6}
"""Hyperparameters that may be asked for."""
NAMED = 30
"""Hyperparameters that a message names."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller asks of a figure; nothing is asked where a field is empty."""

    metrics: tuple[str, ...] = ()
    hyperparameters: tuple[str, ...] = ()
    method: Method | None = None


def check(definition: StudyDefinition, kind: Kind, wanted: Wanted) -> None:
    """Whether a study of this definition has such a figure.

    Raises:
        Invalid: it has none, or not of what is asked.
    """
    metrics, searched = tuple(objective.metric for objective in definition.objectives), list(definition.searched)
    errors = []
    for i, metric in enumerate(wanted.metrics):
        if metric not in metrics:
            text = f"Expected an objective of the study: {', '.join(metrics)}. Received: {metric!r}"
            errors.append(FieldError(("query", "metric"), text))
        elif metric in wanted.metrics[:i]:
            errors.append(FieldError(("query", "metric"), f"Expected metrics that differ. Received {metric!r} twice"))
    for name in wanted.hyperparameters:
        if name not in searched:
            known = ", ".join(searched[:NAMED]) or "none"
            text = f"Expected a searched hyperparameter: {known}. Received: {name!r}"
            errors.append(FieldError(("query", "hyperparameter"), text))
    errors += _unfit(metrics, searched, kind, wanted)
    if errors:
        raise Invalid(f"{'.'.join(map(str, errors[0].loc))}: {errors[0].msg}", errors=errors)


def _unfit(metrics: tuple[str, ...], searched: list[str], kind: Kind, wanted: Wanted) -> list[FieldError]:
    """What is asked that a plot of this kind can't show."""
    errors = []
    if wanted.method is not None and kind != "importances":
        errors.append(FieldError(("query", "method"), f"Expected no method: it belongs to importances, not {kind}."))
    if wanted.hyperparameters and kind not in MOST_AXES:
        text = f"Expected no hyperparameters for {kind}: they choose the axes of {', '.join(MOST_AXES)}."
        errors.append(FieldError(("query", "hyperparameter"), text))
    elif len(wanted.hyperparameters) > MOST_AXES.get(kind, 0):
        text = f"Expected at most {MOST_AXES[kind]} hyperparameters for {kind}. Received: {len(wanted.hyperparameters)}"
        errors.append(FieldError(("query", "hyperparameter"), text))
    if kind == "contour" and len(wanted.hyperparameters or searched) < 2:
        errors.append(FieldError(("path", "kind"), "Expected two searched hyperparameters or more for a contour plot."))
    if kind in {"parallel", "slice"} and not searched:
        errors.append(FieldError(("path", "kind"), f"Expected a searched hyperparameter for {kind}. There is none."))
    if kind == "pareto":
        if len(metrics) < 2:
            text = "Expected a study with several objectives for a Pareto plot. This one has one."
            errors.append(FieldError(("path", "kind"), text))
        elif wanted.metrics and not 2 <= len(wanted.metrics) <= 3:
            text = f"Expected two or three metrics. Received: {len(wanted.metrics)}"
            errors.append(FieldError(("query", "metric"), text))
    elif kind == "timeline" and wanted.metrics:
        errors.append(FieldError(("query", "metric"), "Expected no metric: a timeline shows when trials ran."))
    elif len(wanted.metrics) > 1:
        errors.append(FieldError(("query", "metric"), f"Expected one metric for {kind}. Received several."))
    elif kind == "intermediate" and wanted.metrics not in {(), metrics[:1]}:
        text = f"Expected the first objective, {metrics[0]}: epochs of trials are compared by it."
        errors.append(FieldError(("query", "metric"), text))
    return errors


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a study's trials: a figure, or where `kind` is None the importances themselves."""

    kind: Kind | None
    wanted: Wanted = Wanted()

    @property
    def is_live(self) -> bool:
        """Whether the answer changes while trials run."""
        return self.kind in {"intermediate", "timeline"}


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a question as JSON text. `fault` is the traceback of an error of ours, which it tells in words.

    `reason` says why there is nothing in it, `notes` what is missing of the rest.
    """

    text: str
    reason: str | None = None
    notes: tuple[str, ...] = ()
    fault: str | None = None
