"""A folder for data sets that a trainer makes once: what was made is read back the next time, by any trainer.

Files are NumPy's `.npz` without pickle, written whole or not at all. A file that can't be read is made again, and a
folder that can't be written is done without.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.scratch import Scratch

Arrays = dict[str, NDArray[Any]]

_folder: list[Path] = []
"""Where files are kept; empty until the trainer says where: then nothing is kept."""


def keep_in(folder: Path) -> None:
    """Keep in `folder` what is made from now on; it is created where needed."""
    _folder[:] = [folder]


def made_once(name: str, make: Callable[[], Mapping[str, NDArray[Any]]]) -> Arrays:
    """The arrays that `make` gives, out of the file of that `name` where it was made before.

    `name` must change with everything that changes the result, such as the versions of what it is made from. No array
    may hold objects.
    """
    path = _folder[0] / f"{name}.npz" if _folder else None
    if path is not None:
        # NumPy leaves a file that it opened itself open where it is broken.
        with (
            suppress(OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error),
            path.open("rb") as file,
            np.load(file, allow_pickle=False) as found,
        ):
            return {key: found[key] for key in found.files}
    made = dict(make())
    if path is not None:
        with suppress(OSError):
            _write(path, made)
    return made


def _write(path: Path, arrays: Arrays) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with Scratch("part", within=path.parent) as beside:
        part = beside.path / path.name
        with part.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        part.replace(path)
