"""The report's own figures, of its best trial: plain values that plotly.js draws.

What is drawn was measured by training, or told by somebody's program: any number, or none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from app.tuning.labels import label
from app.tuning.scales import FARTHEST, Axis, range_of

MOST_LABELLED_CLASSES = 20
"""Cells of a larger confusion matrix are too small for numbers."""
MOST_PAIRS = 12
"""Metrics that are drawn: a program may report any number of them."""


def curves_figure(epochs: Sequence[tuple[int, Mapping[str, Any]]], selected: int | None) -> dict[str, Any]:
    """Pairs of a metric on training and validation data by epoch, the loss on the left and the score on the right."""
    names = list(epochs[-1][1])
    pairs = [name for name in names if f"val_{name}" in names] or [n for n in names if n != "seconds"][:1]
    pairs = pairs[:MOST_PAIRS]
    data, layout = [], {"grid": {"rows": 1, "columns": max(1, len(pairs)), "pattern": "independent"}, "shapes": []}
    for i, name in enumerate(pairs, start=1):
        axis = "" if i == 1 else str(i)
        parts = [
            (prefix, words) for prefix, words in (("", "training"), ("val_", "validation")) if prefix + name in names
        ]
        lines = {prefix: [_number(metrics.get(prefix + name)) for _, metrics in epochs] for prefix, _ in parts}
        known = [y for line in lines.values() for y in line if y is not None]
        scale = Axis(range_of(known or [0.0]))
        for prefix, words in parts:
            data.append({
                "type": "scatter", "mode": "lines+markers", "name": words, "legendgroup": words,
                "showlegend": i == 1, "x": [epoch for epoch, _ in epochs],
                "y": [None if y is None else scale.coordinate(y) for y in lines[prefix]],
                "xaxis": f"x{axis}", "yaxis": f"y{axis}", "line": {"dash": "solid" if prefix else "dot"},
                "marker": {"size": 5, "color": "#2a78c5" if prefix else "#e07b39"},
            })  # fmt: skip
        layout[f"xaxis{axis}"] = {"title": {"text": "epoch"}}
        layout[f"yaxis{axis}"] = {"title": {"text": label(name)}, "automargin": True, **scale.layout()}
        if selected is not None:
            mark = {"type": "line", "x0": selected, "x1": selected, "xref": f"x{axis}", "y0": 0, "y1": 1}
            line = {"width": 1, "dash": "dash", "color": "#888888"}
            layout["shapes"].append({**mark, "yref": f"y{axis} domain", "line": line})  # type: ignore[attr-defined]
    return {"data": data, "layout": layout}


def _number(value: Any) -> float | None:
    """A finite number; None of anything else."""
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def assessment_figure(content: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A sentence and a figure of a confusion matrix or of residuals."""
    if "matrix" in content:
        return _confusion(content)
    pairs = [(_number(p["target"]), _number(p["predicted"])) for p in content["predictions"]]
    points = [(x, y) for x, y in pairs if x is not None and y is not None and max(abs(x), abs(y)) <= FARTHEST]
    words = "Prediction against target on the validation part"
    ends = [min(map(min, points)), max(map(max, points))] if points else []
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [x for x, _ in points],
            "y": [y for _, y in points],
            "name": "samples",
            "marker": {"size": 6, "opacity": 0.7},
        },
        {"type": "scatter", "mode": "lines", "x": ends, "y": ends, "name": "perfect"},
    ]
    layout = {"xaxis": {"title": {"text": "target"}}, "yaxis": {"title": {"text": "prediction"}}}
    score = f"mean absolute error {_short(content['mae'])}, root mean squared error {_short(content['rmse'])}"
    left_out = len(pairs) - len(points)
    more = f" {left_out:,} that are no numbers, or too large to be drawn, are left out." if left_out else ""
    return f"{words}: {score}.{more}", {"data": data, "layout": layout}


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _confusion(content: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    classes, matrix = [label(str(name)) for name in content["classes"]], content["matrix"]
    shares = [[cell / max(1, sum(row)) for cell in row] for row in matrix]
    # Places and their names apart: two long names may look the same when they are shortened.
    axis = {"type": "linear", "tickvals": list(range(len(classes))), "ticktext": classes, "automargin": True}
    cell: dict[str, Any] = {"hovertemplate": "true %{y}, predicted %{x}: %{text}<extra></extra>"}
    if len(classes) <= MOST_LABELLED_CLASSES:
        cell |= {"texttemplate": "%{text}"}
    heat = {
        "type": "heatmap", "z": shares, "text": matrix, "zmin": 0, "zmax": 1,
        "colorscale": [[0, "#eef3f8"], [1, "#1f5c99"]], "colorbar": {"title": {"text": "share of row"}}, **cell,
    }  # fmt: skip
    layout = {
        "xaxis": {**axis, "title": {"text": "predicted"}},
        "yaxis": {**axis, "title": {"text": "true"}, "autorange": "reversed"},
    }
    words = f"The {content['samples']} samples of the validation part; accuracy {_short(content['accuracy'])}."
    return words, {"data": [heat], "layout": layout}
