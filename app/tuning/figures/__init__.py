"""The plots of a study as Plotly figures: plain JSON values, of trials that are thinned to a bounded number.

Drawn here and not by a library: Optuna's plots hold numbers that JSON or plotly.js can't, texts of users' as markup,
and as many points as there are trials. Each kind is a function from a snapshot to a `Drawing`; what can't be drawn has
a reason in words. `layout.meta` says how many trials a figure shows of how many; where it leaves some out, so does its
title.
"""

from app.tuning.figures.drawing import Drawing
from app.tuning.figures.kinds import drawing_of, figure
from app.tuning.figures.sizes import (
    DEFAULT_AXES,
    FRONT_COLOUR,
    MOST_CELLS,
    MOST_CONTOUR_POINTS,
    MOST_CURVE_POINTS,
    MOST_CURVES,
    MOST_LINES,
    MOST_POINTS,
)
from app.tuning.questions import KINDS, MOST_AXES, Kind, Wanted, check

__all__ = [
    "DEFAULT_AXES",
    "FRONT_COLOUR",
    "KINDS",
    "MOST_AXES",
    "MOST_CELLS",
    "MOST_CONTOUR_POINTS",
    "MOST_CURVES",
    "MOST_CURVE_POINTS",
    "MOST_LINES",
    "MOST_POINTS",
    "Drawing",
    "Kind",
    "Wanted",
    "check",
    "drawing_of",
    "figure",
]
