"""Whether folds and repeats fit a study's family, data and population."""

from __future__ import annotations

import math
from collections.abc import Iterator

from app.domain.datasets import Dataset
from app.domain.families import Family
from app.domain.population import SAMPLER
from app.domain.study import StudyDefinition
from app.errors import FieldError


def instance_problems(definition: StudyDefinition, family: Family, dataset: Dataset | None) -> Iterator[FieldError]:
    """What is wrong with the folds and repeats of a study; `dataset` is None where it has none, or an unknown one."""
    training = definition.training
    for name, count in (("folds", training.folds), ("repeats", training.repeats)):
        loc = ("training", name)
        if count == 1:
            continue
        if not family.needs_dataset:
            yield FieldError(loc, f"Expected 1: {family.name} trains on no data of ours. Received: {count}")
        elif definition.sampler.name == SAMPLER:
            yield FieldError(loc, f"Expected 1: the members of a population go on from one another. Received: {count}")
    if dataset is None or training.folds == 1 or definition.dataset is None:
        return
    _, _, test = dataset.split(0.0, definition.dataset.test_fraction)
    smallest = (dataset.rows - test) // training.folds
    if smallest < dataset.outputs:
        yield FieldError(
            ("training", "folds"),
            f"Expected folds of at least {dataset.outputs} rows. Received: {training.folds} folds of {smallest} rows",
        )
    spec = definition.dataset
    if spec.grouped and dataset.groups:
        left = dataset.groups - math.ceil(spec.test_fraction * dataset.groups)
        if left < training.folds:
            yield FieldError(
                ("training", "folds"), f"Expected at most as many folds as groups, {left}. Received: {training.folds}"
            )
    given = "validation_fraction" in definition.dataset.model_fields_set
    if (
        given
        and definition.dataset.validation_fraction
        != type(definition.dataset).model_fields["validation_fraction"].default
    ):
        yield FieldError(
            ("dataset", "validation_fraction"),
            "Expected none beside training.folds: each fold is validated on in turn. "
            f"Received: {definition.dataset.validation_fraction:g}",
        )
