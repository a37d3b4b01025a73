"""Plots of an objective by hyperparameters: COMPLETE trials, the best among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from app.domain.space import Categorical, Float, Int
from app.tuning.figures.by_trial import metric_of
from app.tuning.figures.drawing import (
    BLUES,
    BROKEN,
    Drawing,
    Trace,
    axis_id,
    axis_key,
    blank,
    domains,
    left_out,
    no_values,
    shade,
    titled,
)
from app.tuning.figures.sizes import DEFAULT_AXES, MOST_CELLS, MOST_CONTOUR_POINTS, MOST_LINES, MOST_POINTS
from app.tuning.importances import importances, largest
from app.tuning.labels import label, shortened
from app.tuning.questions import Kind, Wanted
from app.tuning.scales import Axis, Choices, Scale, range_of, scale_of
from app.tuning.snapshot import Drawn, Snapshot, Valued
from app.tuning.thinning import with_steps

SUBPLOT_PIXELS = 300
"""Least width of a slice where there are more than three."""
MISSING = -0.12
"""Where lines of parallel coordinates pass an axis whose hyperparameter was not drawn: below it."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """The trials that a figure shows, and what they drew of its axes."""

    metric: str
    maximize: bool
    trials: Sequence[Valued]
    columns: dict[str, list[Drawn]]
    scales: dict[str, Scale]
    values: Axis
    of: int
    notes: Sequence[str]

    @property
    def names(self) -> list[str]:
        return list(self.columns)

    def points(self, *names: str) -> Iterator[tuple[Valued, tuple[float, ...]]]:
        """The trials that drew all of these hyperparameters, with what they drew."""
        columns = [self.columns[name] for name in names]
        for i, trial in enumerate(self.trials):
            drawn = tuple(column[i] for column in columns)
            if None not in drawn:
                yield trial, drawn  # type: ignore[misc]

    def quality(self, value: float) -> float:
        """Where an objective's value is between the worst that is shown, 0, and the best, 1."""
        position = self.values.scale.position(value)
        return position if self.maximize else 1 - position


def parallel(snapshot: Snapshot, wanted: Wanted) -> Drawing:
    """A line a trial over parallel axes: its objective, then its hyperparameters. The darkest are the best."""
    shown = _gathered(snapshot, wanted, "parallel", "Parallel coordinates", MOST_LINES)
    if isinstance(shown, Drawing):
        return shown
    names = [shown.metric, *map(_short, shown.names)]
    axes = [shown.values, *(Axis(shown.scales[name]) for name in shown.names)]
    columns: list[Sequence[Drawn]] = [[value for _, value in shown.trials], *shown.columns.values()]
    places = list(range(len(axes)))
    data = [
        {
            "type": "scatter", "mode": "lines", "opacity": 0.5, "showlegend": False, "x": places,
            "y": [_height(axis, column[i]) for axis, column in zip(axes, columns, strict=True)],
            "customdata": [
                [name, _words(axis, column[i])] for name, axis, column in zip(names, axes, columns, strict=True)
            ],
            "line": {
                "color": shade(shown.quality(value)), "dash": "solid" if trial.feasible else "dot", "width": 1.2
            },
            "hovertemplate": "%{customdata[0]}: %{customdata[1]}<extra></extra>",
        }
        for i, (trial, value) in enumerate(shown.trials)
    ]  # fmt: skip
    layout = {
        "xaxis": {"tickvals": places, "ticktext": names, "range": [-0.4, len(axes) - 0.8], "showgrid": False,
                  "zeroline": False, "type": "linear", "automargin": True},
        "yaxis": {"range": [MISSING - 0.06, 1.08], "visible": False, "fixedrange": True},
        "annotations": [note for place, axis in enumerate(axes) for note in _axis_notes(place, axis)],
        "shapes": [_axis_line(place) for place in places],
        "hovermode": "closest", "plot_bgcolor": "white",
    }  # fmt: skip
    return Drawing("Parallel coordinates", len(shown.trials), shown.of, data, layout, notes=shown.notes)


def _words(axis: Axis, value: Drawn) -> str:
    return "not drawn" if value is None else axis.text(value)


def _height(axis: Axis, value: Drawn) -> float:
    return MISSING if value is None else round(axis.scale.position(value), 6)


def _axis_notes(place: int, axis: Axis) -> list[dict[str, Any]]:
    """The names of places on one of the parallel axes."""
    scale = axis.scale
    ticks, texts = scale.ticks
    heights = [scale.position(tick) for tick in ticks] if isinstance(scale, Choices) else ticks
    looks = {"showarrow": False, "xanchor": "right", "xshift": -4, "font": {"size": 10, "color": "#555"}}
    return [{"x": place, "y": y, "text": text, **looks} for y, text in zip(heights, texts, strict=True)]


