"""Plots of trials one after the other, and of what they came to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from app.domain.objective import pareto_front
from app.domain.trial import TrialState
from app.store.insight import Span
from app.tuning.figures.drawing import BROKEN, Drawing, Trace, blank, left_out, no_values, titled
from app.tuning.figures.sizes import (
    FRONT_COLOUR,
    MOST_CURVE_POINTS,
    MOST_CURVES,
    MOST_POINTS,
    MOST_SPATIAL_POINTS,
)
from app.tuning.importances import importances
from app.tuning.labels import escaped, label
from app.tuning.questions import Wanted
from app.tuning.scales import Axis, range_of
from app.tuning.snapshot import SeenTrial, Snapshot
from app.tuning.thinning import curves, evenly, with_steps


def metric_of(snapshot: Snapshot, wanted: Wanted) -> str:
    """The objective that is asked for; the first where none is."""
    return wanted.metrics[0] if wanted.metrics else snapshot.metrics[0]


def history(snapshot: Snapshot, wanted: Wanted) -> Drawing:
    """The objective by trial, those that break a constraint apart, and the best feasible one so far."""
    metric = metric_of(snapshot, wanted)
    title, maximize = f"History of {metric}", snapshot.maximizes(metric)
    valued = snapshot.valued(metric)
    if not valued:
        return no_values(snapshot, title, metric)
    chosen = with_steps(valued, MOST_POINTS, maximize=maximize)
    axis = Axis(range_of([value for _, value in chosen]))
    feasible = [(trial.number, value) for trial, value in chosen if trial.feasible]
    broken = [(trial.number, value) for trial, value in chosen if not trial.feasible]
    best: list[float] = []
    for _, value in feasible:
        best.append(value if not best else max(best[-1], value) if maximize else min(best[-1], value))

    def points(name: str, some: Sequence[tuple[int, float]], **looks: Any) -> Trace:
        y = [axis.coordinate(value) for _, value in some]
        return {"type": "scatter", "mode": "markers", "name": name, "x": [n for n, _ in some], "y": y, **looks}

    data = [points(metric, feasible)]
    if broken:
        data.append(points("breaks a constraint", broken, marker=BROKEN))
    line = [(number, value) for (number, _), value in zip(feasible, best, strict=True)]
    data.append(points("best so far", line, mode="lines", line={"shape": "hv"}))
    layout = {"xaxis": titled("trial"), "yaxis": titled(metric) | axis.layout()}
    return Drawing(title, len(chosen), len(snapshot.complete), data, layout, notes=left_out(snapshot, valued, metric))


def edf(snapshot: Snapshot, wanted: Wanted) -> Drawing:
    """The share of COMPLETE trials whose objective is at most so much."""
    metric = metric_of(snapshot, wanted)
    title = f"Distribution of {metric}"
    valued = snapshot.valued(metric)
    if not valued:
        return no_values(snapshot, title, metric)
    # Of the sorted values: each that is shown has the share of all of them.
    whole = sorted(value for _, value in valued)
    chosen = evenly(list(enumerate(whole, start=1)), MOST_POINTS)
    axis = Axis(range_of(whole))
    line = {
        "type": "scatter", "mode": "lines", "line": {"shape": "hv"}, "name": escaped(snapshot.definition.name),
        "x": [axis.coordinate(value) for _, value in chosen], "y": [count / len(whole) for count, _ in chosen],
    }  # fmt: skip
    layout = {"xaxis": titled(metric) | axis.layout(), "yaxis": titled("share of trials") | {"range": [0, 1.02]}}
    notes = left_out(snapshot, valued, metric)
    return Drawing(title, len(chosen), len(snapshot.complete), [line], layout, notes=notes)


def intermediate(snapshot: Snapshot, wanted: Wanted) -> Drawing:
    """The first objective by epoch; with folds and repeats, of each of them."""
    metric = metric_of(snapshot, wanted)
    title = f"{metric} by epoch" if snapshot.has_curves else f"{metric} by fold or repeat"
    shown = {TrialState.COMPLETE, TrialState.PRUNED} | ({TrialState.RUNNING} if snapshot.has_curves else set())
    reported = [trial for trial in snapshot.trials if trial.reported and trial.state in shown]
    if not reported:
        return blank(title, f"No trial has reported {metric} by epoch yet.")
    sign = -1 if snapshot.maximizes(metric) else 1
    ranked = sorted(snapshot.valued(metric), key=lambda pair: sign * pair[1])
    chosen = curves(reported, ranked, MOST_CURVES)
    drawn = list(zip(chosen, snapshot.curves(chosen, MOST_CURVE_POINTS), strict=True))
    finite = [value for _, curve in drawn for _, value in curve if is_finite(value)]
    if not finite:
        return blank(title, f"No trial has reported a finite {metric} yet.", len(reported))
    axis = Axis(range_of(finite))
    data = [_curve(trial, curve, axis) for trial, curve in drawn]
    step = "epoch" if snapshot.has_curves else "fold or repeat"
    layout = {"xaxis": titled(step), "yaxis": titled(metric) | axis.layout(), "showlegend": False}
    return Drawing(title, len(chosen), len(reported), data, layout)


def is_finite(value: float) -> bool:
    """Whether a figure can hold a number."""
    return value - value == 0


def _curve(trial: SeenTrial, curve: Sequence[tuple[int, float]], axis: Axis) -> Trace:
    marker = {"maxdisplayed": 10} if trial.feasible else {"maxdisplayed": 10, "color": "#cccccc"}
    return {
        "type": "scatter", "mode": "lines+markers", "name": f"Trial{trial.number}", "marker": marker,
        "x": [epoch for epoch, _ in curve],
        "y": [axis.coordinate(value) if is_finite(value) else None for _, value in curve],
    }  # fmt: skip


STATE_COLOURS = {
    "COMPLETE": "#2a78c5", "INFEASIBLE": "#bbbbbb", "FAIL": "#c0392b", "PRUNED": "#e0912f", "RUNNING": "#1a7f4b",
    "WAITING": "#7f8794",
}  # fmt: skip
"""Trials that wait were started before and given back."""


def timeline(snapshot: Snapshot, _wanted: Wanted) -> Drawing:
    """When trials ran, in UTC."""
    spans, now = snapshot.spans(MOST_POINTS)
    if not spans:
        return blank("Timeline", "No trial has started yet.")
    by_state: dict[str, list[Span]] = {}
    for span in spans:
        broken = span.state == TrialState.COMPLETE and span.feasible is False
        by_state.setdefault("INFEASIBLE" if broken else span.state, []).append(span)
    data = [_bars(name, by_state[name], now) for name in STATE_COLOURS if name in by_state]
    layout = {
        "xaxis": titled("time (UTC)") | {"type": "date"}, "yaxis": titled("trial"), "showlegend": True,
        "barmode": "overlay",
    }  # fmt: skip
    return Drawing("Timeline", len(spans), len(snapshot.trials), data, layout)


def _bars(name: str, spans: Sequence[Span], now: float) -> Trace:
    seconds = [max(0.0, (now if s.finished_at is None else s.finished_at) - s.started_at) for s in spans]
    values = ["" if s.value is None else f", {s.value:.6g}" for s in spans]
    return {
        "type": "bar", "orientation": "h", "name": name, "marker": {"color": STATE_COLOURS[name]},
        "x": [round(s * 1000, 3) for s in seconds], "y": [s.number for s in spans], "textposition": "none",
        "base": [_utc(s.started_at) for s in spans],
        "text": [f"trial {s.number}{v}: {t:.3g} s" for s, v, t in zip(spans, values, seconds, strict=True)],
        "hovertemplate": f"%{{text}}<br>from %{{base}}<extra>{name}</extra>",
    }  # fmt: skip


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def shares(snapshot: Snapshot, wanted: Wanted) -> Drawing:
    """Importances as bars, the largest on top."""
    found = importances(snapshot, metric_of(snapshot, wanted), wanted.method or "fanova")
    words = {"fanova": "fANOVA", "ped_anova": "PED-ANOVA"}[found.method]
    title = f"Importance for {found.metric} ({words})"
    if found.reason is not None:
        return Drawing(title, found.trials, found.trials, reason=found.reason)
    names = list(found.items)[::-1]
    bars = {
        "type": "bar", "orientation": "h", "x": [found.items[name] for name in names],
        "y": [label(name, most=128) for name in names], "text": [f"{found.items[name]:.2f}" for name in names],
        "hovertemplate": "%{y}: %{x:.3f}<extra></extra>",
    }  # fmt: skip
    layout = {
        "xaxis": titled("share of what the hyperparameters explain") | {"rangemode": "tozero"},
        # Not numbers or dates, whatever the names look like.
        "yaxis": {"automargin": True, "type": "category"},
    }
    return Drawing(title, found.trials, len(snapshot.complete), [bars], layout)


def pareto(snapshot: Snapshot, wanted: Wanted) -> Drawing:
    """Trials by two or three objectives: those that no other one beats in all of them, and the rest."""
    metrics = list(wanted.metrics or snapshot.metrics[:3])
    title = "Pareto front"
    finite = _points(snapshot, metrics)
    if not finite:
        return no_values(snapshot, title, " and ".join(metrics))
    points = finite if len(metrics) == 2 else evenly(finite, MOST_SPATIAL_POINTS)
    signs = [-1 if snapshot.maximizes(metric) else 1 for metric in metrics]

    def losses(point: Point) -> tuple[float, ...]:
        return tuple(sign * value for sign, value in zip(signs, point[1], strict=True))

    feasible = [point for point in points if point[0].feasible]
    best = set(pareto_front([losses(point) for point in feasible]))
    front = [point for point in feasible if losses(point) in best]
    others = [point for point in feasible if losses(point) not in best]
    broken = [point for point in points if not point[0].feasible]
    groups = [
        ("Infeasible Trial", evenly(broken, MOST_POINTS // 4), BROKEN),
        ("Trial", evenly(others, MOST_POINTS // 4), {"color": "#7fa8d1"}),
        ("Best Trial", evenly(sorted(front, key=losses), MOST_POINTS // 2), {"color": FRONT_COLOUR}),
    ]
    axes = [Axis(range_of([point[1][i] for point in points])) for i in range(len(metrics))]
    data = [_scatter(name, some, axes, marker) for name, some, marker in groups if some]
    shown = sum(len(some) for _, some, _ in groups)
    notes = [] if front else ["No trial keeps all constraints: the front is empty."]
    if len(points) < len(finite):
        notes.append(f"The front is that of {len(points):,} trials, evenly over the study.")
    missing = len(snapshot.complete) - len(finite)
    if missing:
        notes.append(f"{missing:,} COMPLETE trials without finite objectives are left out.")
    return Drawing(title, shown, len(snapshot.complete), data, _space(metrics, axes), notes=notes)


Point = tuple[SeenTrial, tuple[float, ...]]
"""A trial, and its objectives that are shown."""


def _points(snapshot: Snapshot, metrics: Sequence[str]) -> list[Point]:
    places = [snapshot.metrics.index(metric) for metric in metrics]
    found = [(t, tuple(t.values[place] for place in places)) for t in snapshot.complete if t.values is not None]
    return [point for point in found if all(map(is_finite, point[1]))]


def _scatter(name: str, points: Sequence[Point], axes: Sequence[Axis], marker: dict[str, Any]) -> Trace:
    places = {
        letter: [axis.coordinate(values[i]) for _, values in points]
        for i, (letter, axis) in enumerate(zip("xyz", axes, strict=False))
    }
    return {
        "type": "scatter" if len(axes) == 2 else "scatter3d", "mode": "markers", "name": name, "showlegend": False,
        "marker": marker | ({"size": 4} if len(axes) == 3 else {}), **places,
        "text": [f"trial {trial.number}: {', '.join(f'{v:.6g}' for v in values)}" for trial, values in points],
        "hovertemplate": f"%{{text}}<extra>{name}</extra>",
    }  # fmt: skip


def _space(metrics: Sequence[str], axes: Sequence[Axis]) -> dict[str, Any]:
    named = {
        f"{letter}axis": titled(metric) | axis.layout()
        for letter, metric, axis in zip("xyz", metrics, axes, strict=False)
    }
    return named if len(axes) == 2 else {"scene": named}
