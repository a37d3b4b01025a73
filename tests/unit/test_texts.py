"""Texts become the same numbers in the trainer as in Keras' own layer, and the docstrings are made as they are told."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

from worker.training.data import cache, docstrings
from worker.training.data.docstrings import ALIKE, LIBRARIES, LONGEST, MASK, NAMES, ROWS_EACH, SHORTEST_WORDS
from worker.training.data.sources import describe
from worker.training.data.texts import CUTTINGS, fit_texts

pytestmark = pytest.mark.tensorflow

ODD = [
    "",
    "   \t\r\n ",
    "Plain words, and MORE words.",
    'it\'s [UNK] -- a_b.c(d) e-mail@x.y #1 50% a\\b c|d {e} ~f^g `h` "i"',
    "ÄÖÜ straße ΑΒΓ ÉCOLE İstanbul ǅ",
    "a\u00a0b\u2003c\u3000d\u0085e\u2028f\x1cg\x0bh\x0ci",
    "日本語 の テキスト 👩‍👩‍👧 e\u0301 \u200b zero",
    "tab\tnew\nline\rreturn",
    "nul\0byte",
    "-- ... !!! ???",
    "x " * 200,
    "\ufeffmark \ufffd",
    "lone \ud800 surrogate",
]


def noise(seed: int) -> str:
    letters = "aAbB  ..,_-\n\t\x0b\x1c\u00a0\u0085éÉßİΣσς日👍[]\\^`'\"0\0"
    return "".join(random.Random(seed).choices(letters, k=60))


TEXTS = np.array([*ODD, *map(noise, range(60))], object)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("size", [3, 40, 5_000])
@pytest.mark.parametrize("tokens", CUTTINGS)
def test_odd_texts_become_the_numbers_that_keras_gives_them_also_after_saving(
    tokens: str, size: int, tmp_path: Path
) -> None:
    import keras

    options = {"tokens": tokens, "max_length": 30, "vocabulary_size": size}
    fitted = fit_texts(describe("docstrings"), TEXTS[: len(TEXTS) // 2], options)
    ours = fitted.prepared(TEXTS)
    assert ours.dtype == np.int32
    assert ours.shape == (len(TEXTS), 30)
    assert ours.max() < size
    inputs = numbers = keras.Input((), dtype="string")
    for step in fitted.layers():
        numbers = step(numbers)
    made = keras.Model(inputs, numbers)
    made.save(tmp_path / "tokens.keras")
    loaded = keras.saving.load_model(tmp_path / "tokens.keras")
    sendable = np.array([text.encode(errors="replace") for text in TEXTS], object)
    for model in (made, loaded):
        np.testing.assert_array_equal(ours, np.asarray(model(keras.ops.convert_to_tensor(sendable))))


def test_a_vocabulary_is_the_training_texts_commonest_tokens() -> None:
    options = {"tokens": "words", "max_length": 4, "vocabulary_size": 4}
    fitted = fit_texts(describe("docstrings"), np.array(["b a b", "c. A, b"], object), options)
    assert fitted.tokens == ("b", "a")
    np.testing.assert_array_equal(fitted.prepared(np.array(["A b c d e", "b!"], object)), [[3, 2, 1, 1], [2, 0, 0, 0]])


def test_training_texts_without_a_token_make_no_vocabulary_but_a_model() -> None:
    options = {"tokens": "words", "max_length": 2, "vocabulary_size": 9}
    fitted = fit_texts(describe("docstrings"), np.array(["", "..."], object), options)
    np.testing.assert_array_equal(fitted.prepared(np.array(["?", "a b"], object)), [[0, 0], [1, 1]])
    fitted.layers()


# -- the docstrings ---------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    cache.keep_in(tmp_path / "made")
    docstrings.docstrings.cache_clear()
    yield tmp_path / "made"
    cache._folder.clear()
    docstrings.docstrings.cache_clear()


@pytest.mark.slow
def test_docstrings_are_made_once_the_same_each_time_and_again_where_the_file_is_broken(folder: Path) -> None:
    texts, labels = docstrings.docstrings()
    [file] = folder.iterdir()
    written = file.stat().st_mtime_ns
    docstrings.docstrings.cache_clear()
    again, _ = docstrings.docstrings()
    assert file.stat().st_mtime_ns == written
    np.testing.assert_array_equal(texts, again)
    file.write_bytes(file.read_bytes()[:1000])
    docstrings.docstrings.cache_clear()
    anew, anew_labels = docstrings.docstrings()
    np.testing.assert_array_equal(texts, anew)
    np.testing.assert_array_equal(labels, anew_labels)
    assert file.stat().st_size > 100_000
    assert [path.name for path in folder.iterdir()] == [file.name]
    _are_as_told(texts, labels)


def _are_as_told(texts: Any, labels: Any) -> None:
    info = describe("docstrings")
    assert (len(texts), info.classes) == (info.n, tuple(LIBRARIES))
    np.testing.assert_array_equal(np.bincount(labels), [ROWS_EACH] * len(LIBRARIES))
    assert all(len(text) <= LONGEST and len(text.split()) >= SHORTEST_WORDS for text in texts)
    beginnings = {"".join(c for c in text.lower() if c.isalpha())[:ALIKE] for text in texts}
    assert len(beginnings) == len(texts), "no two begin alike, in whichever part they end up"
    assert not [text for text in texts if NAMES.search(text)]
    assert any(MASK in text for text in texts)


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache.keep_in(tmp_path / "file" / "folder")
    try:
        np.testing.assert_array_equal(cache.made_once("a", lambda: {"x": np.arange(3)})["x"], np.arange(3))
    finally:
        cache._folder.clear()