def _axis_line(place: int) -> dict[str, Any]:
    line = {"color": "#888", "width": 1}
    return {"type": "line", "x0": place, "x1": place, "y0": 0, "y1": 1, "line": line, "layer": "below"}


def slices(snapshot: Snapshot, wanted: Wanted) -> Drawing:
    """The objective over each hyperparameter; later trials are darker."""
    shown = _gathered(snapshot, wanted, "slice", "Slices", MOST_POINTS)
    if isinstance(shown, Drawing):
        return shown
    last = max(trial.number for trial, _ in shown.trials)
    data: list[Trace] = []
    layout: dict[str, Any] = {"yaxis": titled(shown.metric) | shown.values.layout(), "showlegend": False}
    for place, (name, domain) in enumerate(zip(shown.names, domains(len(shown.names)), strict=True)):
        axis = Axis(shown.scales[name])
        layout[axis_key("x", place)] = titled(_short(name)) | axis.layout() | {"domain": domain, "anchor": "y"}
        for feasible in (True, False):
            points = [(t, value, x) for (t, value), (x,) in shown.points(name) if t.feasible is feasible]
            if not points:
                continue
            colours: dict[str, Any] = {
                "color": [t.number for t, _, _ in points],
                "colorscale": BLUES,
                "cmin": 0,
                "cmax": last,
            }
            if place == 0:
                colours |= {"colorbar": {"title": {"text": "trial"}}, "showscale": True}
            data.append({
                "type": "scatter", "mode": "markers", "name": "Feasible Trial" if feasible else "Infeasible Trial",
                "marker": colours if feasible else BROKEN, "xaxis": axis_id("x", place), "yaxis": "y",
                "x": [axis.coordinate(x) for _, _, x in points],
                "y": [shown.values.coordinate(value) for _, value, _ in points],
            })  # fmt: skip
    if len(shown.names) > 3:
        layout["width"] = SUBPLOT_PIXELS * len(shown.names)
    return Drawing("Slices", len(shown.trials), shown.of, data, layout, notes=shown.notes)


def contour(snapshot: Snapshot, wanted: Wanted) -> Drawing:
    """The objective over each pair of hyperparameters, between the trials that were there; the darkest is the best."""
    shown = _gathered(snapshot, wanted, "contour", "Contours", MOST_CONTOUR_POINTS)
    if isinstance(shown, Drawing):
        return shown
    names = shown.names
    axes = {name: Axis(shown.scales[name]) for name in names}
    # Two hyperparameters are one plot; of more each pair is two, mirrored.
    columns, rows = (names[:1], names[1:]) if len(names) == 2 else (names, names)
    layout: dict[str, Any] = {"showlegend": False}
    for letter, some in (("x", columns), ("y", rows)):
        for place, (name, domain) in enumerate(zip(some, domains(len(some)), strict=True)):
            anchor = {"anchor": "y" if letter == "x" else "x", "domain": domain}
            layout[axis_key(letter, place)] = titled(_short(name)) | axes[name].layout() | anchor
    data: list[Trace] = []
    apart = []
    for i, x in enumerate(columns):
        for j, y in enumerate(rows):
            if x == y:
                continue
            where = {"xaxis": axis_id("x", i), "yaxis": axis_id("y", j)}
            traces = _pair(shown, (x, y), (axes[x], axes[y]))
            if not traces and (y, x) not in apart:
                apart.append((x, y))
            data += [trace | where for trace in traces]
    for trace in [trace for trace in data if trace["type"] == "contour"][1:]:
        trace["showscale"] = False
    notes = [*shown.notes, *(f"No trial drew both {shortened(x)} and {shortened(y)}." for x, y in apart)]
    if not data:
        return blank("Contours", " ".join(notes), shown.of)
    return Drawing("Contours", len(shown.trials), shown.of, data, layout, notes=notes)


