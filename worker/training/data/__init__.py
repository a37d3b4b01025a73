"""The data sets, split and prepared for training.

Where they come from (`sources`), how features and targets become what a network is trained on (`preparation`), and
their parts (`split`).
"""

from __future__ import annotations

from worker.training.data.preparation import Preparation, Targets, model_entry
from worker.training.data.sources import SOURCES, DatasetInfo, describe
from worker.training.data.split import WHOLE, Fold, Part, Split, load_split
from worker.training.data.tables import inputs_of, model_input

__all__ = [
    "SOURCES",
    "WHOLE",
    "DatasetInfo",
    "Fold",
    "Part",
    "Preparation",
    "Split",
    "Targets",
    "describe",
    "inputs_of",
    "load_split",
    "model_entry",
    "model_input",
]
