"""How much a figure shows: what a browser draws in a blink, in an answer of a few megabytes at most."""

from __future__ import annotations

from collections.abc import Mapping

from app.tuning.questions import Kind

MOST_POINTS = 2_000
"""Trials of `history`, `slice`, `edf`, `timeline` and `pareto`; in the first two as many again that were the best so
far."""
MOST_SPATIAL_POINTS = 5_000
"""Trials among which the front of three objectives is looked for: it takes seconds where all of them are on it."""
MOST_LINES = 500
"""Trials of a parallel-coordinates plot, where each is a trace of its own; and as many again that were the best."""
MOST_CURVES = 100
MOST_CURVE_POINTS = 300
"""Epochs of a curve, evenly: a trial may report 10,000."""
MOST_CONTOUR_POINTS = 100
"""Trials of a contour plot; and as many again that were the best so far."""
MOST_CELLS = 40
"""Rows, and columns, of the grid behind each pair of hyperparameters: 30 pairs of 1,600 cells are a megabyte."""
DEFAULT_AXES: Mapping[Kind, int] = {"parallel": 10, "slice": 8, "contour": 3}
"""Hyperparameters that are shown where none are asked for: the most important ones (PED-ANOVA)."""
FRONT_COLOUR = "#c0392b"
