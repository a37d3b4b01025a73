"""The data sets, split and prepared for training.

Where they come from (`sources`), how features and targets become what a network is trained on (`preparation`), and
their parts (`split`).
"""

from __future__ import annotations

from worker.training.data.preparation import Preparation, Targets
from worker.training.data.sources import SOURCES, DatasetInfo, describe
from worker.training.data.split import WHOLE, Fold, Part, Split, load_split

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
    "load_split",
]
