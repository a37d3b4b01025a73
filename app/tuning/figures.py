"""The plots of a study as Plotly figures: Optuna's where it has one, over trials that are thinned to a bounded number.

A figure's `layout.meta` says how many trials it shows of how many; where it leaves some out, so does its title.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from optuna.trial import FrozenTrial

from app.domain.json import loads
from app.errors import FieldError, Invalid
from app.tuning.importances import Importances, Method, importances, largest
from app.tuning.snapshot import Snapshot
from app.tuning.thinning import curves, evenly, is_feasible, with_steps

Kind = Literal["history", "intermediate", "parallel", "slice", "contour", "edf", "timeline", "importances", "pareto"]
KINDS: tuple[Kind, ...] = get_args(Kind)

MOST_POINTS = 2_000
"""Trials that a figure shows at most: a browser draws them in a blink, and the answer stays below a megabyte."""
MOST_CURVES = 100
MOST_LINES = 500
"""Trials of a parallel-coordinates plot: each is a trace of its own."""
FRONT_COLOUR = "#c0392b"
MOST_CONTOUR_POINTS = 100
"""Each pair of hyperparameters is a grid of as many rows and columns: 500 made an answer of 33 MB."""
MOST_AXES: Mapping[Kind, int] = {"parallel": 24, "slice": 24, "contour": 6}
"""Hyperparameters that may be asked for."""
DEFAULT_AXES: Mapping[Kind, int] = {"parallel": 10, "slice": 8, "contour": 3}
"""Hyperparameters that are shown where none are asked for: the most important ones (PED-ANOVA)."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller asks of a figure; nothing is asked where a field is empty."""

    metrics: tuple[str, ...] = ()
    hyperparameters: tuple[str, ...] = ()
    method: Method | None = None


def figure(snapshot: Snapshot, kind: Kind, wanted: Wanted) -> dict[str, Any]:
    """The figure as JSON values: `data` and `layout`, as plotly.js takes them.

    Raises:
        Invalid: the study has no such plot, or not of what is asked.
        LibraryMissing: importances by fANOVA without scikit-learn.
    """
    _check(snapshot, kind, wanted)
    drawn, shown = _DRAW[kind](snapshot, wanted)
    found: dict[str, Any] = loads(drawn.to_json(validate=False))
    whole = len(snapshot.trials)
    layout = found.setdefault("layout", {})
    layout["meta"] = {"kind": kind, "study": snapshot.definition.name, "trials_shown": shown, "trials": whole}
    of = _shown_of(snapshot, kind)
    if shown < of:
        title = layout.setdefault("title", {})
        title["text"] = f"{title.get('text', kind)} ({shown:,} of {of:,} trials)"
    return found


def _shown_of(snapshot: Snapshot, kind: Kind) -> int:
    """How many trials a figure of this kind would show if it left none out."""
    if kind == "timeline":
        return len(snapshot.trials)
    if kind == "intermediate":
        return sum(bool(trial.intermediate_values) for trial in snapshot.trials)
    return len(snapshot.complete)


def _check(snapshot: Snapshot, kind: Kind, wanted: Wanted) -> None:
    errors = []
    for i, metric in enumerate(wanted.metrics):
        if metric not in snapshot.metrics:
            text = f"Expected an objective of the study: {', '.join(snapshot.metrics)}. Received: {metric!r}"
            errors.append(FieldError(("query", "metric"), text))
        elif metric in wanted.metrics[:i]:
            errors.append(FieldError(("query", "metric"), f"Expected metrics that differ. Received {metric!r} twice"))
    searched = list(snapshot.distributions)
    for name in wanted.hyperparameters:
        if name not in searched:
            known = ", ".join(searched) or "none"
            text = f"Expected a searched hyperparameter: {known}. Received: {name!r}"
            errors.append(FieldError(("query", "hyperparameter"), text))
    errors += _unfit(snapshot, kind, wanted)
    if errors:
        raise Invalid(f"{'.'.join(map(str, errors[0].loc))}: {errors[0].msg}", errors=errors)


