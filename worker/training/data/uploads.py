"""Uploads as the trainer finds them: files in the one form that `app.data.normal` describes."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from app.data import normal
from app.domain.datasets import Column, Dataset
from app.domain.study import DatasetSpec
from worker.trainer.trainable import Refused
from worker.training.data.sources import DatasetInfo, Samples, Source

MISSING = ""
"""What an empty cell of a category is, to a model: a value like any other."""


def uploaded(spec: DatasetSpec, path: str | None) -> Source:
    """Where the upload of `spec` comes from: the file at `path`.

    Raises:
        Refused: there is no such file, or it is no data set.
    """
    if path is None:
        raise Refused(f"Expected the file of the upload {spec.name!r}. Received none.")
    try:
        kept = normal.read(path)
    except (OSError, ValueError, KeyError) as error:
        raise Refused(f"Expected the file of the upload {spec.name!r}. Received: {error}") from error
    return Source(info_of(kept.dataset, spec.name), partial(_samples, kept))


def info_of(dataset: Dataset, name: str) -> DatasetInfo:
    """What the trainer knows of an upload."""
    return DatasetInfo(
        name=name,
        task=dataset.task,
        kind=dataset.input_kind,
        shape=dataset.shape,
        classes=dataset.class_names,
        n=dataset.rows,
        maximum=dataset.maximum,
        sample_rate=dataset.sample_rate,
        columns=dataset.inputs if dataset.input_kind == "vector" else (),
    )


def _samples(kept: normal.Normal) -> Samples:
    """The raw features as a model takes them.

    Images, recordings and vectors are [n, *shape], texts [n] strings (an array of objects). Tables of numbers are
    [n, columns] float32, NaN where missing; with categories they are a structured array, [n], a field each column.
    """
    arrays, dataset, targets = kept.arrays, kept.dataset, normal.targets(kept)
    if dataset.input_kind == "text":
        return normal.unpack_texts(arrays), targets
    if "x" in arrays:
        return normal.samples(kept), targets
    if not dataset.is_mixed:
        return normal.numbers(kept), targets
    return _rows(dataset.inputs, arrays), targets


def _rows(columns: tuple[Column, ...], arrays: normal.Arrays) -> NDArray[np.void]:
    """The columns of a table side by side: float32, or strings where they are categories."""
    words = {
        c.name: np.array([*c.values, MISSING]) for c in columns if c.type == "category"
    }  # codes of -1 are the last
    kinds = [(c.name, words[c.name].dtype if c.name in words else np.dtype(np.float32)) for c in columns]
    rows = np.empty(len(arrays["y"]), np.dtype(kinds))
    number = code = 0
    for column in columns:
        if column.type == "category":
            rows[column.name] = words[column.name][arrays["codes"][:, code]]
            code += 1
        else:
            rows[column.name] = arrays["numbers"][:, number]
            number += 1
    return rows
