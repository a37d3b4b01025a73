"""The one form that data is kept in: a `.npz` of typed arrays with the data set's description beside them.

| array | of | holds |
|---|---|---|
| `description` | all | the data set, without its name, as JSON in UTF-8 |
| `y` | all | [n] int32 classes, or float32 values |
| `x` | images, recordings, vectors without columns | [n, *shape] uint8 or float32 |
| `numbers` | tables | [n, k] float32: numbers and booleans in the order of the columns; NaN where missing |
| `codes` | tables | [n, c] int32: categories by index in their column's `values`; -1 where missing |
| `text`, `offsets` | texts | UTF-8 end to end, and where each begins, [n + 1] int64 |

NumPy alone, no pickles.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.domain.datasets import Dataset, described, of_description

Arrays = dict[str, NDArray[Any]]
HASHED_AT_ONCE = 2**20


@dataclass(frozen=True, slots=True)
class Normal:
    """A data set in its kept form: what is known of it, and its arrays."""

    dataset: Dataset
    arrays: Arrays


def write(normal: Normal, path: Path) -> str:
    """Write a data set to `path`; the SHA-256 of the file, the same for the same data, whatever their name."""
    unnamed = replace(normal.dataset, name="", description="", id=None, origin="upload")
    description = np.frombuffer(described(unnamed).encode(), np.uint8)
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, description=description, **normal.arrays)
    return hash_of(path)


def read(path: str | Path) -> Normal:
    """The data set in a file that `write` wrote.

    Raises:
        OSError, ValueError, KeyError: it is another file, or none.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return Normal(of_description(arrays.pop("description").tobytes().decode()), arrays)


def pack_texts(texts: list[str]) -> Arrays:
    """Texts as arrays."""
    encoded = [text.encode("utf-8", errors="replace") for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(part) for part in encoded], out=offsets[1:])
    return {"text": np.frombuffer(b"".join(encoded), np.uint8), "offsets": offsets}


def unpack_texts(arrays: Arrays) -> NDArray[Any]:
    """The texts of `pack_texts`, [n], as Python strings in an array of objects."""
    data, offsets = arrays["text"].tobytes(), arrays["offsets"].tolist()
    texts = np.empty(len(offsets) - 1, object)
    texts[:] = [data[start:end].decode("utf-8") for start, end in pairwise(offsets)]
    return texts


def hash_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(HASHED_AT_ONCE):
            digest.update(chunk)
    return digest.hexdigest()
