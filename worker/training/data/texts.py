"""How texts become numbers: cut into tokens, each the number of its row in a vocabulary.

Keras' `TextVectorization` does the same inside an exported model. Both work on the bytes of UTF-8: upper case,
punctuation and white space are ASCII's alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.domain.families import Scalar
from worker.training.data.cells import WHITE_SPACE, trimmed
from worker.training.data.sources import DatasetInfo

PADDING, UNKNOWN = 0, 1
"""The numbers of no token, and of one that is not in the vocabulary: Keras'."""
NUL = "\0"
"""NumPy, in which Keras keeps vocabularies, forgets it at a token's end: tokens with one are unknown."""
PUNCTUATION = re.compile(rb"[!\"#$%&()*+,\-./:;<=>?@\[\\\]^_`{|}~']")
"""What Keras' `strip_punctuation` takes out."""


@dataclass(frozen=True, slots=True)
class Cutting:
    """A way to cut a text: the names of Keras' `standardize` and `split`."""

    standardize: str
    split: str

    def tokens(self, text: str, most: int | None = None) -> list[str]:
        """The tokens of a text, the first `most` of them."""
        data = text.encode(errors="replace").lower()
        if self.standardize == "lower_and_strip_punctuation":
            data = PUNCTUATION.sub(b"", data)
        if self.split == "character":
            return list(data.strip(WHITE_SPACE.encode()).decode())[:most]
        return [token.decode() for token in data.split()[:most]]


CUTTINGS = {
    "words": Cutting("lower_and_strip_punctuation", "whitespace"),
    "pieces": Cutting("lower", "whitespace"),
    "characters": Cutting("lower", "character"),
}
"""By the values of the hyperparameter `tokens`."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Texts as token numbers, [n, length] int32: a token's place in `tokens` after padding and the unknown."""

    cutting: Cutting
    tokens: tuple[str, ...]
    length: int
    numbers: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbers", {token: i for i, token in enumerate(self.tokens, start=UNKNOWN + 1)})

    def prepared(self, features: NDArray[Any]) -> NDArray[np.int32]:
        """Texts, [n] of `str`, as token numbers, 0 after a text's end."""
        rows = np.full((len(features), self.length), PADDING, np.int32)
        for row, text in zip(rows, features, strict=True):
            found = [self.numbers.get(token, UNKNOWN) for token in self.cutting.tokens(text, self.length)]
            row[: len(found)] = found
        return rows

    def layers(self) -> list[Any]:
        """Characters are cut at any length, for those around a text to be passed over; words have none around them."""
        import keras

        by_letter = self.cutting.split == "character"
        around = [letter for letter in WHITE_SPACE if letter not in self.numbers] if by_letter else []
        cut = keras.layers.TextVectorization(
            standardize=self.cutting.standardize,
            split=self.cutting.split,
            output_sequence_length=None if by_letter else self.length,
            vocabulary=[*self.tokens, *around],
            name="tokens",
        )
        return [cut, self._within] if by_letter else [cut]

    def _within(self, numbers: Any) -> Any:
        """The numbers of a text's characters without white space at its ends, [n, length]."""
        from keras import ops

        end = UNKNOWN + 1 + len(self.tokens)
        absent = iter(range(end, end + len(WHITE_SPACE)))
        blanks = [self.numbers[letter] if letter in self.numbers else next(absent) for letter in WHITE_SPACE]
        numbers = trimmed(numbers, blanks, self.length)
        return ops.where(ops.less(numbers, end), numbers, ops.full_like(numbers, UNKNOWN))


def fit_texts(info: DatasetInfo, training: NDArray[Any], options: Mapping[str, Scalar]) -> Vocabulary:
    """The commonest tokens of the training texts, of equally common ones the first by their letters."""
    cutting = CUTTINGS[str(options["tokens"])]
    counts = Counter(token for text in training for token in cutting.tokens(text) if NUL not in token)
    commonest = sorted(counts, key=lambda token: (-counts[token], token))
    size = int(options["vocabulary_size"]) - UNKNOWN - 1
    # Keras takes an empty vocabulary for none: one that no text has stands in for it.
    return Vocabulary(cutting, tuple(commonest[:size]) or (f"{info.name} has no token",), int(options["max_length"]))
