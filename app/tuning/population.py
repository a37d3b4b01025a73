"""What a study that names `pbt` may ask for. No Optuna here: the API checks definitions with it."""

from __future__ import annotations

from collections.abc import Iterator

from app.domain.families import FAMILIES, Family
from app.domain.population import population_of
from app.domain.study import StudyDefinition
from app.errors import FieldError


def population_problems(definition: StudyDefinition, family: Family | None = None) -> Iterator[FieldError]:
    """Why a population can't be trained by the definition, whose sampler options were checked.

    `family` is the study's, with what its list of layers declares; the built-in one of its name where left out.
    """
    population = population_of(definition)
    if population is None:
        return
    if population.interval >= population.epochs:
        yield FieldError(
            ("sampler", "options", "interval_epochs"),
            f"Expected fewer than the {population.epochs} epochs of training: nothing would be handed on. "
            f"Received: {population.interval}",
        )
    family = family or FAMILIES.get(definition.model.family)
    if family is not None and not family.trained_here:
        message = f"Expected another sampler: the service holds no weights of {family.name} that it could copy."
        yield FieldError(("sampler", "name"), message)
    for name in definition.searched:
        declared = None if family is None else family.declared(name)
        if declared is not None and declared.structural:
            yield FieldError(
                ("hyperparameters", name),
                "Expected a fixed value with the sampler 'pbt': another one changes the network, and weights could not "
                "be copied. Only runtime hyperparameters can be searched (POST /v1/studies:validate lists them).",
            )
    yield from _unfitting(definition)


def _unfitting(definition: StudyDefinition) -> Iterator[FieldError]:
    """What makes no sense beside a population."""
    training, execution = definition.training, definition.execution
    if len(definition.objectives) > 1:
        yield FieldError(("objectives", 1), "Expected one objective with the sampler 'pbt': members are ranked by it.")
    if definition.pruner.name != "none":
        yield FieldError(
            ("pruner", "name"),
            "Expected none with the sampler 'pbt': its selection ends bad members already. "
            f"Received: {definition.pruner.name!r}",
        )
    if training.select_epoch != "last" and "select_epoch" in training.model_fields_set:
        yield FieldError(
            ("training", "select_epoch"),
            "Expected 'last' with the sampler 'pbt': a member is ranked by the weights that it hands on. "
            f"Received: {training.select_epoch!r}",
        )
    if training.early_stopping is not None:
        message = "Expected none with the sampler 'pbt': every member trains its whole interval."
        yield FieldError(("training", "early_stopping"), message)
    duplicates: str = execution.duplicates
    if duplicates != "allow":
        message = f"Expected 'allow' with the sampler 'pbt': members keep their values. Received: {duplicates!r}"
        yield FieldError(("execution", "duplicates"), message)
    if definition.warm_start.studies:
        message = "Expected none with the sampler 'pbt': another study's trials left no weights to go on from."
        yield FieldError(("warm_start", "studies"), message)
