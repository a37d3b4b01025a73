"""The report's own figures, of its best trial: plain values that plotly.js draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MOST_LABELLED_CLASSES = 20
"""Cells of a larger confusion matrix are too small for numbers."""


def curves_figure(epochs: Sequence[tuple[int, Mapping[str, Any]]], selected: int | None) -> dict[str, Any]:
    """Pairs of a metric on training and validation data by epoch, the loss on the left and the score on the right."""
    names = list(epochs[-1][1])
    pairs = [name for name in names if f"val_{name}" in names] or [n for n in names if n != "seconds"][:1]
    data, layout = [], {"grid": {"rows": 1, "columns": max(1, len(pairs)), "pattern": "independent"}, "shapes": []}
    for i, name in enumerate(pairs, start=1):
        axis = "" if i == 1 else str(i)
        for prefix, words in (("", "training"), ("val_", "validation")):
            if f"{prefix}{name}" in names:
                points = [(epoch, metrics.get(f"{prefix}{name}")) for epoch, metrics in epochs]
                data.append({
                    "type": "scatter", "mode": "lines+markers", "name": words, "legendgroup": words,
                    "showlegend": i == 1, "x": [x for x, _ in points], "y": [_number(y) for _, y in points],
                    "xaxis": f"x{axis}", "yaxis": f"y{axis}", "line": {"dash": "solid" if prefix else "dot"},
                    "marker": {"size": 5, "color": "#2a78c5" if prefix else "#e07b39"},
                })  # fmt: skip
        layout[f"xaxis{axis}"] = {"title": {"text": "epoch"}}
        layout[f"yaxis{axis}"] = {"title": {"text": name}, "automargin": True}
        if selected is not None:
            mark = {"type": "line", "x0": selected, "x1": selected, "xref": f"x{axis}", "y0": 0, "y1": 1}
            line = {"width": 1, "dash": "dash", "color": "#888888"}
            layout["shapes"].append({**mark, "yref": f"y{axis} domain", "line": line})  # type: ignore[attr-defined]
    return {"data": data, "layout": layout}


def _number(value: Any) -> float | None:
    return None if isinstance(value, str) else value


def assessment_figure(content: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Heading, a sentence and a figure of a confusion matrix or of residuals."""
    if "matrix" in content:
        return _confusion(content)
    points, words = content["predictions"], "Prediction against target on the validation part"
    low = min(min(p["target"], p["predicted"]) for p in points)
    high = max(max(p["target"], p["predicted"]) for p in points)
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [p["target"] for p in points],
            "y": [p["predicted"] for p in points],
            "name": "samples",
            "marker": {"size": 6, "opacity": 0.7},
        },
        {"type": "scatter", "mode": "lines", "x": [low, high], "y": [low, high], "name": "perfect"},
    ]
    layout = {"xaxis": {"title": {"text": "target"}}, "yaxis": {"title": {"text": "prediction"}}}
    score = f"mean absolute error {content['mae']:.4g}, root mean squared error {content['rmse']:.4g}"
    return "Predictions", f"{words}: {score}.", {"data": data, "layout": layout}


def _confusion(content: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    classes, matrix = [str(name) for name in content["classes"]], content["matrix"]
    shares = [[cell / max(1, sum(row)) for cell in row] for row in matrix]
    cell: dict[str, Any] = {"hovertemplate": "true %{y}, predicted %{x}: %{text}<extra></extra>"}
    if len(classes) <= MOST_LABELLED_CLASSES:
        cell |= {"texttemplate": "%{text}"}
    heat = {
        "type": "heatmap", "z": shares, "x": classes, "y": classes, "text": matrix, "zmin": 0, "zmax": 1,
        "colorscale": [[0, "#eef3f8"], [1, "#1f5c99"]], "colorbar": {"title": {"text": "share of row"}}, **cell,
    }  # fmt: skip
    axis = {"type": "category", "automargin": True}
    layout = {
        "xaxis": {**axis, "title": {"text": "predicted"}},
        "yaxis": {**axis, "title": {"text": "true"}, "autorange": "reversed"},
    }
    words = f"The {content['samples']} samples of the validation part; accuracy {content['accuracy']:.4g}."
    return "Confusion matrix", words, {"data": [heat], "layout": layout}