def _unfit(snapshot: Snapshot, kind: Kind, wanted: Wanted) -> list[FieldError]:
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
    if kind == "contour" and len(wanted.hyperparameters or snapshot.distributions) < 2:
        errors.append(FieldError(("path", "kind"), "Expected two searched hyperparameters or more for a contour plot."))
    if kind in {"parallel", "slice"} and not snapshot.distributions:
        errors.append(FieldError(("path", "kind"), f"Expected a searched hyperparameter for {kind}. There is none."))
    if kind == "pareto":
        if len(snapshot.metrics) < 2:
            text = "Expected a study with several objectives for a Pareto plot. This one has one."
            errors.append(FieldError(("path", "kind"), text))
        elif wanted.metrics and not 2 <= len(wanted.metrics) <= 3:
            text = f"Expected two or three metrics. Received: {len(wanted.metrics)}"
            errors.append(FieldError(("query", "metric"), text))
    elif kind == "timeline" and wanted.metrics:
        errors.append(FieldError(("query", "metric"), "Expected no metric: a timeline shows when trials ran."))
    elif len(wanted.metrics) > 1:
        errors.append(FieldError(("query", "metric"), f"Expected one metric for {kind}. Received several."))
    elif kind == "intermediate" and wanted.metrics not in {(), snapshot.metrics[:1]}:
        text = f"Expected the first objective, {snapshot.metrics[0]}: epochs of trials are compared by it."
        errors.append(FieldError(("query", "metric"), text))
    return errors


Drawn = tuple[Any, int]
"""A Plotly figure, and how many trials it shows."""


def _metric(snapshot: Snapshot, wanted: Wanted) -> str:
    return wanted.metrics[0] if wanted.metrics else snapshot.metrics[0]


def _maximize(snapshot: Snapshot, metric: str) -> bool:
    return snapshot.directions[snapshot.metrics.index(metric)] == "maximize"


def _of_metric(snapshot: Snapshot, metric: str) -> list[FrozenTrial]:
    """The COMPLETE trials with this metric as their one value."""
    return snapshot.study([metric], snapshot.complete).get_trials(deepcopy=False)


def _history(snapshot: Snapshot, wanted: Wanted) -> Drawn:
    """The objective by trial, and the best so far. Drawn here: Optuna's wants all trials, without a gap."""
    metric = _metric(snapshot, wanted)
    maximize = _maximize(snapshot, metric)
    trials = _of_metric(snapshot, metric)
    if not trials:
        return _empty("No COMPLETE trials for a history yet"), 0
    chosen = with_steps(trials, MOST_POINTS, maximize=maximize)
    return history_figure(chosen, metric, maximize=maximize), len(chosen)


def history_figure(trials: Sequence[FrozenTrial], metric: str, *, maximize: bool) -> Any:
    """The objective of COMPLETE trials by number, those that break a constraint apart, and the best feasible so far."""
    from plotly import graph_objects as go

    feasible = [trial for trial in trials if is_feasible(trial)]
    broken = [trial for trial in trials if not is_feasible(trial)]
    best: list[float] = []
    for trial in feasible:
        value = trial.values[0]
        best.append(value if not best else max(best[-1], value) if maximize else min(best[-1], value))

    def points(name: str, some: Sequence[FrozenTrial], **looks: Any) -> Any:
        x, y = [trial.number for trial in some], [trial.values[0] for trial in some]
        return go.Scatter(x=x, y=y, mode="markers", name=name, **looks)

    data = [points(metric, feasible)]
    if broken:
        data.append(points("breaks a constraint", broken, marker={"color": "#aaaaaa", "symbol": "x"}))
    line = {"shape": "hv"}
    data.append(go.Scatter(x=[trial.number for trial in feasible], y=best, mode="lines", name="best so far", line=line))
    layout = {"title": f"History of {metric}", "xaxis": {"title": "trial"}, "yaxis": {"title": metric}}
    return go.Figure(data=data, layout=layout)


