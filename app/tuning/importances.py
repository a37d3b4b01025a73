"""How much each searched hyperparameter explains of an objective, by Optuna's evaluators over our trials.

- `fanova`: the share of the variance of the objective over the whole space that a hyperparameter explains by itself,
  by a random forest (Hutter, Hoos and Leyton-Brown 2014). A conditional hyperparameter takes part in all trials: where
  it wasn't drawn it has the middle of its range, so that what it explains is what it explains of *all* trials.
- `ped_anova`: how differently a hyperparameter is distributed among the best tenth of the trials than among all of them
  (Watanabe, Bansal and Hutter 2023; conditional hyperparameters as in condPED-ANOVA, 2026). Quicker, and about the
  region that matters.

Both are normalised to a sum of 1.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import BaseImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial

from app.errors import LibraryMissing
from app.tuning.snapshot import Snapshot
from app.tuning.thinning import evenly

Method = Literal["fanova", "ped_anova"]

FEWEST_TRIALS: Mapping[Method, int] = {"fanova": 4, "ped_anova": 20}
"""COMPLETE trials below which an answer would be noise: the best tenth of a PED-ANOVA has two trials at least."""
MOST_TRIALS: Mapping[Method, int] = {"fanova": 500, "ped_anova": 5_000}
"""Trials that are looked at, evenly over the study: what keeps an answer within a few seconds."""
TREES = 32
MOST_DEPTH = 8
"""Of a tree: whole trees of 500 trials took five times as long and told the same (shares within 0.01)."""
SEED = 0
"""Of the forest: the same trials give the same importances."""


@dataclass(frozen=True, slots=True)
class Importances:
    """The importances by hyperparameter, largest first; `reason` says in words why there are none.

    `trials` counts the COMPLETE trials that were looked at.
    """

    method: Method
    metric: str
    trials: int
    items: Mapping[str, float]
    reason: str | None = None


def importances(snapshot: Snapshot, metric: str, method: Method) -> Importances:
    """The importances for one objective.

    Raises:
        LibraryMissing: fANOVA needs scikit-learn, which isn't installed.
    """
    searched = {name: space for name, space in snapshot.distributions.items() if not space.single()}
    complete = snapshot.complete
    reason = None
    if not searched:
        reason = "Nothing is searched: every hyperparameter has one value."
    elif len(complete) < FEWEST_TRIALS[method]:
        reason = f"Expected at least {FEWEST_TRIALS[method]} COMPLETE trials for {method}. There are {len(complete)}."
    elif len({trial.values[snapshot.metrics.index(metric)] for trial in complete}) == 1:
        reason = f"All COMPLETE trials have the same {metric}: nothing explains a difference."
    if reason is not None:
        return Importances(method, metric, len(complete), {}, reason)
    chosen = evenly(complete, MOST_TRIALS[method])
    evaluator = _evaluator(method)
    if method == "fanova":
        chosen = [_filled(trial, searched) for trial in chosen]
        names = list(searched)
    else:
        names = [name for name in searched if any(name in trial.params for trial in chosen)]
    found = get_param_importances(snapshot.study([metric], chosen), evaluator=evaluator, params=names)
    ranked = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    return Importances(method, metric, len(chosen), {name: round(float(share), 9) for name, share in ranked})


def _evaluator(method: Method) -> BaseImportanceEvaluator:
    if method == "ped_anova":
        return PedAnovaImportanceEvaluator()
    try:
        import sklearn  # noqa: F401 - Optuna would say so in words for its own users
    except ImportError:
        raise LibraryMissing(
            "scikit-learn", "Importances by fANOVA", "Ask for method=ped_anova, or install it"
        ) from None
    from optuna.importance import FanovaImportanceEvaluator

    return FanovaImportanceEvaluator(n_trees=TREES, max_depth=MOST_DEPTH, seed=SEED)


def _filled(trial: FrozenTrial, spaces: Mapping[str, BaseDistribution]) -> FrozenTrial:
    """The trial with all hyperparameters: those that weren't drawn in the middle of their ranges."""
    if len(trial.params) == len(spaces) and all(name in trial.params for name in spaces):
        return trial
    filled = copy.copy(trial)
    filled._params = {name: trial.params.get(name, _middle(space)) for name, space in spaces.items()}
    filled._distributions = dict(spaces)
    return filled


def _middle(space: BaseDistribution) -> Any:
    if isinstance(space, CategoricalDistribution):
        return space.choices[0]
    if not isinstance(space, FloatDistribution | IntDistribution):
        raise TypeError(f"Expected a distribution of the service. Received: {space}")
    low, high, step = space.low, space.high, space.step or 0
    middle = (low * high) ** 0.5 if space.log else (low + high) / 2
    if step:
        middle = low + round((middle - low) / step) * step
    return int(middle) if isinstance(space, IntDistribution) else middle


def largest(found: Importances, names: Sequence[str], count: int) -> list[str]:
    """The `count` most important of `names`; in their own order where there are no importances."""
    ranked = [name for name in found.items if name in names]
    return [*ranked, *(name for name in names if name not in ranked)][:count]
