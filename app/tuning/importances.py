"""How much each searched hyperparameter explains of an objective, by Optuna's evaluators over our trials.

- `fanova`: the share of the variance of the objective over the whole space that a hyperparameter explains by itself,
  by a random forest (Hutter, Hoos and Leyton-Brown 2014). A conditional hyperparameter takes part in all trials: where
  it wasn't drawn it has the middle of its range, so that what it explains is what it explains of *all* trials.
- `ped_anova`: how differently a hyperparameter is distributed among the best tenth of the trials than among all of them
  (Watanabe, Bansal and Hutter 2023; conditional hyperparameters as in condPED-ANOVA, 2026). Quicker, and about the
  region that matters.

Both are normalised to a sum of 1. The evaluators never see a study's own numbers, whose ranges and differences they
may not bear: a hyperparameter is its position on the scale that it is searched on, a choice its place, and an objective
goes from 0 to 1.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import BaseImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from app.domain.space import Categorical, Float, Int
from app.errors import LibraryMissing
from app.tuning.bound import BoundStorage
from app.tuning.questions import Method
from app.tuning.scales import Choices, scale_of
from app.tuning.snapshot import Drawn, Snapshot, Valued
from app.tuning.thinning import evenly

FEWEST_TRIALS: Mapping[Method, int] = {"fanova": 4, "ped_anova": 20}
"""COMPLETE trials below which an answer would be noise: the best tenth of a PED-ANOVA has two trials at least."""
MOST_TRIALS: Mapping[Method, int] = {"fanova": 500, "ped_anova": 5_000}
"""Trials that are looked at, evenly over the study: what keeps an answer within a few seconds."""
MOST_CELLS = 200_000
"""Trials times hyperparameters that are looked at: fewer trials where there are hundreds of hyperparameters."""
MOST_CHOICES = 100
"""That PED-ANOVA tells apart, the most frequent ones: it takes time with the square of their number."""
MOST_COLUMNS = 500
"""Of a forest's table: a number is one column, a choice among n is n."""
TREES = 32
MOST_DEPTH = 8
"""Of a tree: whole trees of 500 trials took five times as long and told the same (shares within 0.01)."""
SEED = 0
"""Of the forest: the same trials give the same importances."""
GRID = 50
"""Cells into which PED-ANOVA cuts a range (Optuna's number)."""


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
    searched = {name: parameter for name, parameter in snapshot.parameters.items() if not _is_single(parameter)}
    valued = snapshot.valued(metric)
    reason = _hindrance(searched, valued, metric, method)
    if reason is not None:
        return Importances(method, metric, len(valued), {}, reason)
    most = min(MOST_TRIALS[method], max(FEWEST_TRIALS[method], MOST_CELLS // len(searched)))
    chosen = evenly(valued, most)
    drawn = snapshot.drawn([trial for trial, _ in chosen], list(searched))
    inputs = _inputs(searched, drawn, method)
    points = [
        {name: column.params[i] for name, column in inputs.items() if i in column.params} for i in range(len(chosen))
    ]
    reason = _sameness(points, [value for _, value in chosen], metric)
    if reason is not None:
        return Importances(method, metric, len(chosen), {}, reason)
    trials = _trials(points, {name: column.distribution for name, column in inputs.items()}, _unit(chosen))
    found = _evaluated(_evaluator(method), trials, list(inputs), maximize=snapshot.maximizes(metric))
    if found is None:
        reason = "The hyperparameters of the trials differ too little to explain anything."
        return Importances(method, metric, len(chosen), {}, reason)
    ranked = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    return Importances(method, metric, len(chosen), {name: round(float(share), 9) for name, share in ranked})


def _is_single(parameter: Float | Int | Categorical) -> bool:
    return len(parameter.choices) == 1 if isinstance(parameter, Categorical) else parameter.low == parameter.high


def _hindrance(
    searched: Mapping[str, Float | Int | Categorical], valued: Sequence[Valued], metric: str, method: Method
) -> str | None:
    """Why nothing can be said, before any trial is looked at."""
    if not searched:
        return "Nothing is searched: every hyperparameter has one value."
    if len(valued) < FEWEST_TRIALS[method]:
        return f"Expected at least {FEWEST_TRIALS[method]} COMPLETE trials for {method}. There are {len(valued)}."
    if len({value for _, value in valued}) == 1:
        return f"All COMPLETE trials have the same {metric}: nothing explains a difference."
    columns = sum(len(p.choices) if isinstance(p, Categorical) and not p.ordered else 1 for p in searched.values())
    if method == "fanova" and columns > MOST_COLUMNS:
        return (
            f"Expected at most {MOST_COLUMNS} searched numbers and choices together for fanova. There are {columns:,}: "
            "ask for method=ped_anova."
        )
    return None


def _sameness(points: Sequence[Mapping[str, Any]], values: Sequence[float], metric: str) -> str | None:
    """Why the trials that are looked at explain nothing."""
    if all(point == points[0] for point in points):
        return "The COMPLETE trials have all but the same hyperparameters: none of them explains a difference."
    if min(values) == max(values):
        return f"The trials that were looked at have the same {metric}: nothing explains a difference."
    return None


# What the evaluators are given


@dataclass(frozen=True, slots=True)
class _Input:
    """A hyperparameter as an evaluator sees it: its values by the trial's place among those that are looked at."""

    distribution: BaseDistribution
    params: Mapping[int, float]


def _inputs(
    searched: Mapping[str, Float | Int | Categorical], drawn: Mapping[str, Sequence[Drawn]], method: Method
) -> dict[str, _Input]:
    found = {}
    for name, parameter in searched.items():
        convert, distribution, middle = _as_position(parameter) if method == "fanova" else _as_cell(parameter)
        params = {i: convert(value) for i, value in enumerate(drawn[name]) if value is not None}
        if method == "fanova":
            params = {i: params.get(i, middle) for i in range(len(drawn[name]))}
        elif isinstance(distribution, CategoricalDistribution) and len(distribution.choices) > MOST_CHOICES:
            params, distribution = _merged(params)
        if params:
            found[name] = _Input(distribution, params)
    return found


def _merged(params: Mapping[int, float]) -> tuple[dict[int, float], BaseDistribution]:
    """Choices with those that were drawn least made one."""
    frequent = [choice for choice, _ in Counter(params.values()).most_common(MOST_CHOICES - 1)]
    places = {choice: place for place, choice in enumerate(frequent)}
    merged: dict[int, float] = {i: places.get(choice, len(frequent)) for i, choice in params.items()}
    return merged, CategoricalDistribution(range(len(frequent) + 1))


Conversion = tuple[Callable[[float], float], BaseDistribution, float]
"""How a value becomes an evaluator's, among which, and which stands for one that was not drawn."""


def _as_position(parameter: Float | Int | Categorical) -> Conversion:
    """For a forest, whose trees cut a range anywhere."""
    if isinstance(parameter, Categorical) and not parameter.ordered:
        return int, CategoricalDistribution(range(len(parameter.choices))), 0
    return scale_of(parameter).position, FloatDistribution(0.0, 1.0), 0.5


def _as_cell(parameter: Float | Int | Categorical) -> Conversion:
    """For Parzen estimators over cells: as many as Optuna has for the range, so that each value stays in its own."""
    scale, cells = scale_of(parameter), GRID
    if isinstance(scale, Choices):
        if not (isinstance(parameter, Categorical) and parameter.ordered):
            return int, CategoricalDistribution(range(len(scale.labels))), 0
        cells = min(GRID, len(scale.labels))
    elif isinstance(parameter, Int) and parameter.log:
        cells = min(GRID, math.ceil(math.log2(parameter.high - parameter.low + 1)) + 1)
    elif not isinstance(parameter, Categorical) and parameter.step is not None:
        cells = min(GRID, round((parameter.high - parameter.low) / parameter.step) + 1)
    # A value halfway between two cells is in the lower one.
    return lambda value: max(0, math.ceil(scale.position(value) * (cells - 1) - 0.5)), IntDistribution(0, cells - 1), 0


def _unit(valued: Sequence[Valued]) -> list[float]:
    """The objective from 0 to 1: differences of any numbers, without overflow or loss."""
    values = [value for _, value in valued]
    # By a power of two, which rounds nothing.
    _, exponent = math.frexp(max(map(abs, values)))
    scaled = [math.ldexp(value, -exponent) for value in values]
    low = min(scaled)
    width = max(scaled) - low
    return [(value - low) / width for value in scaled]


def _trials(
    points: Sequence[Mapping[str, Any]], distributions: Mapping[str, BaseDistribution], values: Sequence[float]
) -> list[FrozenTrial]:
    return [
        FrozenTrial(
            number=i,
            trial_id=i,
            state=TrialState.COMPLETE,
            value=value,
            datetime_start=None,
            datetime_complete=None,
            params=dict(point),
            distributions={name: distributions[name] for name in point},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
        )
        for i, (point, value) in enumerate(zip(points, values, strict=True))
    ]


# The evaluators


def _evaluated(
    evaluator: BaseImportanceEvaluator, trials: Sequence[FrozenTrial], names: list[str], *, maximize: bool
) -> dict[str, float] | None:
    """Shares by name; None where the evaluator finds no difference between the trials."""
    direction = StudyDirection.MAXIMIZE if maximize else StudyDirection.MINIMIZE
    storage = BoundStorage(0, "importances", [direction], _refuse_claim)
    storage.finished = list(trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of too few trials in a regime: our own bound on their number says it
        try:
            found = get_param_importances(Study("importances", storage), evaluator=evaluator, params=names)
        except RuntimeError:  # Optuna's, where no tree of the forest has any variance
            return None
    return found if all(map(math.isfinite, found.values())) else None


def _refuse_claim(key: str, value: object) -> object:
    raise TypeError(f"Expected a study that is only read. Received an attribute to set: {key}={value!r}")


def check_method(method: Method) -> None:
    """Whether importances can be told so here.

    Raises:
        LibraryMissing: fANOVA needs scikit-learn, which isn't installed.
    """
    if method == "ped_anova":
        return
    try:
        import sklearn  # noqa: F401 - Optuna would say so in words for its own users
    except ImportError:
        raise LibraryMissing(
            "scikit-learn", "Importances by fANOVA", "Ask for method=ped_anova, or install it"
        ) from None


def _evaluator(method: Method) -> BaseImportanceEvaluator:
    check_method(method)
    if method == "ped_anova":
        return PedAnovaImportanceEvaluator()
    from optuna.importance import FanovaImportanceEvaluator

    return FanovaImportanceEvaluator(n_trees=TREES, max_depth=MOST_DEPTH, seed=SEED)


def largest(found: Importances, names: Sequence[str], count: int) -> list[str]:
    """The `count` most important of `names`; in their own order where there are no importances."""
    ranked = [name for name in found.items if name in names]
    return [*ranked, *(name for name in names if name not in ranked)][:count]
