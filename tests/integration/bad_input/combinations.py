"""Features that can't be together."""

from __future__ import annotations

from tests.integration.bad_input import DefinitionCase
from tests.integration.bad_input.external import external
from tests.integration.bad_input.studies import mlp, whole

POPULATION = {"name": "pbt", "options": {"population_size": 2, "interval_epochs": 2}}
LISTED = {"family": "keras-layers", "layers": [{"layer": "Dense", "units": {"hyperparameter": "units"}}]}

DEFINITIONS: list[DefinitionCase] = [
    ("external: deterministic", external(training={"deterministic": True}), ["training", "deterministic"]),
    (
        "pbt: layers of several widths",
        mlp(model=LISTED, sampler=POPULATION, hyperparameters={"units": whole(8, 16)}),
        ["hyperparameters", "units"],
    ),
    (
        "no improvement of a front",
        mlp(
            objectives=[{"metric": "val_loss"}, {"metric": "parameter_count"}],
            budget={"trials": 9, "no_improvement_trials": 3},
        ),
        ["budget", "no_improvement_trials"],
    ),
]