def _again(snapshot: Snapshot, chosen: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials with these numbers with all their values."""
    numbers = {trial.number for trial in chosen}
    return [trial for trial in snapshot.trials if trial.number in numbers]


def _intermediate(snapshot: Snapshot, wanted: Wanted) -> Drawn:
    from optuna.visualization import plot_intermediate_values

    metric = snapshot.metrics[0]
    trials = snapshot.study([metric]).get_trials(deepcopy=False)
    chosen = curves(trials, MOST_CURVES, maximize=_maximize(snapshot, metric))
    drawn = plot_intermediate_values(snapshot.study([metric], _again(snapshot, chosen)))
    step = "epoch" if snapshot.definition.training.instances == 1 else "fold or repeat"
    drawn.update_layout(xaxis_title=step, yaxis_title=_metric(snapshot, wanted))
    return drawn, len(chosen)


def _axes(snapshot: Snapshot, kind: Kind, wanted: Wanted) -> list[str]:
    if wanted.hyperparameters:
        return list(dict.fromkeys(wanted.hyperparameters))
    names = list(snapshot.distributions)
    if len(names) <= DEFAULT_AXES[kind]:
        return names
    return largest(importances(snapshot, _metric(snapshot, wanted), "ped_anova"), names, DEFAULT_AXES[kind])


def _parallel(snapshot: Snapshot, wanted: Wanted) -> Drawn:
    from optuna.visualization import plot_parallel_coordinate

    return _by_axes(snapshot, wanted, "parallel", plot_parallel_coordinate, MOST_LINES)


def _slice(snapshot: Snapshot, wanted: Wanted) -> Drawn:
    from optuna.visualization import plot_slice

    return _by_axes(snapshot, wanted, "slice", plot_slice, MOST_POINTS)


def _contour(snapshot: Snapshot, wanted: Wanted) -> Drawn:
    from optuna.visualization import plot_contour

    return _by_axes(snapshot, wanted, "contour", plot_contour, MOST_CONTOUR_POINTS)


def _by_axes(snapshot: Snapshot, wanted: Wanted, kind: Kind, plot: Callable[..., Any], most: int) -> Drawn:
    """A figure with an axis for each of some hyperparameters, of COMPLETE trials, the best among them."""
    metric = _metric(snapshot, wanted)
    chosen = with_steps(_of_metric(snapshot, metric), most, maximize=_maximize(snapshot, metric))
    drawn_in_some = {name for trial in chosen for name in trial.params}
    axes = [name for name in _axes(snapshot, kind, wanted) if name in drawn_in_some]
    if not chosen or len(axes) < (2 if kind == "contour" else 1):
        return _empty(f"No COMPLETE trials for a {kind} plot yet"), 0
    return plot(snapshot.study([metric], _again(snapshot, chosen)), params=axes, target_name=metric), len(chosen)


def _edf(snapshot: Snapshot, wanted: Wanted) -> Drawn:
    from optuna.visualization import plot_edf

    metric = _metric(snapshot, wanted)
    chosen = evenly(snapshot.complete, MOST_POINTS)
    return plot_edf(snapshot.study([metric], chosen), target_name=metric), len(chosen)


def _timeline(snapshot: Snapshot, wanted: Wanted) -> Drawn:  # noqa: ARG001 - it shows one thing
    from optuna.visualization import plot_timeline

    started = [trial for trial in snapshot.trials if trial.datetime_start is not None]
    chosen = started[-MOST_POINTS:]
    if not chosen:
        return _empty("No trial has started yet"), 0
    return plot_timeline(snapshot.study(snapshot.metrics, chosen)), len(chosen)


def _importances(snapshot: Snapshot, wanted: Wanted) -> Drawn:
    found = importances(snapshot, _metric(snapshot, wanted), wanted.method or "fanova")
    return importances_figure(found), found.trials


def importances_figure(found: Importances) -> Any:
    """Importances as bars, the largest on top."""
    from plotly import graph_objects as go

    if found.reason is not None:
        return _empty(found.reason)
    names = list(found.items)[::-1]
    shares = [found.items[name] for name in names]
    bars = go.Bar(
        x=shares,
        y=names,
        orientation="h",
        text=[f"{share:.2f}" for share in shares],
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )
    words = {"fanova": "fANOVA", "ped_anova": "PED-ANOVA"}[found.method]
    layout = go.Layout(
        title=f"Importance for {found.metric} ({words})",
        xaxis={"title": {"text": "share of what the hyperparameters explain"}, "rangemode": "tozero"},
        yaxis={"automargin": True},
    )
    return go.Figure(data=[bars], layout=layout)


def _pareto(snapshot: Snapshot, wanted: Wanted) -> Drawn:
    from optuna.visualization import plot_pareto_front

    metrics = list(wanted.metrics or snapshot.metrics[:3])
    study = snapshot.study(metrics, snapshot.complete)
    front = {trial.number for trial in study.best_trials}
    others = evenly([t for t in snapshot.complete if t.number not in front], max(1, MOST_POINTS - len(front)))
    shown = front | {trial.number for trial in others}
    chosen = [trial for trial in snapshot.complete if trial.number in shown]
    drawn = plot_pareto_front(snapshot.study(metrics, chosen), target_names=metrics)
    # By default the front's first trial is the palest of all.
    drawn.update_traces(marker={"color": FRONT_COLOUR, "showscale": False}, selector=_is_front)
    return drawn, len(chosen)


def _is_front(trace: Any) -> bool:
    return str(trace.hovertemplate).endswith("<extra>Best Trial</extra>")


def _empty(words: str) -> Any:
    """A figure without data that says why."""
    from plotly import graph_objects as go

    note = {"text": words, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "showarrow": False}
    blank = {"visible": False}
    return go.Figure(layout=go.Layout(annotations=[note], xaxis=blank, yaxis=blank))


_DRAW: dict[Kind, Callable[[Snapshot, Wanted], Drawn]] = {
    "history": _history,
    "intermediate": _intermediate,
    "parallel": _parallel,
    "slice": _slice,
    "contour": _contour,
    "edf": _edf,
    "timeline": _timeline,
    "importances": _importances,
    "pareto": _pareto,
}