def _pair(shown: _Shown, names: tuple[str, str], axes: tuple[Axis, Axis]) -> list[Trace]:
    """The objective over a grid of two hyperparameters, and the trials themselves; nothing where none drew both."""
    points = list(shown.points(*names))
    if not points:
        return []
    xs, ys = (_Grid.of([drawn[k] for _, drawn in points], axes[k]) for k in (0, 1))
    traces: list[Trace] = []
    if len(xs.lines) > 1 and len(ys.lines) > 1:
        best: dict[tuple[int, int], float] = {}
        for (_, value), (x, y) in points:
            cell = (ys.cell(x=y), xs.cell(x=x))
            known = best.get(cell)
            better = known is None or (value > known if shown.maximize else value < known)
            best[cell] = value if better else known  # type: ignore[assignment]
        grid: list[list[float | None]] = [[None] * len(xs.lines) for _ in ys.lines]
        for (row, column), value in best.items():
            grid[row][column] = shown.values.coordinate(value)
        traces.append({
            "type": "contour", "x": xs.lines, "y": ys.lines, "z": grid, "connectgaps": True, "hoverinfo": "none",
            "contours": {"coloring": "heatmap"}, "line": {"smoothing": 1.3}, "colorscale": BLUES,
            "reversescale": not shown.maximize, "colorbar": titled(shown.metric) | shown.values.colorbar(),
        })  # fmt: skip
    for feasible, colour in ((True, "black"), (False, "#cccccc")):
        some = [drawn for (trial, _), drawn in points if trial.feasible is feasible]
        if some:
            traces.append({
                "type": "scatter", "mode": "markers", "showlegend": False,
                "name": "Feasible Trial" if feasible else "Infeasible Trial",
                "marker": {"color": colour, "line": {"width": 2, "color": "gray"}},
                "x": [axes[0].coordinate(x) for x, _ in some], "y": [axes[1].coordinate(y) for _, y in some],
            })  # fmt: skip
    return traces


@dataclass(frozen=True, slots=True)
class _Grid:
    """The lines of a grid on one axis: the values themselves where there are few, else even steps of its scale."""

    lines: list[float]
    places: dict[float, int] | None
    scale: Scale

    @classmethod
    def of(cls, values: Sequence[float], axis: Axis) -> _Grid:
        coordinates = {value: axis.coordinate(value) for value in values}
        # By their coordinates: what is the same there is one line.
        distinct = sorted(set(coordinates.values()))
        if len(distinct) <= MOST_CELLS:
            at = {coordinate: i for i, coordinate in enumerate(distinct)}
            return cls(distinct, {value: at[coordinate] for value, coordinate in coordinates.items()}, axis.scale)
        steps = [axis.scale.at(i / (MOST_CELLS - 1)) if not isinstance(axis.scale, Choices)
                 else i / (MOST_CELLS - 1) * (len(axis.scale.labels) - 1) for i in range(MOST_CELLS)]  # fmt: skip
        return cls([axis.coordinate(step) for step in steps], None, axis.scale)

    def cell(self, x: float) -> int:
        """The line that a value is nearest to."""
        return self.places[x] if self.places is not None else round(self.scale.position(x) * (len(self.lines) - 1))


def _short(name: str) -> str:
    return label(name, most=24)


def _gathered(snapshot: Snapshot, wanted: Wanted, kind: Kind, title: str, most: int) -> _Shown | Drawing:
    """The trials that a figure shows with what they drew; a blank figure where there is nothing to show."""
    metric = metric_of(snapshot, wanted)
    valued = snapshot.valued(metric)
    if not valued:
        return no_values(snapshot, title, metric)
    chosen = with_steps(valued, most, maximize=snapshot.maximizes(metric))
    drawn = snapshot.drawn([trial for trial, _ in chosen], _names(snapshot, kind, wanted, metric))
    columns = {name: column for name, column in drawn.items() if any(value is not None for value in column)}
    least = 2 if kind == "contour" else 1
    of = len(snapshot.complete)
    if len(columns) < least:
        missing = ", ".join(shortened(name) for name in drawn if name not in columns)
        return blank(title, f"None of the COMPLETE trials that would be shown drew {missing}.", of)
    parameters = snapshot.parameters
    scales = {name: _scale(parameters[name], column) for name, column in columns.items()}
    notes = left_out(snapshot, valued, metric)
    values = Axis(range_of([value for _, value in chosen]))
    return _Shown(metric, snapshot.maximizes(metric), chosen, columns, scales, values, of, notes)


def _names(snapshot: Snapshot, kind: Kind, wanted: Wanted, metric: str) -> list[str]:
    """The hyperparameters that are axes, by name: those asked for, else the most important ones."""
    if wanted.hyperparameters:
        return sorted(set(wanted.hyperparameters))
    names = list(snapshot.parameters)
    if len(names) > DEFAULT_AXES[kind]:
        names = largest(importances(snapshot, metric, "ped_anova"), names, DEFAULT_AXES[kind])
    return sorted(names)


def _scale(parameter: Float | Int | Categorical, column: Sequence[Drawn]) -> Scale:
    """A hyperparameter's scale over the values that are shown; of choices over all of them."""
    if isinstance(parameter, Categorical):
        return scale_of(parameter)
    return range_of([value for value in column if value is not None], log=parameter.log)
