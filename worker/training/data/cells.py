"""Cells of text as an exported model gets them: raw, and prepared inside it as the upload prepares those of a file.

An upload trims white space of ASCII from a cell, and takes a few words for an empty one (`app.data.tables`). Keras has
no layer that trims a string. So a model cuts a cell into the numbers of its characters, and passes over those at both
ends that are white space; which value a category's cell is, two sums of what is left tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.data.cells import MISSING_WORDS

WHITE_SPACE = " \t\n\v\f\r"
"""What is trimmed: what Arrow's `ascii_trim_whitespace`, and TensorFlow where it splits by white space, go by."""
EMPTY = ""
"""An empty cell: a value like any other."""
FIRST_NUMBER = 2
"""Of the first token of a vocabulary: Keras keeps 0 for what is past the end, and 1 for unknown ones."""
LARGEST_WEIGHT = 2**40
"""Sums of so many times a character's number, over the length of any value, stay within 64 bits."""
SUMS = 2
"""Two cells have the same sums by chance in one of 2⁸⁰ cases."""


def as_uploaded(cells: NDArray[Any], vocabulary: Sequence[str]) -> NDArray[Any]:
    """Raw cells, [n] strings, as an upload takes them; a word for an empty cell stays where it is a known value."""
    trimmed = np.strings.strip(cells, WHITE_SPACE)
    words = _words_for_empty(vocabulary)
    return np.where(np.isin(trimmed, words), EMPTY, trimmed) if words else trimmed


def _words_for_empty(vocabulary: Sequence[str]) -> list[str]:
    """The words that mean an empty cell, where the vocabulary knows such cells."""
    return [word for word in MISSING_WORDS if word not in vocabulary] if EMPTY in vocabulary else []


def one_hot(cells: Any, vocabulary: Sequence[str]) -> Any:
    """A Keras tensor of raw cells, [n, 1] strings, as [n, 1 + values]: a 1 at the place of each value that is known."""
    import keras

    ops = keras.ops
    known = [*vocabulary, *_words_for_empty(vocabulary)]
    length = 1 + max(map(len, known))  # one more, by which longer cells are others
    letters = sorted({letter for word in known for letter in word} - {*WHITE_SPACE, "\0"})
    cut = keras.layers.TextVectorization(standardize=None, split="character", vocabulary=[*WHITE_SPACE, *letters])
    numbers = trimmed(cut(cells), range(FIRST_NUMBER, FIRST_NUMBER + len(WHITE_SPACE)), length)
    number_of = {letter: i for i, letter in enumerate([*WHITE_SPACE, *letters], start=FIRST_NUMBER)}
    spelled = np.zeros((len(known), length), np.int64)
    for row, word in zip(spelled, known, strict=True):
        row[: len(word)] = [number_of.get(letter, 0) for letter in word]
    weights = np.random.default_rng(0).integers(1, LARGEST_WEIGHT, (SUMS, length), np.int64)
    same = None
    for weight in weights:
        mine = ops.sum(ops.multiply(ops.cast(numbers, "int64"), weight[np.newaxis]), axis=1, keepdims=True)
        equal = ops.equal(mine, (spelled @ weight)[np.newaxis])
        same = equal if same is None else ops.logical_and(same, equal)
    hot = ops.cast(same, "float32")
    values = ops.pad(hot[:, : len(vocabulary)], [[0, 0], [1, 0]])
    if len(known) == len(vocabulary):
        return values
    is_empty = ops.sum(hot[:, len(vocabulary) :], axis=1, keepdims=True)
    place = np.arange(1 + len(vocabulary)) == 1 + list(vocabulary).index(EMPTY)
    return ops.add(values, ops.multiply(is_empty, place[np.newaxis].astype(np.float32)))


def trimmed(numbers: Any, blanks: Sequence[int], length: int) -> Any:
    """Numbers of characters, [n, L] with 0 past the end, from the first that is none of `blanks`: [n, length].

    Those behind the last one that is none of them become 0.
    """
    import keras

    ops = keras.ops
    numbers = ops.pad(ops.cast(numbers, "int32"), [[0, 0], [0, length]])
    blank = ops.equal(numbers, 0)
    for number in blanks:
        blank = ops.logical_or(blank, ops.equal(numbers, number))
    inked = ops.cast(ops.logical_not(blank), "int32")
    ends = ops.max(ops.multiply(inked, ops.cumsum(ops.ones_like(inked), axis=1)), axis=1, keepdims=True)
    starts = ops.cast(ops.argmax(inked, axis=1, keepdims=True), "int32")
    places = ops.add(starts, np.arange(length, dtype=np.int32)[np.newaxis])
    taken = ops.take_along_axis(numbers, places, axis=1)
    return ops.where(ops.less(places, ends), taken, ops.zeros_like(taken))
