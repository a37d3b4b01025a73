"""Definitions checked whole: the domain's checks, and the sampler's and pruner's, all problems in one answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from app.api.field_errors import field_errors
from app.api.problems import invalid_request
from app.api.schemas import StudyChanges
from app.domain.checks.definition import Checked, Limits, check_definition
from app.domain.checks.limits import weight_problems
from app.domain.combinations import combination_count
from app.domain.datasets import BUILT_IN as DATASETS
from app.domain.datasets import Dataset
from app.domain.effort import Meter
from app.domain.registry import Families
from app.domain.study import Budget, Execution, StudyDefinition
from app.errors import FieldError, InvalidStudy
from app.settings import Settings

CHANGEABLE_EXECUTION = ("parallel_trials", "priority")
MAX_CELLS = 2**53
"""A grid with more combinations than this is as good as endless."""


def limits_of(settings: Settings) -> Limits:
    """The operator's limits on one study."""
    return Limits(
        max_trials=settings.max_trials,
        max_epochs=settings.max_epochs,
        max_parallel_trials=settings.max_parallel_trials,
        max_searched=settings.max_parameters,
        max_model_parameters=settings.max_model_parameters,
        max_definition_bytes=settings.max_definition_bytes,
    )


def accepted(
    definition: StudyDefinition,
    settings: Settings,
    datasets: Mapping[str, Dataset] = DATASETS,
    *,
    families: Families,
    meter: Meter | None = None,
) -> Checked:
    """The definition with all defaults, where it can be run, by the `datasets` and `families` that it may name.

    Raises:
        InvalidStudy: it can't; all its problems with their places.
        TooExpensive: to tell takes more steps than the `meter` allows.
    """
    from app.tuning.pruners import pruner_options, pruner_problems
    from app.tuning.samplers import sampler_options, sampler_problems

    limits = limits_of(settings)
    checked = check_definition(definition, limits, datasets, families=families, meter=meter)
    if any(not error.loc for error in checked.errors):
        raise invalid_request(checked.errors, InvalidStudy)
    errors = [*checked.errors, *sampler_problems(definition, checked.family), *pruner_problems(definition)]
    if errors:
        raise invalid_request(list(dict.fromkeys(errors)), InvalidStudy)
    sampler, pruner = definition.sampler, definition.pruner
    filled = checked.definition.model_copy(
        update={
            "sampler": sampler.model_copy(
                update={"options": sampler_options(sampler.name, sampler.options).model_dump(mode="json")}
            ),
            "pruner": pruner.model_copy(
                update={"options": pruner_options(pruner.name, pruner.options).model_dump(mode="json")}
            ),
        }
    )
    heavy = weight_problems(filled, limits.max_definition_bytes)
    if heavy:
        raise invalid_request(heavy, InvalidStudy)
    return replace(checked, definition=filled)


def sample_limit(definition: StudyDefinition, meter: Meter | None = None) -> int | None:
    """How many trials the sampler can draw; None where it never runs out.

    Raises:
        TooExpensive: counting them takes more steps than the `meter` allows.
    """
    from app.tuning.samplers import most_trials

    cells = most_trials(definition)
    if cells is None and definition.execution.duplicates == "resample":
        return combination_count(definition, meter)
    return None if cells is None or cells > MAX_CELLS else cells


def changed(
    definition: StudyDefinition,
    changes: StudyChanges,
    settings: Settings,
    *,
    families: Families,
    meter: Meter | None = None,
) -> StudyDefinition:
    """The definition after a merge patch (RFC 7396): what is left out stays, null gives the default.

    Its space and its data don't change, and are not looked at again.

    Raises:
        InvalidStudy: what comes out can't be run.
    """
    from app.tuning.samplers import candidate_problems

    given = changes.model_dump(include=changes.model_fields_set)
    execution = given.get("execution") or {}
    locked = [
        FieldError(("execution", name), _only_changeable(name))
        for name in execution
        if name not in CHANGEABLE_EXECUTION
    ]
    if locked:
        raise invalid_request(locked, InvalidStudy)
    merged = _merge(json.loads(definition.model_dump_json()), given)
    if given.get("execution", {}) is None:
        kept = definition.execution.model_dump(mode="json")
        defaults = Execution().model_dump(mode="json")
        merged["execution"] = kept | {name: defaults[name] for name in CHANGEABLE_EXECUTION}
    merged.setdefault("budget", Budget().model_dump(mode="json"))
    try:
        result = StudyDefinition.model_validate(merged)
    except ValidationError as error:
        found = field_errors(error.errors(include_url=False), merged, StudyDefinition)
        raise invalid_request(found, InvalidStudy) from None
    errors = [
        e
        for e in check_definition(result, limits_of(settings), {}, families=families, meter=meter).errors
        if e.loc[0] in {"budget", "execution"}
    ]
    if result.budget.trials != definition.budget.trials and not list(candidate_problems(definition)):
        errors += [FieldError(("budget", "trials"), e.msg) for e in candidate_problems(result)]
    if errors:
        raise invalid_request(errors, InvalidStudy)
    return result


def _only_changeable(name: str) -> str:
    return f"Expected {' or '.join(CHANGEABLE_EXECUTION)}: nothing else of execution changes later. Received: {name!r}"


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged
