"""An exported model takes the raw cells of the uploaded file: white space around them, and words for empty ones."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import csv
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow as tf

from app.data.assembly import read_dataset
from app.data.limits import DataLimits
from app.data.normal import write
from app.data.reading import Reading
from app.domain.study import DatasetSpec
from worker.training.data import Split, load_split, model_entry
from worker.training.data.cells import WHITE_SPACE, as_uploaded, one_hot

pytestmark = pytest.mark.tensorflow

ODD = (
    "north", " north", "north\t", "\v\fnorth ", "\nnorth\r\n", "south west", " south west", "south  west", "NA", " NA ",
    "null", "", "  ", "\u00a0north", "Süd", " Süd", "日本", "日本 ", "a,b", "😀",
)  # fmt: skip


def split_of(tmp_path: Path, source: Path, kind: Any, options: dict[str, Any], **reading: Any) -> Split:
    read = Reading(format=source.suffix[1:], target="y", **reading)
    kept = tmp_path / "kept.npz"
    write(read_dataset(source, read, DataLimits(), name="t", description="", origin="upload"), kept)
    return load_split(DatasetSpec(name="t", id="ds_t", validation_fraction=0.3), kind, options, str(kept))


def loaded(split: Split, tmp_path: Path) -> Any:
    """What the preparation is inside a model that was saved."""
    keras.Model(*model_entry(split.preparation, split.raw_shape)).save(tmp_path / "model.keras")
    return keras.saving.load_model(tmp_path / "model.keras")


def table(rows: int = 200) -> dict[str, list[Any]]:
    return {
        "x": [float(i) for i in range(rows)],
        "where": [ODD[i % len(ODD)] for i in range(rows)],
        "y": [("p", "q")[i // 3 % 2] for i in range(rows)],
    }


def by_x(split: Split, model: Any, columns: dict[str, list[Any]]) -> None:
    """For every row of the file the model gives from raw cells what its network was trained and validated on."""
    given = {"x": tf.constant(columns["x"])[:, tf.newaxis], "where": tf.constant(columns["where"])[:, tf.newaxis]}
    prepared = model(given).numpy()
    places = {round(float(row[0]), 5): row for row in prepared}
    assert len(places) == len(prepared)
    known = 0
    for row in (*split.train.x, *split.validation.x):
        np.testing.assert_allclose(places[round(float(row[0]), 5)], row, atol=1e-5)
        known += int(row[1:].sum())
    assert known == len(prepared)  # every value is one that the training part has


def test_a_model_knows_every_cell_of_the_csv_file_that_it_comes_from(tmp_path: Path) -> None:
    columns, source = table(), tmp_path / "t.csv"
    with source.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, quoting=csv.QUOTE_ALL)
        rows.writerow(columns)
        rows.writerows(zip(*columns.values(), strict=True))
    split = split_of(tmp_path, source, "vector", {"normalization": "standard"}, columns={"where": "category"})
    (vocabulary,) = split.preparation.vocabularies  # type: ignore[attr-defined]
    assert vocabulary == tuple(
        sorted({"", "north", "south west", "south  west", "\u00a0north", "Süd", "日本", "a,b", "😀"})
    )
    by_x(split, loaded(split, tmp_path), columns)


def test_a_model_knows_every_cell_of_the_parquet_file_that_it_comes_from(tmp_path: Path) -> None:
    columns, source = table(), tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pa.table(columns), source)
    split = split_of(tmp_path, source, "vector", {"normalization": "standard"}, columns={"where": "category"})
    assert "NA" in split.preparation.vocabularies[0]  # type: ignore[attr-defined] # a word like others there
    by_x(split, loaded(split, tmp_path), columns)


@pytest.mark.parametrize("vocabulary", [("a", "b c"), ("", "a"), ("", "NA", "x" * 200), ("",), ("\t", "a")])
def test_a_models_layers_take_any_cell_as_an_upload_does(vocabulary: tuple[str, ...]) -> None:
    cells = keras.Input((1,), dtype="string")
    model = keras.Model(cells, one_hot(cells, vocabulary))
    around = ["", *WHITE_SPACE, " " * 300]
    words = [*vocabulary, "a", "aa", "b", "c", "b  c", "x" * 199, "x" * 201, "x" * 400, "NA", "none", "\u2028a"]
    raw = np.array([before + word + behind for word in words for before in around for behind in around])
    taken = as_uploaded(raw, vocabulary)
    expected = np.array([[0.0, *(float(cell == value) for value in vocabulary)] for cell in taken.tolist()])
    np.testing.assert_array_equal(model(tf.constant(raw[:, np.newaxis])).numpy(), expected)


@pytest.mark.parametrize("tokens", ["words", "pieces", "characters"])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_text_is_as_long_to_a_model_as_it_was_to_its_network(tmp_path: Path, form: str, tokens: str) -> None:
    said = ["the cat sat on the mat", "what a day this is", "日本 is far away from here", "so it goes, and goes"]
    texts = [f"{WHITE_SPACE[i % 6] * (i % 4)}{said[i % 4]} {i}{WHITE_SPACE[i // 6 % 6] * (i % 5)}" for i in range(60)]
    labels = [("p", "q")[i % 2] for i in range(60)]
    source = tmp_path / f"t.{form}"
    if form == "csv":
        with source.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("text", "y"), *zip(texts, labels, strict=True)])
    else:
        pyarrow.parquet.write_table(pa.table({"text": texts, "y": labels}), source)
    options = {"tokens": tokens, "max_length": 24, "vocabulary_size": 40}
    split = split_of(tmp_path, source, "text", options, columns={"text": "text"})
    model = loaded(split, tmp_path)
    trained_on = {row.tobytes() for row in (*split.train.x, *split.validation.x)}
    assert {row.tobytes() for row in model(tf.constant(texts)).numpy().astype(np.int32)} == trained_on
    odd = [*texts, "", " ", "\u3000the cat", "x" * 100, " " * 50 + "sat", "The Cat\n\n"]
    np.testing.assert_array_equal(model(tf.constant(odd)).numpy(), split.preparation.prepared(np.array(odd, object)))
