"""The figure of a kind: its drawing, in a frame that says what is shown and what is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.tuning.figures.by_axis import contour, parallel, slices
from app.tuning.figures.by_trial import edf, history, intermediate, pareto, shares, timeline
from app.tuning.figures.drawing import Drawing
from app.tuning.labels import escaped
from app.tuning.questions import Kind, Wanted
from app.tuning.snapshot import Snapshot

_DRAW: dict[Kind, Callable[[Snapshot, Wanted], Drawing]] = {
    "history": history,
    "intermediate": intermediate,
    "parallel": parallel,
    "slice": slices,
    "contour": contour,
    "edf": edf,
    "timeline": timeline,
    "importances": shares,
    "pareto": pareto,
}


def drawing_of(snapshot: Snapshot, kind: Kind, wanted: Wanted) -> Drawing:
    """The drawing of what was asked, which `app.tuning.questions.check` found to be right.

    Raises:
        LibraryMissing: importances by fANOVA without scikit-learn.
    """
    return _DRAW[kind](snapshot, wanted)


def figure(drawing: Drawing, snapshot: Snapshot, kind: Kind) -> dict[str, Any]:
    """A drawing as JSON values: `data` and `layout`, as plotly.js takes them."""
    layout = dict(drawing.layout)
    meta = {
        "kind": kind,
        "study": snapshot.definition.name,
        "trials_shown": drawing.shown,
        "trials": len(snapshot.trials),
    }
    some = f" ({drawing.shown:,} of {drawing.of:,} trials)" if 0 < drawing.shown < drawing.of else ""
    layout["title"] = {"text": drawing.title + some}
    if drawing.reason is not None:
        meta["reason"] = drawing.reason
        note = {"text": _broken_into_lines(drawing.reason), "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5}
        layout |= {
            "annotations": [note | {"showarrow": False}],
            "xaxis": {"visible": False},
            "yaxis": {"visible": False},
        }
    elif drawing.notes:
        meta["notes"] = list(drawing.notes)
        layout["title"] |= {"subtitle": {"text": escaped(" ".join(drawing.notes))}}
    return {"data": list(drawing.data), "layout": layout | {"meta": meta}}


LINE = 70
"""Characters of a line of words within a figure."""


def _broken_into_lines(text: str) -> str:
    lines = [""]
    for word in text.split(" "):
        if len(lines[-1]) + len(word) > LINE:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return "<br>".join(map(escaped, lines))
