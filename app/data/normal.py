"""The one form that data is kept in: a `.npz` of typed arrays with the data set's description beside them.

| array | of | holds |
|---|---|---|
| `description` | all | the data set, without its name, as JSON in UTF-8 |
| `y` | all | [n] classes, or float32 values |
| `x` | images, recordings, vectors without columns | [n, *shape]: samples, divided by `scale` |
| `scale` | recordings of whole numbers | [1] float32 |
| `numbers` | tables | [n, k]: numbers and booleans in the order of the columns; NaN where missing |
| `codes` | tables | [n, c]: categories by index in their column's `values`; -1 where missing |
| `text`, `offsets` | texts | UTF-8 end to end, and where each begins, [m + 1] int64 |
| `texts` | texts | [n]: which of them each sample has, -1 for an empty one; each in turn where there is no such array |

Numbers are as narrow as they can be without a loss: whole ones of up to 16 bits are kept so, all others as float32
(float16 where they came so). `samples`, `numbers`, `targets` and `unpack_texts` widen them: whole arrays at once, in
the process that trains on them. The description says the `form`: 2 is this one; files of form 1 have float32 and int32
everywhere (uint8 for pixels), and a text for each sample. They are read the same way.

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

from app.data.narrow import narrowest
from app.domain.datasets import Dataset, described, of_description

Arrays = dict[str, NDArray[Any]]
Floats = NDArray[np.float32]
FORM = 2
HASHED_AT_ONCE = 2**20


@dataclass(frozen=True, slots=True)
class Normal:
    """A data set in its kept form: what is known of it, and its arrays."""

    dataset: Dataset
    arrays: Arrays

    @property
    def size_bytes(self) -> int:
        """What the arrays take, here and on disk."""
        return sum(array.nbytes for array in self.arrays.values())


def write(normal: Normal, path: Path) -> str:
    """Write a data set to `path`; the SHA-256 of the file, the same for the same data, whatever their name."""
    unnamed = replace(normal.dataset, name="", description="", id=None, origin="upload", form=FORM)
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


def samples(normal: Normal) -> NDArray[Any]:
    """Images, recordings or vectors, [n, *shape]: uint8 as it is kept, all else as float32."""
    x = normal.arrays["x"]
    if "scale" in normal.arrays:
        scaled: Floats = x.astype(np.float32)
        scaled *= normal.arrays["scale"]
        return scaled
    return x if x.dtype == np.uint8 else x.astype(np.float32, copy=False)


def numbers(normal: Normal) -> Floats:
    """The numbers of a table, [n, k] float32."""
    return normal.arrays["numbers"].astype(np.float32, copy=False)


def targets(normal: Normal) -> NDArray[Any]:
    """What is predicted, [n]: int32 classes or float32 values."""
    kind = np.int32 if normal.dataset.task == "classification" else np.float32
    return normal.arrays["y"].astype(kind, copy=False)


def pack_words(words: Any, codes: NDArray[Any]) -> Arrays:
    """Texts as arrays: an Arrow array of strings, and which of them each sample has, [n], -1 for an empty one."""
    if not len(words):
        return {**pack_texts([]), "texts": narrowest(codes)}
    _, places, data = words.buffers()
    offsets = np.frombuffer(places, np.int32, len(words) + 1, 4 * words.offset).astype(np.int64)
    text = np.frombuffer(data or b"", np.uint8)[offsets[0] : offsets[-1]]
    return {"text": text, "offsets": offsets - offsets[0], "texts": narrowest(codes)}


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
    return np.append(texts, "")[arrays["texts"]] if "texts" in arrays else texts


def hash_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(HASHED_AT_ONCE):
            digest.update(chunk)
    return digest.hexdigest()
