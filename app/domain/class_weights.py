"""The weights of classes that a study may name: by a class' name, else by its index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class Classes:
    """The classes of a data set in the order of their indexes, found by what a user calls them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._count = len(names)
        self._places = {name: index for index, name in reversed([*enumerate(names)])}

    def index(self, key: str) -> int | None:
        """Which class a key of `training.class_weights` means; None where there is no such class."""
        if key in self._places:
            return self._places[key]
        return int(key) if key.isascii() and key.isdigit() and len(key) < 10 and int(key) < self._count else None


def given_weights(weights: Mapping[str, float], classes: Sequence[str]) -> list[float]:
    """A weight for each class, 1 where none was given, of a mapping that was checked."""
    found, known = [1.0] * len(classes), Classes(classes)
    for key, weight in weights.items():
        index = known.index(key)
        if index is not None:
            found[index] = weight
    return found


def balanced_weights(counts: Sequence[int]) -> list[float]:
    """Weights by which every class counts alike: `n / (classes · count)` (King and Zeng 2001, as in scikit-learn).

    `counts` are the training samples of each class; a class without any has 0.
    """
    total = sum(counts)
    return [total / (len(counts) * count) if count else 0.0 for count in counts]
