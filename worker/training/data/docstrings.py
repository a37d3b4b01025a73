"""The data set `docstrings`: which library a docstring comes from, made of the sources of libraries that are installed.

The sources are read and parsed, never imported. What would give the library away is taken out: all names of the
libraries are masked, of docstrings that begin alike one is kept, and a text is cut after `LONGEST` characters. What is
left is each library's vocabulary and way of writing. The texts are the same wherever the libraries' versions are.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.trainer.trainable import Refused
from worker.training.data.cache import made_once

LIBRARIES = {
    "keras": "keras",
    "numpy": "numpy",
    "pydantic": "pydantic",
    "scikit-learn": "sklearn",
    "scipy": "scipy",
    "sqlalchemy": "sqlalchemy",
}
"""The classes, by distribution, and the package of each: every worker has them all."""
ROWS_EACH = 500
"""Docstrings of each library."""
ENOUGH = 600
"""Files of a library are read until so many of its docstrings differ: some are left out for being another one's too."""
SHORTEST_WORDS, LONGEST = 8, 400
"""A docstring has at least so many words, and is cut after so many characters."""
ALIKE = 60
"""Docstrings whose first so many letters are the same are taken for one."""
EDITION = 1
"""Of this module: another one makes other texts of the same sources."""

MASK = "library"
"""What stands for any library's name."""
NAMES = re.compile(
    r"scikit[-_ ]?learn|sklearn|numpy|scipy|keras|pydantic(?:[-_ ]?core)?|sqlalchemy|tensorflow|\b(?:np|sp|tf|sa)\b",
    re.IGNORECASE,
)
"""The libraries' names and the short ones that their examples import them by, within other words too."""
OUTSIDE = frozenset({"test", "tests", "testing", "externals", "_vendor", "conftest.py"})
"""Folders and files whose docstrings are not the library's own."""

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@lru_cache(maxsize=1)
def docstrings() -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Texts, [n] of `str`, and the position of each one's library in `LIBRARIES`, [n]: `ROWS_EACH` of each.

    Raises:
        Refused: a library is missing, or has too few docstrings of its own.
    """
    made = made_once(f"docstrings-{_digest()}", _make)
    return made["texts"].astype(object), made["labels"]


def _digest() -> str:
    """What changes with everything that the texts depend on."""
    try:
        versions = [f"{name} {version(name)}" for name in LIBRARIES]
    except PackageNotFoundError as error:
        raise Refused(f"Expected the library {error.name} on this worker, to make docstrings of.") from error
    parts = (EDITION, ROWS_EACH, *versions)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _make() -> dict[str, NDArray[Any]]:
    by_library = [_by_beginning(package) for package in LIBRARIES.values()]
    texts, labels = [], []
    for label, (name, found) in enumerate(zip(LIBRARIES, by_library, strict=True)):
        others = [other for other in by_library if other is not found]
        own = [text for beginning, text in found.items() if not any(beginning in other for other in others)]
        if len(own) < ROWS_EACH:
            raise Refused(f"Expected at least {ROWS_EACH} docstrings in {name}. Received: {len(own)}")
        # By their digests: a choice that is spread over the whole library and the same everywhere.
        texts += sorted(own, key=lambda text: hashlib.sha256(text.encode()).digest())[:ROWS_EACH]
        labels += [label] * ROWS_EACH
    return {"texts": np.array(texts), "labels": np.array(labels, np.int32)}


def _by_beginning(package: str) -> dict[str, str]:
    """The texts of a package by the letters that they begin with, of each beginning the first."""
    found: dict[str, str] = {}
    for path in _files(package):
        for docstring in _docstrings_of(path):
            text = _cut(NAMES.sub(MASK, docstring))
            letters = "".join(c for c in text.lower() if c.isalpha())[:ALIKE]
            if len(text.split()) >= SHORTEST_WORDS:
                found.setdefault(letters, text)
        if len(found) >= ENOUGH:
            break
    return found


def _cut(text: str) -> str:
    """The beginning of a text, whole words."""
    return text if len(text) <= LONGEST else text[: LONGEST + 1].rpartition(" ")[0].rstrip()


def _files(package: str) -> list[Path]:
    """The sources of a package, by the digests of their names: an order that is the same everywhere, and mixed."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise Refused(f"Expected the library {package} on this worker, to make docstrings of.")
    root = Path(spec.origin).parent
    own = [path.relative_to(root) for path in root.rglob("*.py")]
    own = [path for path in own if not OUTSIDE & set(path.parts)]
    return [root / path for path in sorted(own, key=lambda path: hashlib.sha256(path.as_posix().encode()).digest())]


def _docstrings_of(path: Path) -> Iterator[str]:
    """The docstrings of a file's module, classes and functions."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return  # a file that isn't this version of Python's
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and (docstring := ast.get_docstring(node)):
            # Lone surrogates are no text: they can't be encoded.
            yield docstring.encode(errors="replace").decode()
